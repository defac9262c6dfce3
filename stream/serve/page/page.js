// The page: it asks for a task's view, follows what changes, and writes texts as texts alone.

import { Chart } from "/charts.js";

const MOST_POINTS = 900;
const AGAIN_MS = 2000;
const $ = (id) => document.getElementById(id);
const NAMES = { no_change: "no\u2011change", majority: "majority", median: "median", accuracy: "accuracy", mae: "mean absolute error" };

// ---- words

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const known = (value) => typeof value === "number" && Number.isFinite(value);
const tiny = new Intl.NumberFormat("en", { notation: "scientific", maximumSignificantDigits: 3 });
const number = (value) => (known(value) ? (value && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e9) ? tiny : few).format(value) : "–");
const count = (value) => (known(value) ? whole.format(value) : "–");
const share = (value) => (known(value) ? percent.format(value) : "–");
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + number(Math.abs(value));
const scored = (view, value) => (view.metric === "accuracy" ? share(value) : number(value));
const text = (value) => (value === null || value === undefined ? "–" : known(value) ? number(value) : String(value).slice(0, 200));
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const moment = (ms) => new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function span(ms) {
  if (!known(ms)) return "–";
  for (const [size, unit] of [[86400e3, "d"], [3600e3, "h"], [60e3, "min"], [1e3, "s"]]) {
    if (ms >= size) return `${few.format(Math.round(ms / size * 10) / 10)} ${unit}`;
  }
  return `${whole.format(ms)} ms`;
}

// ---- elements: only texts and classes, never markup

function make(name, options = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside.map((each) => (each instanceof Node ? each : String(each))));
  return made;
}

const last = new Map(); // what each place shows, so that nothing is written twice

function put(id, said, build) {
  const told = JSON.stringify(said);
  if (last.get(id) === told) return;
  last.set(id, told);
  $(id).replaceChildren(...build());
}

function table(heads, lines) {
  const row = (cells, kind) => make("tr", {}, ...cells.map((cell) =>
    make(kind, kind === "th" ? { scope: "col", class: cell.class ?? "" } : { class: cell.class ?? "" }, cell.said ?? cell)));
  return [make("thead", {}, row(heads, "th")), make("tbody", {}, ...lines.map((cells) => row(cells, "td")))];
}

// parts: [name, size, what is said of it]
function bars(parts) {
  const most = Math.max(...parts.map(([, size]) => Math.abs(size)), 1e-12);
  return make("div", { class: "bars" }, ...parts.flatMap(([name, size, said]) => {
    const bar = make("div", { class: size < 0 ? "bar against" : "bar", "aria-hidden": "true" });
    bar.style.width = `${100 * Math.abs(size) / most}%`;
    return [make("span", {}, name), bar, make("span", { class: "value" }, said)];
  }));
}

const empty = (...said) => make("p", { class: "empty" }, ...said);
const code = (said) => make("code", {}, said);

// ---- the sections, in the order of what a person asks

function verdict(view) {
  const point = view.points.at(-1);
  if (!point || !known(point.model_window)) return "Nothing is scored yet: labels are still to come.";
  const better = view.metric === "accuracy" ? Math.max : Math.min;
  const rivals = view.baselines.filter((name) => known(point[`${name}_window`]));
  const told = rivals.map((name) => `${NAMES[name] ?? name} ${scored(view, point[`${name}_window`])}`).join(", ");
  const best = better(...rivals.map((name) => point[`${name}_window`]));
  const ahead = !rivals.length || point.model_window !== best && better(point.model_window, best) === point.model_window;
  const own = view.metric === "accuracy" ? `Right ${share(point.model_window)} of the time lately` : `Off by ${number(point.model_window)} on average lately`;
  return `${own}${told ? `; ${told}` : ""}. ${ahead ? "" : "No better than a baseline."}`.trim();
}

