// Charts of the time line, by uPlot: in the colours of the page, to be read by pointer and by keys.

import { clock, known, minute } from "/words.js";

const LINES = [["--model", 2.5, []], ["--base", 1.75, [7, 4]], ["--base", 1.75, [2, 3]]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Chart {
  // shown: how a value reads; readout: where values under the pointer are told; marks: moments.
  constructor(place, readout, { low = null } = {}) {
    Object.assign(this, { place, readout, low, plot: null, data: null, labels: [], shown: String, marks: [] });
    new ResizeObserver(() => this.resize()).observe(place);
    dark.addEventListener("change", () => this.remake());
    place.tabIndex = 0;
    place.setAttribute("role", "img");
    place.addEventListener("keydown", (event) => this.step(event));
    place.addEventListener("blur", () => this.leave());
  }

  size() {
    return { width: Math.max(this.place.clientWidth, 50), height: Math.max(this.place.clientHeight, 50) };
  }

  resize() {
    const { width, height } = this.size();
    if (this.plot && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({ width, height });
  }

  remake() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data) this.show(this.labels, this.data, this);
  }

  // data: times in seconds, then the values of each label; null is a gap.
  show(labels, data, { shown, marks = [] }) {
    const same = this.plot && labels.join("\n") === this.labels.join("\n");
    Object.assign(this, { labels, data, shown, marks });
    if (same) return this.plot.setData(data);
    this.plot?.destroy();
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const axis = {
      stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false },
      font: `${0.8125 * rem}px system-ui, sans-serif`, gap: 6,
    };
    this.plot = new uPlot({
      ...this.size(),
      padding: [0.75 * rem, 1.25 * rem, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
      scales: { y: { range: () => this.range() } },
      axes: [
        { ...axis, space: 5.5 * rem, size: 2 * rem, values: (_, times, at, space, step) => times.map((time) => (step < 60 ? clock(1000 * time) : minute(1000 * time))) },
        { ...axis, space: 2.5 * rem, size: 4.25 * rem, values: (_, values) => values.map((value) => this.shown(value)) },
      ],
      hooks: { draw: [(plot) => this.mark(plot)], setCursor: [(plot) => this.tell(plot)] },
      series: [{}, ...labels.map((label, at) => {
        const [name, width, dash] = LINES[at];
        return { label, stroke: colour(name), width: width * rem / 16, dash: dash.map((each) => each * rem / 16), points: { show: false } };
      })],
    }, data, this.place);
  }

  // From what is usual of the first two lines, not from how they began; a line far from them is
  // left out. Where the least is given, all is within.
  range() {
    const rare = this.low === null ? 0.02 : 0;
    const spans = this.data.slice(1).map((values) => values.filter(known).sort((one, other) => one - other)).filter((values) => values.length)
      .map((values) => [values[Math.floor(rare * values.length)], values[Math.ceil((1 - rare) * values.length) - 1]]);
    if (!spans.length) return [0, 1];
    let [low, high] = [Math.min(...spans.slice(0, 2).map((each) => each[0])), Math.max(...spans.slice(0, 2).map((each) => each[1]))];
    const far = 1.5 * (high - low) || Math.abs(high);
    for (const [least, most] of spans.slice(2)) {
      if (most <= high + far && least >= low - far) [low, high] = [Math.min(low, least), Math.max(high, most)];
    }
    const floor = this.low ?? low, room = (high - floor) * 0.12 || Math.abs(high) * 0.1 || 1;
    return [this.low ?? low - room, high + room];
  }

  // A line and a triangle at each moment that is marked.
  mark(plot) {
    const { ctx, bbox } = plot, size = 5 * devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--alarm");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const at of this.marks) {
      const x = plot.valToPos(at, "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x - size, bbox.top - size);
      ctx.lineTo(x + size, bbox.top - size);
      ctx.lineTo(x, bbox.top + size);
      ctx.fill();
    }
    ctx.restore();
  }

  tell(plot) {
    const at = plot.cursor.idx;
    const said = at === null || at === undefined || !(plot.cursor.left >= 0) ? "" : [
      clock(1000 * this.data[0][at]), ...this.labels.map((label, line) => `${label} ${this.shown(this.data[line + 1][at])}`),
    ].join(" · ");
    if (this.readout.textContent !== said) this.readout.textContent = said;
  }

  step(event) {
    const most = (this.data?.[0].length ?? 0) - 1;
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return this.leave();
    if (!this.plot || most < 0 || !(event.key in moves)) return;
    event.preventDefault();
    const now = this.plot.cursor.left >= 0 ? this.plot.cursor.idx ?? most : most;
    const at = Math.min(Math.max(now + moves[event.key], 0), most);
    this.plot.setCursor({ left: this.plot.valToPos(this.data[0][at], "x"), top: 0 });
  }

  leave() {
    this.plot?.setCursor({ left: -10, top: -10 });
  }
}
