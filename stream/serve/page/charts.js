// Charts of the time line, by uPlot: colours of the page, redrawn where these or the width change.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const DASHES = [[], [6, 4], [2, 3]];
const NAMES = ["--model", "--base", "--base"];

function markers(times) {
  return {
    hooks: {
      draw: [(plot) => {
        const context = plot.ctx;
        context.save();
        context.strokeStyle = colour("--alarm");
        context.lineWidth = 2 * devicePixelRatio;
        context.setLineDash([]);
        for (const at of times()) {
          const x = plot.valToPos(at, "x", true);
          if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
          context.beginPath();
          context.moveTo(x, plot.bbox.top);
          context.lineTo(x, plot.bbox.top + plot.bbox.height);
          context.stroke();
        }
        context.restore();
      }],
    },
  };
}

const DAY_S = 86400;

function times(plot, values) {
  const long = plot.scales.x.max - plot.scales.x.min > DAY_S;
  return values.map((at) => {
    const date = new Date(at * 1000);
    return long ? date.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : date.toLocaleTimeString("en-GB");
  });
}

export class Chart {
  constructor(place, shown, { alarms = () => [] } = {}) {
    Object.assign(this, { place, shown, alarms, plot: null, data: null, labels: [] });
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.remake());
  }

  size() {
    return { width: Math.max(this.place.clientWidth, 50), height: Math.max(this.place.clientHeight, 50) };
  }

  resize() {
    if (this.plot) this.plot.setSize(this.size());
  }

  remake() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
    if (this.data) this.show(this.labels, this.data);
  }

  // data: times in seconds, then a line for each label; null is a gap.
  show(labels, data) {
    this.data = data;
    if (this.plot && labels.join("\n") === this.labels.join("\n")) {
      this.plot.setData(data);
      return;
    }
    if (this.plot) this.plot.destroy();
    this.labels = labels;
    const soft = colour("--soft"), line = colour("--line");
    const em = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const axis = {
      stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 },
      font: `${Math.round(0.75 * em)}px system-ui, sans-serif`,
    };
    const write = (_, values) => values.map(this.shown);
    this.plot = new uPlot({
      ...this.size(), legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
      axes: [{ ...axis, space: 90, values: times }, { ...axis, size: Math.round(4 * em), values: write }],
      plugins: [markers(() => this.alarms())],
      series: [{}, ...labels.map((label, at) => ({
        label, stroke: colour(NAMES[at]), width: at ? 1.5 : 2.5, dash: DASHES[at],
        points: { show: false }, spanGaps: false,
      }))],
    }, data, this.place);
  }
}
