// What a person asks, in that order; each section shows one view.

import { Chart } from "/charts.js";
import { $, bars, code, make, note, put, table, write } from "/elements.js";
import { METRICS, NONE, STEPS, count, known, moment, named, plural, rough, share, signed, span, steady, text } from "/words.js";

const CHANGES = 40, ROWS = 10, PARTS = 12, ORDER_MS = 15_000;
const FURTHER = { accuracy: ["macro_f1", "log_loss"], mae: ["rmse", "coverage"] };

const charts = {
  score: new Chart($("score-chart"), $("score-readout")),
  rate: new Chart($("rate-chart"), $("rate-readout"), { low: 0 }),
};

const strong = (said) => make("strong", {}, said);
const soft = (said) => make("span", { class: "soft" }, said);
const models = (view) => ["model", ...view.baselines];
const seconds = (view) => view.points.map((each) => each.t / 1000);
const key = (kind, said) => make("span", { class: "entry" }, make("span", { class: `key ${kind}`, "aria-hidden": "true" }), said);

// How the newest scores stand to the best baseline.
export function standing(metric, baselines, point) {
  const own = point?.model_window, better = METRICS[metric].better;
  const rivals = baselines.map((name) => [name, point?.[`${name}_window`]]).filter(([, value]) => known(value));
  if (!known(own)) return { own: null, rivals };
  if (!rivals.length) return { own, rivals };
  const best = rivals.reduce((one, other) => (better(one[1], other[1]) === one[1] ? one : other));
  const ahead = own !== best[1] && better(own, best[1]) === own;
  const gap = metric === "accuracy" ? Math.abs(own - best[1]) * 100 : 100 * Math.abs(1 - own / best[1]);
  const size = rough(gap);
  const said = metric === "accuracy"
    ? (ahead ? `${size} points better than ${named(best[0])}` : own === best[1] ? `no better than ${named(best[0])}` : `${size} points worse than ${named(best[0])}`)
    : (ahead ? `${size}\u202f% less error than ${named(best[0])}` : own === best[1] ? `no better than ${named(best[0])}` : `${size}\u202f% more error than ${named(best[0])}`);
  return { own, rivals, ahead, said };
}

function showRight(view) {
  const { metric, baselines, points } = view, shown = METRICS[metric].shown, now = points.at(-1);
  const { own, rivals, ahead, said } = standing(metric, baselines, now);
  const told = own === null ? [points.length ? "Nothing is scored yet: labels are still to come." : "Nothing is learned yet."] : [
    ...(metric === "accuracy" ? [strong(shown(own)), " right lately"] : ["Off by ", strong(shown(own)), " on average lately"]),
    ...rivals.map(([name, value], at) => `${at ? ", " : "; "}${named(name)} ${shown(value)}`), ".",
  ];
  const words = told.map((each) => each.textContent ?? each).join("");
  put("verdict", [words, said], () => [...told, said ? make("span", { class: `badge ${ahead ? "ahead" : "behind"}` }, `${ahead ? "▲" : "▼"} ${said}`) : ""]);
  if (!points.length) put("verdict", view.task, () => [...told, " ", code("headrace learn"), " tells how it does once a second."]);

  const lines = models(view).map((name) => points.map((each) => each[`${name}_window`]));
  const marks = view.drift.filter((each) => each.kind === "alarm").map((each) => each.at_ms / 1000);
  charts.score.show(models(view).map(named), [seconds(view), ...lines], { shown, marks });
  $("score-chart").setAttribute("aria-label", `${METRICS[metric].name} over time, with ${plural(marks.length, "alarm")}. ${words} Arrow keys read values.`);
  put("score-legend", [metric, baselines], () => [
    make("span", { class: "entry" }, metric === "accuracy" ? "share that is right" : "mean absolute error", ", in a window of 1,000 that fades:"),
    ...models(view).map((name, at) => key(`line${at}`, named(name))), key("mark", "alarm"),
  ]);
  showScores(view);
}

function showScores(view) {
  const scores = view.latest.scores ?? {}, metric = view.metric;
  const columns = [
    ["window", metric, `${METRICS[metric].name}, newest`], ["all", metric, `${METRICS[metric].name}, all`],
    ...FURTHER[metric].map((each) => ["window", each, `${METRICS[each].name}, newest`]),
  ];
  const value = (name, [scope, of]) => scores[name]?.[scope]?.[of];
  const lines = models(view).map((name) => [named(name), ...columns.map((column) => {
    const values = models(view).map((each) => value(each, column)).filter(known), of = METRICS[column[1]];
    const best = of.better && values.length > 1 && value(name, column) === of.better(...values);
    return { said: `${best ? "● " : ""}${of.shown(value(name, column))}`, class: best ? "best" : "", title: best ? "the best of these" : null };
  })]);
  put("scores", lines, () => [table("Scores", ["model", ...columns.map((each) => each[2])], lines, "scores")]);
}