function showRight(view) {
  put("verdict", verdict(view), () => [verdict(view)]);
  const names = ["model", ...view.baselines];
  const said = (name) => (name === "model" ? "headrace" : NAMES[name] ?? name);
  charts.score.shown = (value) => scored(view, value);
  charts.score.alarms = () => view.drift.filter((each) => each.kind === "alarm").map((each) => each.published_s).filter(known);
  charts.score.show(names.map(said), [view.points.map((each) => each.t / 1000), ...names.map((name) => view.points.map((each) => each[`${name}_window`]))]);
  $("score-chart").setAttribute("aria-label", `${NAMES[view.metric]} over time. ${verdict(view)}`);
  put("score-legend", names, () => [
    ...names.map((name, at) => make("span", {}, make("span", { class: `key base${at}`, "aria-hidden": "true" }), said(name))),
    make("span", {}, make("span", { class: "key alarm", "aria-hidden": "true" }), "alarm"),
    make("span", {}, `${NAMES[view.metric]} in a fading window`),
  ]);
  const point = view.points.at(-1) ?? {};
  const better = view.metric === "accuracy" ? Math.max : Math.min;
  const best = (scope) => better(...names.map((name) => point[`${name}_${scope}`]).filter(known));
  const lines = names.map((name) => [said(name), ...["window", "all"].map((scope) => {
    const value = point[`${name}_${scope}`];
    return { said: scored(view, value), class: known(value) && value === best(scope) ? "best" : "" };
  })]);
  put("scores", lines, () => table([NAMES[view.metric], "newest", "all events"], lines));
}

const STEPS = { boost: "learning rates doubled", challenge: "a challenger began", promotion: "the challenger took over", rollback: "the former champion returned", dismissal: "the challenger was dismissed", relabel: "two classes were swapped", reset: "a member began anew" };

function showChanged(view) {
  const told = view.drift.slice().reverse();
  put("changes", told, () => (told.length ? told.map((each) => {
    const when = known(each.published_s) ? each.published_s * 1000 : each.time_ms;
    const head = make("span", { class: "time" }, known(when) ? moment(when) : "");
    if (each.kind !== "alarm") {
      const what = each.member ? `${STEPS[each.action] ?? each.action}: ${each.member}` : STEPS[each.action] ?? each.action;
      return make("li", {}, head, text(what));
    }
    const moved = Array.isArray(each.moved) ? each.moved.map((one) => text(one?.column)) : [];
    return make("li", {}, head, make("span", { class: "what" }, "alarm"), ` of ${text(each.detector)}: error ${number(each.before)} → ${number(each.after)}`,
      moved.length ? `; most moved: ${moved.join(", ")}` : "; no input moved");
  }) : [make("li", { class: "empty" }, "No drift alarm so far.")]));
}

function showUp(view) {
  const latest = view.latest, labels = latest.labels ?? {}, delay = labels.delay ?? {};
  const tiles = [
    ["events a second", number(view.points.at(-1)?.rate)],
    ["waiting", count(latest.lag)],
    ["sent to predicted, half within", span(view.latency?.p50)],
    ["99 % within", span(view.latency?.p99)],
    ["events", count(latest.events)],
    ["labels learned", count(latest.learned)],
    ["newest checkpoint", known(latest.checkpoint_age_s) ? `${span(latest.checkpoint_age_s * 1000)} old` : "none"],
  ];
  if (view.late) tiles.push(["wait for a label", count(labels.pending)], ["label delay, half within", span(delay.p50)], ["99 % within", span(delay.p99)]);
  put("tiles", tiles, () => tiles.map(([name, said]) => make("div", {}, make("dt", {}, name), make("dd", {}, said))));
  charts.rate.show(["events a second"], [view.points.map((each) => each.t / 1000), view.points.map((each) => each.rate)]);
  $("rate-chart").setAttribute("aria-label", `Events a second over time; now ${number(view.points.at(-1)?.rate)}`);
  put("rate-legend", 1, () => [make("span", {}, make("span", { class: "key", "aria-hidden": "true" }), "events a second")]);
}

