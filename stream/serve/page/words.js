// How numbers, times and names read.

const format = (options) => new Intl.NumberFormat("en", options);
const wholes = format({ maximumFractionDigits: 0 });
const figures = format({ maximumSignificantDigits: 4 });
const pairs = format({ maximumSignificantDigits: 2 });
const triples = format({ minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const percents = format({ style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const tiny = format({ notation: "scientific", maximumSignificantDigits: 3 });

export const known = (value) => typeof value === "number" && Number.isFinite(value);
export const NONE = "–";

export const count = (value) => (known(value) ? wholes.format(value) : NONE);
export const share = (value) => (known(value) ? percents.format(value).replace("%", "\u202f%").replace("-", "−") : NONE);

export function number(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return tiny.format(value);
  return figures.format(value).replace("-", "−");
}

// Three figures, whatever they are: so that what stands in a place keeps its width.
export function steady(value) {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1000) return count(value);
  return size !== 0 && size < 1e-4 ? tiny.format(value) : triples.format(value).replace("-", "−");
}

export const rough = (value) => (known(value) ? pairs.format(value) : NONE);
export const signed = (value) => (value > 0 ? "+" : "") + steady(value);

export function text(value) {
  if (value === null || value === undefined) return NONE;
  return known(value) ? number(value) : String(value);
}

export function span(ms) {
  if (!known(ms)) return NONE;
  for (const [size, unit] of [[86400e3, "d"], [3600e3, "h"], [60e3, "min"], [1e3, "s"]]) {
    if (ms >= size) return `${ms >= 10 * size ? count(ms / size) : triples.format(ms / size).slice(0, 3)}\u202f${unit}`;
  }
  return `${count(ms)}\u202fms`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const minute = (ms) => clock(ms).slice(0, 5);

export function moment(ms) {
  const date = new Date(ms), day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return date.toDateString() === new Date().toDateString() ? clock(ms) : `${day}, ${clock(ms)}`;
}

export const plural = (value, name) => `${count(value)} ${name}${value === 1 ? "" : "s"}`;

const NAMES = { model: "headrace", no_change: "no-change", majority: "majority" };
export const named = (name) => NAMES[name] ?? name;

export const METRICS = {
  accuracy: { name: "right", shown: share, better: Math.max },
  macro_f1: { name: "macro F1", shown: share, better: Math.max },
  log_loss: { name: "log-loss", shown: steady, better: Math.min },
  mae: { name: "mean error", shown: steady, better: Math.min },
  rmse: { name: "RMSE", shown: steady, better: Math.min },
  coverage: { name: "in interval", shown: share, better: null },
};

export const STEPS = {
  boost: "learning rates raised for a while",
  challenge: "a challenger began to learn beside the champion",
  promotion: "the challenger did better and took over",
  rollback: "the former champion came back",
  dismissal: "the challenger did no better and was dismissed",
  relabel: "two classes had swapped their labels",
  reset: "a member began anew: its numbers overflowed",
};