function moved(alarm) {
  const inputs = Array.isArray(alarm.moved) ? alarm.moved : [];
  const list = (name, parts) => (parts.length ? make("p", { class: "moved" }, soft(`${name} `), ...parts.map((said) => make("span", { class: "chip" }, said))) : null);
  return list("moved most", inputs.map((each) => `${text(each.column)} (PSI ${rough(each.psi)})`)) ?? make("p", { class: "moved" }, soft("no input moved"));
}

function showChanged(view, onMoment) {
  const told = view.drift.slice(-CHANGES).reverse();
  put("changes", told, () => (told.length ? told.map((each) => {
    const alarm = each.kind === "alarm";
    const time = make("button", { type: "button", class: "time", title: "Show that moment", onclick: () => onMoment(each.at_ms) }, moment(each.at_ms));
    if (alarm) {
      const rose = each.after >= each.before ? "rose" : "fell";
      return make("li", { class: "alarm" }, time, make("div", {}, strong("Alarm"), `: error ${rose} from ${steady(each.before)} to ${steady(each.after)} `, soft(`(${named(text(each.detector)).replaceAll("_", " ")})`), moved(each)));
    }
    const more = each.member ? `: ${each.member}` : Array.isArray(each.exchanged) ? `: ${each.exchanged.map(text).join(" and ")}` : "";
    return make("li", {}, time, make("div", {}, `Done: ${STEPS[each.action] ?? text(each.action)}${more}`, known(each.gain) ? soft(` (error ${each.gain < 0 ? "higher" : "lower"} by ${rough(Math.abs(each.gain))})`) : null));
  }) : [make("li", { class: "note" }, "No alarm: the error is as it was.")]));
}

function showUp(view) {
  const { latest, latency } = view, labels = latest.labels, delay = labels?.delay ?? {};
  const silent = known(latest.time_ms) ? Math.max((view.at_ms ?? view.now_ms) - latest.time_ms, 0) : null;
  const tiles = [
    ["events a second", steady(view.points.at(-1)?.rate)],
    ["events wait", count(latest.lag)],
    ["latency, median", span(latency?.p50)],
    ["latency, p95", span(latency?.p95)],
    ["latency, p99", span(latency?.p99)],
    ...(labels ? [["label delay, median", span(delay.p50_ms)], ["label delay, p99", span(delay.p99_ms)], ["wait for a label", count(labels.pending)]] : []),
    ["events predicted", count(latest.events)],
    ["newest checkpoint", known(latest.checkpoint_age_s) ? span(1000 * latest.checkpoint_age_s) : "none"],
    ["last metrics", silent === null ? NONE : silent < 3000 ? "now" : `${span(silent)} ago`],
  ];
  put("tiles", tiles, () => tiles.map(([name, said]) => make("div", {}, make("dt", {}, name), make("dd", {}, said))));
  const lag = view.points.map((each) => each.lag);
  charts.rate.show(["events a second", "events wait"], [seconds(view), view.points.map((each) => each.rate), lag], { shown: count });
  $("rate-chart").setAttribute("aria-label", `Events a second and events that wait over time; now ${tiles[0][1]} and ${tiles[1][1]}. Arrow keys read values.`);
  write("latency-note", `Latency is from an event to its prediction, by Kafka's times${latency ? `: of ${plural(latency.events, "event")} lately` : ""}.`);
  put("rate-legend", 1, () => [key("line0", "events a second"), key("line1", "events wait")]);
}

const sureness = (each, classes) => (classes ? each.probability : Array.isArray(each.interval) && each.interval.every(known) ? each.interval[0] - each.interval[1] : null);

function showUnsure(view, { leastSure }) {
  const classes = view.metric === "accuracy";
  const sure = (each) => sureness(each, classes) ?? Infinity;
  const told = (leastSure ? view.predictions.toSorted((one, other) => sure(one) - sure(other)) : view.predictions).slice(0, ROWS);
  put("predictions", [told, leastSure, view.labels_topic], () => {
    if (!told.length) return [note("Nothing is predicted yet.")];
    const heads = [{ said: "event", class: "event" }, "prediction", classes ? "probability" : "interval", "truth"];
    const lines = told.map((each) => {
      const range = Array.isArray(each.interval) ? each.interval.map(steady).join(" … ") : NONE;
      const chance = known(each.probability) ? [make("span", { class: "meter", "aria-hidden": "true" }, make("span", { class: "fill", width: `${100 * each.probability}%` })), share(each.probability)] : NONE;
      return [
        { said: [make("span", { class: "id" }, text(each.id)), soft(each.event ?? "")], class: "event", title: each.event },
        { said: text(known(each.prediction) ? steady(each.prediction) : each.prediction), class: "text" },
        classes ? { said: chance, class: "chance" } : range, truth(view, each, classes),
      ];
    });
    return [table("Predictions", heads, lines, "predictions"), note(lateness(view))];
  });
}

function truth(view, each, classes) {
  if (each.truth === undefined || each.truth === null) return { said: view.horizon || view.labels_topic ? "to come" : NONE, class: "soft" };
  const inside = Array.isArray(each.interval) && each.interval[0] <= each.truth && each.truth <= each.interval[1];
  const right = classes ? String(each.truth) === String(each.prediction) : inside;
  const said = known(each.truth) ? steady(each.truth) : text(each.truth);
  const why = classes ? (right ? "right" : "wrong") : inside ? "within the interval" : "outside the interval";
  return { said: [`${said} `, make("span", { class: right ? "right" : "wrong", role: "img", "aria-label": why }, right ? "✓" : "✗")], title: why };
}