function showUnsure(view) {
  const classes = view.metric === "accuracy";
  const told = view.predictions;
  put("predictions", told, () => {
    if (!told.length) return [make("tbody", {}, make("tr", {}, make("td", { class: "empty" }, "No prediction yet.")))];
    const heads = [{ said: "event", class: "text" }, { said: "prediction", class: "text" }, classes ? "probability" : "interval", view.horizon || view.late ? "" : "truth"];
    return table(heads, told.map((each) => {
      const chances = Array.isArray(each.probabilities) ? each.probabilities.filter(known) : [];
      const interval = Array.isArray(each.interval) ? each.interval.map(number).join(" to ") : "–";
      let truth = { said: view.horizon || view.late ? "later" : "–" };
      if (each.truth !== undefined) {
        const right = classes ? String(each.truth) === String(each.prediction) : Array.isArray(each.interval) && each.interval[0] <= each.truth && each.truth <= each.interval[1];
        truth = { said: `${text(each.truth)} ${right ? "✓" : "✗"}`, class: right ? "yes" : "no" };
      }
      return [{ said: text(each.id), class: "text" }, { said: text(each.prediction), class: "text" }, classes ? share(chances.length ? Math.max(...chances) : null) : interval, truth];
    }));
  });
}

// A part that is nothing beside the largest one is told as such.
const part = (size, most, said) => (Math.abs(size) < most / 1000 ? "≈ 0" : said(size));

function parts(found) {
  return Object.entries(found ?? {}).filter(([, size]) => known(size)).sort((one, other) => Math.abs(other[1]) - Math.abs(one[1])).slice(0, 12);
}

function showWhy(view) {
  const one = view.explained.find((each) => each.explanation?.inputs), importance = parts(view.latest.importance);
  put("why", [view.explains, one, importance], () => {
    const said = [];
    if (one) {
      const why = one.explanation, inputs = parts(why.inputs), most = Math.abs(inputs[0]?.[1] ?? 0);
      said.push(make("h3", {}, `${text(one.id)}: ${text(one.prediction)}`),
        bars([["usual", why.base ?? 0, number(why.base)], ...inputs.map(([name, size]) => [name, size, part(size, most, signed)])]),
        make("p", { class: "empty" }, why.of === undefined || why.of === null ? "What each input adds; together they are the prediction." : `What each input adds to the probability of ${text(why.of)}; together they are it.`));
    }
    if (importance.length) said.push(make("h3", {}, "Most important lately"), bars(importance.map(([name, size]) => [name, size, part(size, importance[0][1], number)])));
    if (!said.length) said.push(view.explains ? empty("No explained prediction among the newest ones.") : empty("Predictions are not explained: ", code("explain = 0.01"), " in ", code("[model]"), " of the task file explains one in a hundred."));
    return said;
  });
}

function showRefused(view) {
  const told = Object.entries(view.refused).sort((one, other) => other[1].count - one[1].count);
  put("refused", told, () => {
    if (!told.length) return [empty("Nothing was refused.")];
    const lines = told.map(([name, each]) => [{ said: name, class: "text" }, count(each.count), { said: `${text(each.example?.detail)} (${each.example?.partition ?? "?"}:${each.example?.offset ?? "?"})`, class: "text" }]);
    return [make("div", { class: "wide", role: "group", "aria-label": "Refused events", tabindex: "0" }, make("table", {}, ...table([{ said: "code", class: "text" }, "events", { said: "for example", class: "text" }], lines)))];
  });
}

function showTrusted(view) {
  const members = parts(view.latest.members);
  put("members", members, () => (members.length ? [bars(members.map(([name, weight]) => [name, weight, share(weight)]))] : [empty("No weights yet.")]));
}

// ---- what is shown, and since when

const charts = { score: new Chart($("score-chart"), String), rate: new Chart($("rate-chart"), (value) => count(value)) };
let token = null, task = null, live = null, past = null, following = null, asking = 0;

