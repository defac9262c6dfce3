// Elements: of texts, classes and sizes, never of markup.

export const $ = (id) => document.getElementById(id);

export function make(name, options = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") made.className = value;
    else if (key === "width") made.style.width = value;
    else if (key === "left") made.style.left = value;
    else if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside.filter((each) => each !== null).map((each) => (each instanceof Node ? each : String(each))));
  return made;
}

const last = new Map();

export function forget() {
  last.clear();
}

// Builds what a place shows, if that is not what it shows already.
export function put(id, said, build) {
  const told = JSON.stringify(said);
  if (last.get(id) === told) return;
  last.set(id, told);
  $(id).replaceChildren(...build());
}

export function write(id, said) {
  if ($(id).textContent !== said) $(id).textContent = said;
}

export const note = (...said) => make("p", { class: "note" }, ...said);
export const code = (said) => make("code", {}, said);

// Cells are texts, or {said, class, title}. Roles are said again: on a phone rows are no table rows.
export function table(label, heads, lines, kind = "") {
  const cell = (name, role, each, head) => {
    const told = each?.said === undefined ? { said: each } : each;
    return make(name, { role, class: told.class, title: told.title, "data-head": head?.said ?? head }, ...[told.said].flat());
  };
  return make("table", { role: "table", class: kind, "aria-label": label },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads.map((each) => cell("th", "columnheader", each)))),
    make("tbody", { role: "rowgroup" }, ...lines.map((line) => make("tr", { role: "row" }, ...line.map((each, at) => cell("td", "cell", each, heads[at]))))));
}

// Parts are {name, size, said, kind}: bars to the right, or to both sides if any is below 0.
export function bars(label, parts) {
  const most = Math.max(...parts.map((each) => Math.abs(each.size)), 1e-12);
  const signs = parts.some((each) => each.size < 0);
  return make("dl", { class: signs ? "bars signs" : "bars", "aria-label": label }, ...parts.flatMap((each) => {
    const part = 100 * Math.abs(each.size) / most / (signs ? 2 : 1);
    const bar = make("span", {
      class: `bar ${each.kind ?? ""} ${each.size < 0 ? "against" : ""}`, "aria-hidden": "true",
      width: `${part}%`, left: signs ? `${each.size < 0 ? 50 - part : 50}%` : "0%",
    });
    return [make("dt", { title: each.name }, each.name), make("dd", {}, make("span", { class: "track" }, bar), make("span", { class: "value" }, each.said))];
  }));
}