function lateness(view) {
  if (view.labels_topic) return `Labels come by themselves, on ${view.labels_topic}: they are not shown here.`;
  return view.horizon ? `The truth comes with the ${view.horizon === 1 ? "next event" : `${view.horizon}th event after it`}.` : "The truth comes with the event: it was predicted before it was looked at.";
}

let pinned = null;
const place = (each) => `${each.partition}:${each.offset}`;

function showWhy(view) {
  const explained = view.explained, chosen = explained.find((each) => place(each) === pinned) ?? explained[0];
  $("explained-choice").hidden = !explained.length;
  if (document.activeElement !== $("explained")) {
    put("explained", explained.map(place), () => [make("option", { value: "" }, "newest"), ...explained.map((each) => make("option", { value: place(each) }, `${text(each.id)}: ${text(each.prediction)}`.slice(0, 60)))]);
    $("explained").value = chosen && place(chosen) === pinned ? pinned : "";
  }
  const importance = Object.entries(view.latest.importance ?? {}).slice(0, PARTS);
  put("why", [view.explains, chosen, importance], () => {
    const said = [];
    if (chosen) said.push(make("div", {}, ...reasons(chosen)));
    if (importance.length) said.push(make("div", {}, make("h3", {}, "What counted most lately"), bars("Importance", importance.map(([name, size]) => ({ name, size, said: steady(size) }))), note("Mean size of what an input adds, in the newest explained events.")));
    if (said.length) return said;
    return [view.explains ? note("None of the newest predictions is explained: only a sample is.") : note("Predictions are not explained. ", code("explain = 0.01"), " below ", code("[model]"), " in the task file explains one in a hundred.")];
  });
}

function reasons(chosen) {
  const { base, inputs, of, rest } = chosen.explanation, parts = Object.entries(inputs);
  const others = parts.slice(PARTS).reduce((sum, [, size]) => sum + size, rest ?? 0);
  const shown = parts.slice(0, PARTS).map(([name, size]) => ({ name, size, said: signed(size) }));
  if (others || parts.length > PARTS) shown.push({ name: "all others", size: others, said: signed(others) });
  const total = parts.reduce((sum, [, size]) => sum + size, base + (rest ?? 0));
  const whole = of === null || of === undefined ? steady : share;
  return [
    make("h3", {}, `${text(chosen.id)}: ${known(chosen.prediction) ? steady(chosen.prediction) : text(chosen.prediction)}`),
    make("p", { class: "soft clamp" }, chosen.event ?? ""),
    bars("What drove it", shown),
    note(`Usually ${whole(base)}${whole === share ? ` for ${text(of)}` : ""}; what the inputs add makes it ${whole(total)}.`),
  ];
}

function showRefused(view) {
  const { rejected, repeated, events } = view.latest, refused = (rejected ?? 0) + (repeated ?? 0), all = refused + (events ?? 0);
  const told = Object.entries(view.refused).sort((one, other) => other[1].count - one[1].count);
  put("refused", [told, refused, all], () => {
    if (!told.length) return [note(refused ? `${plural(refused, "event")} of this run; none of them lately.` : "Nothing: every event could be read.")];
    const lines = told.map(([name, { count: times, example }]) => [
      { said: code(name), class: "text" }, count(times),
      { said: [text(example.detail), make("div", { class: "soft clamp", title: `${text(example.topic)}, partition ${example.partition}, offset ${example.offset}` }, example.raw || "")], class: "text" },
    ]);
    return [make("p", {}, strong(count(refused)), ` of ${plural(all, "event")} of this run${refused / all >= 0.0005 ? `, ${share(refused / all)}` : ""}. By code, of the newest:`), table("Refused events", [{ said: "code", class: "text" }, "events", { said: "for example", class: "text" }], lines, "refused")];
  });
}

let order = [], ordered = 0;

// The heaviest first; they change places seldom.
function showTrusted(view) {
  const members = view.latest.members ?? {}, names = Object.keys(members);
  if (order.length !== names.length || names.some((name) => !order.includes(name)) || Math.abs(view.now_ms - ordered) > ORDER_MS) [order, ordered] = [names, view.now_ms];
  put("members", [order, members], () => (names.length
    ? [bars("Weights", order.map((name) => ({ name, size: members[name], said: share(members[name]) }))), note("How much each member of the pool counts in a prediction.")]
    : [note("No member has a weight yet.")]));
}

export function show(view, choices) {
  write("task-name", view.task);
  const ahead = view.horizon ? `, ${plural(view.horizon, "event")} ahead` : "";
  write("about", `predicts ${view.target}${ahead}`);
  showRight(view);
  showChanged(view, choices.onMoment);
  showUp(view);
  showUnsure(view, choices);
  showWhy(view);
  showRefused(view);
  showTrusted(view);
}

export function pin(value) {
  pinned = value || null;
}