function show(view) {
  $("main").hidden = false;
  for (const each of [showRight, showChanged, showUp, showUnsure, showWhy, showRefused, showTrusted]) each(view);
}

function state(kind, said) {
  $("state").dataset.state = kind;
  if ($("state-text").textContent !== said) $("state-text").textContent = said;
}

function range() {
  const slider = $("moment"), first = live?.first_ms, now = live?.now_ms;
  slider.disabled = !(known(first) && known(now) && now - first > 2000);
  return [first, now];
}

function take(view) {
  const before = live?.task === view.task ? live.points : [];
  view.points = [...before.filter((each) => !view.points.length || each.t < view.points[0].t), ...view.points].slice(-MOST_POINTS);
  live = view;
  range();
  if (past !== null) return;
  show(view);
  state(view.trouble ? "trouble" : "live", view.trouble ? `Kafka: ${view.trouble}` : `live, ${clock(view.now_ms)}`);
}

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...options, headers, cache: "no-store" });
}

async function follow(name, stop) {
  while (!stop.signal.aborted) {
    try {
      const response = await ask(`/v1/tasks/${encodeURIComponent(name)}/view/stream`, { signal: stop.signal });
      if (!response.ok) throw new Error(`status ${response.status}`);
      if (live?.task === name) live.points = [];
      let waiting = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        waiting += value;
        const lots = waiting.split("\n\n");
        waiting = lots.pop();
        for (const lot of lots) {
          const line = lot.split("\n").find((each) => each.startsWith("data: "));
          if (line) take(JSON.parse(line.slice(6)));
        }
      }
      throw new Error("it ended");
    } catch (error) {
      if (stop.signal.aborted) return;
      state("trouble", "no connection, trying again…");
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

function choose(name) {
  following?.abort();
  [task, live, past] = [name, null, null];
  last.clear();
  for (const button of $("tasks").children) button.setAttribute("aria-pressed", String(button.dataset.task === name));
  document.title = `${name} · headrace`;
  back();
  following = new AbortController();
  follow(name, following);
}

function back() {
  past = null;
  $("moment").value = $("moment").max;
  $("moment-text").textContent = "now";
  $("live").disabled = true;
  if (live) take(live);
}

async function look() {
  const [first, now] = range(), at = Number($("moment").value) / Number($("moment").max);
  if (at >= 1 || !known(first)) return back();
  past = Math.round(first + at * (now - first));
  $("moment-text").textContent = moment(past);
  $("live").disabled = false;
  state("past", "looking for that moment…");
  const mine = ++asking;
  await new Promise((done) => setTimeout(done, 150)); // the slider may still be moving
  if (mine !== asking || past === null) return;
  try {
    const response = await ask(`/v1/tasks/${encodeURIComponent(task)}/view?at=${past}`);
    const found = await response.json();
    if (mine !== asking || past === null) return;
    if (!response.ok) throw new Error(found.detail);
    show(found);
    state("past", `as of ${moment(past)}`);
  } catch (error) {
    if (mine === asking) state("trouble", `that moment cannot be shown: ${error.message}`);
  }
}

async function begin() {
  try {
    const response = await ask("/v1/views");
    if (response.status === 401) {
      $("token").hidden = false;
      $("token-told").textContent = token ? "That is not its token." : "";
      $("token-field").focus();
      return state("trouble", "a token is needed");
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    const { tasks } = await response.json();
    $("token").hidden = true;
    $("tasks").replaceChildren(...tasks.map((name) => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, name);
      button.dataset.task = name;
      button.addEventListener("click", () => choose(name));
      return button;
    }));
    if (tasks.length) choose(tasks[0]);
    else state("trouble", "no task is served here");
  } catch (error) {
    state("trouble", "no connection, trying again…");
    setTimeout(begin, AGAIN_MS);
  }
}

$("moment").addEventListener("input", look);
$("live").addEventListener("click", () => { back(); $("moment").focus(); });
$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-field").value.trim();
  $("token-field").value = "";
  begin();
});
begin();
