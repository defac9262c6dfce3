// The page: which task and which moment it shows, now or in the past.

import { $, forget, make, write } from "/elements.js";
import { Link } from "/link.js";
import { pin, show, standing } from "/sections.js";
import { METRICS, clock, known, moment } from "/words.js";

const MOST_POINTS = 900, TASKS_MS = 3000, STILL_MS = 150, STEPS = 500;
const link = new Link();
// live: the newest view of the service; shown: the one that is on the page; at: its moment.
const now = { task: null, live: null, shown: null, at: null, held: false, leastSure: false };
let asking = 0, timer = 0;

const path = (task, rest) => `/v1/tasks/${encodeURIComponent(task)}/${rest}`;

function state(kind, said) {
  document.body.dataset.state = kind;
  write("state", said);
}

function notice(said) {
  $("notice").hidden = !said;
  write("notice", said ?? "");
}

function draw(view) {
  now.shown = view;
  $("view").hidden = false;
  show(view, { leastSure: now.leastSure, onMoment: (at) => { hold(false); look(at); } });
}

// ---- now

function take(view, first) {
  const before = first || !now.live ? [] : now.live.points;
  view.points = [...before, ...view.points].slice(-MOST_POINTS);
  now.live = view;
  notice(view.trouble ? `Kafka: ${view.trouble}` : null);
  if (now.at !== null || now.held) return;
  if (!view.fresh && !view.trouble && !view.points.length) return state("waiting", "reading…");
  slide();
  draw(view);
  state(view.trouble ? "trouble" : "live", view.trouble ? "Kafka does not answer" : view.fresh ? `live, ${clock(view.now_ms)}` : "reading…");
}

function lost(error) {
  if (error.status === 401) return askToken();
  state("trouble", "no connection");
  notice(error.status ? `The service refuses: ${error.message}` : "The service does not answer; trying again. What is shown is as it was last.");
}

function follow() {
  if (now.task && !document.hidden) link.follow(path(now.task, "stream"), take, lost);
  else link.leave();
}

function choose(task) {
  Object.assign(now, { task, live: null, shown: null, at: null });
  forget();
  pin(null);
  hold(false);
  mark();
  document.title = `${task} · headrace`;
  history.replaceState(null, "", `#${encodeURIComponent(task)}`);
  back();
  state("waiting", "reading…");
  follow();
}

function hold(held) {
  now.held = held;
  $("hold").setAttribute("aria-pressed", String(held));
  write("hold", held ? "Go on" : "Pause");
  if (held && now.shown) state("past", `paused at ${clock(now.shown.now_ms)}`);
  else if (!held && now.at === null && now.live) take({ ...now.live, points: [] }, false);
}

// ---- moments

function slide() {
  const slider = $("moment"), { first_ms: first, now_ms: last } = now.live ?? {};
  slider.disabled = !(known(first) && last - first > 2000);
  if (slider.disabled) return;
  const step = Math.max(1000, Math.round((last - first) / STEPS));
  Object.assign(slider, { min: first, step, max: first + step * Math.ceil((last - first) / step) });
  if (now.at === null) slider.value = slider.max;
  tell(now.at);
}

function tell(at) {
  const said = at === null ? "now" : moment(at);
  write("moment-text", said);
  $("moment").setAttribute("aria-valuetext", said);
  $("live").disabled = at === null;
  $("hold").disabled = at !== null;
}

function back() {
  now.at = null;
  asking += 1;
  $("moment").value = $("moment").max;
  tell(null);
  if (now.live) take({ ...now.live, points: [] }, false);
}

async function look(at) {
  now.at = at;
  $("moment").value = at;
  tell(at);
  state("past", "looking…");
  const mine = (asking += 1);
  await new Promise((done) => setTimeout(done, STILL_MS)); // the slider may still be moving
  if (mine !== asking) return;
  try {
    const view = await link.json(path(now.task, `view?at=${at}`));
    if (mine !== asking) return;
    draw(view);
    state("past", `as of ${moment(at)}`);
  } catch (error) {
    if (mine !== asking) return;
    state("trouble", "not to be shown");
    notice(`That moment cannot be shown: ${error.message}`);
  }
}

// ---- tasks

function mark() {
  for (const each of $("tasks").children) {
    if (each.dataset.task === now.task) each.setAttribute("aria-current", "true");
    else each.removeAttribute("aria-current");
  }
}

function list(views) {
  const names = views.map((each) => each.task);
  if (names.join("\n") !== [...$("tasks").children].map((each) => each.dataset.task).join("\n")) {
    $("tasks").replaceChildren(...names.map((name) => {
      const button = make("button", { type: "button", "data-task": name, onclick: () => choose(name) }, make("span", {}, name), make("span", { class: "score" }));
      return button;
    }));
  }
  views.forEach((view, at) => {
    const { own, ahead } = standing(view.metric, view.baselines, view.point);
    const said = own === null ? "" : `${ahead === false ? "▼" : "▲"} ${METRICS[view.metric].shown(own)}`;
    const place = $("tasks").children[at].lastChild;
    if (place.textContent !== said) place.textContent = said;
  });
  mark();
}

async function begin() {
  clearTimeout(timer);
  try {
    const { views } = await link.json("/v1/views");
    $("token").hidden = true;
    list(views);
    if (!now.task) {
      notice(null);
      const wanted = decodeURIComponent(location.hash.slice(1));
      if (views.length) choose((views.find((each) => each.task === wanted) ?? views[0]).task);
      else state("trouble", "no task is served here");
    }
    if (views.length > 1 && !document.hidden) timer = setTimeout(begin, TASKS_MS);
  } catch (error) {
    lost(error);
    if (error.status !== 401) timer = setTimeout(begin, TASKS_MS);
  }
}

function askToken() {
  clearTimeout(timer);
  link.leave();
  const again = link.token !== "";
  link.token = "";
  state("trouble", "a token is needed");
  if (again) write("token-told", "That is not the token of this service.");
  if ($("token").hidden) {
    $("token").hidden = false;
    $("token-field").focus();
  }
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  link.token = $("token-field").value;
  $("token-field").value = "";
  now.task = null;
  begin();
});
$("moment").addEventListener("input", () => {
  const slider = $("moment");
  if (Number(slider.value) + Number(slider.step) > Number(slider.max)) back();
  else look(Number(slider.value));
});
$("live").addEventListener("click", () => {
  back();
  $("moment").focus();
});
$("hold").addEventListener("click", () => hold(!now.held));
for (const [id, leastSure] of [["newest", false], ["least-sure", true]]) {
  $(id).addEventListener("click", () => {
    now.leastSure = leastSure;
    $("newest").setAttribute("aria-pressed", String(!leastSure));
    $("least-sure").setAttribute("aria-pressed", String(leastSure));
    if (now.shown) draw(now.shown);
  });
}
$("explained").addEventListener("change", (event) => {
  pin(event.target.value);
  if (now.shown) draw(now.shown);
});
document.addEventListener("visibilitychange", () => {
  follow();
  if (!document.hidden) begin();
});
begin();
