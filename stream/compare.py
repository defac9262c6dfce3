"""Run history another way beside the way it was, and say what that would have changed."""

from __future__ import annotations

import copy
import io
import math
import tomllib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.memory import WAYS
from stream import fingerprint
from stream.errors import UsageError
from stream.events import Records
from stream.normalize import Normalizer, Rows
from stream.rebuild import pieces
from stream.task import Task, validate
from stream.trainer import Learned, Pending, Trainer

Verdict = Literal["better", "worse", "no difference shown"]
CONFIDENCE = 0.95
_PLOTS = (".png", ".svg", ".html")
_ZETA = 3.1055472779775815  # Riemann's zeta at 1.4


def changed_task(task: Task, settings: Sequence[str]) -> Task:
    """Give a task with some keys set otherwise: `model.learning_rate=0.01`.

    A value is read as TOML gives it, and as text where that is no TOML.

    Raises:
        UsageError: a setting is no `key=value`, or the two tasks would predict different things.
        TaskError: naming the key, the value and what was expected there.
    """
    table = copy.deepcopy(task.model_dump(mode="json", exclude_unset=True))
    for setting in settings:
        key, sign, text = setting.partition("=")
        try:
            place: Any = tomllib.loads(f"{key}=0")
        except tomllib.TOMLDecodeError:
            sign = ""
        if not sign:
            raise UsageError(f"--set {setting}: expected key=value, such as model.chunk=32")
        try:
            value = tomllib.loads(f"x={text}")["x"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        _put(table, place, value, setting)
    changed = validate(table, "--set")
    for name in ("name", "target"):
        if getattr(changed, name) != getattr(task, name):
            raise UsageError(f"--set {name}: the two would not predict the same; leave it as it is")
    if changed.input.topic != task.input.topic:
        raise UsageError("--set input.topic: both learn from the same events; leave it as it is")
    return changed


def _put(table: dict[str, Any], place: dict[str, Any], value: Any, setting: str) -> None:
    """Set what stands at `place`: a table within tables, with one key each."""
    ((key, rest),) = place.items()
    if not isinstance(rest, dict):
        table[key] = value
        return
    inner = table.setdefault(key, {})
    if not isinstance(inner, dict):
        raise UsageError(f"--set {setting}: {key} is no table")
    _put(inner, rest, value, setting)


class Sequential:
    """Bound the mean of values in [-1, 1] at all times at once: look as often as you like.

    The empirical-Bernstein confidence sequence of Howard, Ramdas, McAuliffe & Sekhon (2021),
    "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49,
    theorem 4, with the stitched boundary of their theorem 1 (eta = 2, s = 1.4, m = 10). What it
    bounds is the average of the values' expectations, each given all before it: they may depend
    on each other and drift. That it ever misses has a probability of 5 % at most.
    """

    def __init__(self) -> None:
        self.events = 0
        self._total = self._spread = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take values in, in order; how they are cut into calls changes nothing."""
        if not len(values):
            return
        before = self._total + np.concatenate([[0.0], np.cumsum(values[:-1])])
        count = self.events + np.arange(len(values))
        self._spread += float(((values - before / np.maximum(count, 1)) ** 2).sum())
        self._total += float(values.sum())
        self.events += len(values)

    @property
    def mean(self) -> float:
        """Give the mean of the values; 0 without any."""
        return self._total / max(self.events, 1)

    def interval(self) -> tuple[float, float]:
        """Give the lowest and the highest mean that the values allow."""
        scale, alpha, least = 2.0, (1 - CONFIDENCE) / 2, 10.0
        spread = max(self._spread, least)
        rarity = 1.4 * math.log(math.log2(spread / least) + 1) + math.log(_ZETA / alpha)
        first, second = (2**0.25 + 2**-0.25) / math.sqrt(2), (math.sqrt(2) + 1) / 2
        linear = second * scale * rarity
        bound = math.sqrt(first**2 * spread * rarity + linear**2) + linear
        width = bound / max(self.events, 1)
        return max(self.mean - width, -1.0), min(self.mean + width, 1.0)

    def verdict(self) -> Verdict:
        """Say whether the mean is above or below 0 beyond doubt."""
        low, high = self.interval()
        return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


class Errors:
    """Tell what each labelled event says about the prediction that was made for it.

    With `target.horizon` = h the label of an event answers what was said h events of its entity
    before; entities are remembered and forgotten as the model does it (`model.memory`).
    """

    def __init__(self, task: Task) -> None:
        self._classes, self._horizon = bool(task.target.classes), task.target.horizon
        self._sets = -(-task.lags.entities // WAYS)
        self._open: dict[int, dict[int, deque[float]]] = {}  # by set and key, stalest first

    def of(self, learned: Learned) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Give the place of each event that was scored, as one number, and its error.

        The error of a class is 0 or 1, that of a number the distance to the label.
        """
        rows, published = learned.rows, learned.published
        said = (published.argmax(1) if self._classes else published[:, 0]).astype(np.float64)
        if self._horizon:
            said = self._due(rows, said)
        scored = ~np.isnan(rows.label)
        if self._horizon:
            scored &= ~np.isnan(said)
        places = (np.array(rows.partition, np.int64) << 48) + np.array(rows.offset, np.int64)
        miss = np.abs(rows.label[scored] - said[scored])
        errors = (miss > 0).astype(np.float64) if self._classes else np.nan_to_num(miss, nan=np.inf)
        return places[scored], errors

    def _due(self, rows: Rows, said: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give what was said about each event before it came; NaN where nothing was."""
        due = np.full(len(said), np.nan)
        places, keys = rows.entity.T.tolist()
        for at, (place, key, now) in enumerate(zip(places, keys, said.tolist(), strict=True)):
            known = self._open.setdefault(place % self._sets, {})
            ring = known.pop(key, None)
            if ring is None:
                ring = deque(maxlen=self._horizon)
                if len(known) == WAYS:
                    del known[next(iter(known))]
            known[key] = ring
            if len(ring) == self._horizon:
                due[at] = ring[0]
            ring.append(now)
        return due


class Rival:
    """Learn the raw events of a replay with another task, and pair each error of the two.

    For each event that both scored, the gain is +1, 0 or -1: whether the rival was right where
    the other was wrong, or nearer to the number.

    Args:
        task: as it was.
        changed: the rival's.
        on_learned: called with each batch that the rival learned.
    """

    def __init__(
        self, task: Task, changed: Task, capacity: int, on_learned: Callable[[Learned], None]
    ) -> None:
        self.trainer = Trainer(changed, capacity)
        self.gain = Sequential()
        self._normalizer, self._on_learned = Normalizer(changed), on_learned
        self._working: list[Pending] = []
        self._sides = (Errors(task), Errors(changed))
        self._found: tuple[list[Any], list[Any]] = ([], [])

    def take(self, records: Records) -> None:
        """Learn raw records; `other` must have told of all that was read before the last ones."""
        self._pair()
        rows, _ = self._normalizer.normalize(records)
        rows, _ = self.trainer.admit(rows, records.topic)
        pending = [self.trainer.submit(part) for part in pieces(rows, self.trainer.capacity)]
        self._collect()
        self._working = pending

    def other(self, learned: Learned) -> None:
        """Take what the task as it was said of the same events."""
        self._found[0].append(self._sides[0].of(learned))

    def finish(self) -> None:
        """Pair all that was taken; `other` must have told of all of it."""
        self._collect()
        self._pair()

    def _collect(self) -> None:
        working, self._working = self._working, []
        for each in working:
            learned = self.trainer.collect(each)
            self._found[1].append(self._sides[1].of(learned))
            self._on_learned(learned)

    def _pair(self) -> None:
        """Compare the events that both scored; an event that one of them refused is left out."""
        if all(self._found):
            (first, was), (second, would) = (
                (np.concatenate(column) for column in zip(*side, strict=True))
                for side in self._found
            )
            if not np.array_equal(first, second):
                _, at, other = np.intersect1d(first, second, return_indices=True)
                in_order = np.argsort(at)
                was, would = was[at[in_order]], would[other[in_order]]
            self.gain.add((was > would).astype(np.float64) - (was < would))
        self._found = ([], [])


@dataclass(frozen=True)
class Comparison:
    """Say what another task would have made of the same events.

    `gain` is, of a classification, the difference in accuracy over the events that both scored;
    of a regression the share of events where the rival was nearer, less where it was farther (a
    sign test, since errors have no bound). `low` and `high` hold at any time of looking, with
    95 % confidence. `differences` are the metrics of the changed task less those as it was.
    """

    changes: list[str]
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    differences: dict[str, dict[str, float | None]]
    pairs: int
    gain: float
    low: float
    high: float
    verdict: Verdict


def compare(task: Task, changed: Task, report: dict[str, Any], rival: Rival) -> Comparison:
    """Sum up, after `rival.finish()`; `report` holds the metrics of the task as it was."""
    other = rival.trainer.report()
    low, high = rival.gain.interval()
    return Comparison(
        changes=fingerprint.differences(
            fingerprint.settings_of(task), fingerprint.settings_of(changed)
        ),
        metrics={span: other[span] for span in ("all", "window")},
        baselines=other["baselines"],
        differences={
            span: {
                name: None if value is None or before is None else value - before
                for name, value in other[span].items()
                if name != "events"
                for before in [report[span][name]]
            }
            for span in ("all", "window")
        },
        pairs=rival.gain.events,
        gain=rival.gain.mean,
        low=low,
        high=high,
        verdict=rival.gain.verdict(),
    )


class Point(NamedTuple):
    """Hold the metrics after so many events, as it was and with the changed task."""

    events: int
    report: dict[str, Any]
    other: dict[str, Any] | None


def check_plot(path: Path) -> None:
    """Make sure that a plot can be drawn to a file, before hours are spent for it.

    Raises:
        UsageError: matplotlib is not installed, or it is no .png, .svg or .html.
    """
    if path.suffix not in _PLOTS:
        raise UsageError(f"--plot {path}: expected a name that ends with {', '.join(_PLOTS)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no directory {path.absolute().parent}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install headrace[plot]") from error


def draw(task: Task, points: Sequence[Point], path: Path) -> None:
    """Draw accuracy, or the mean absolute error, in the fading window over the events."""
    from matplotlib.figure import Figure

    metric = "accuracy" if task.target.classes else "mae"
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[Any]] = {"as it was": [p.report["window"] for p in points]}
    if any(p.other for p in points):
        lines["changed"] = [p.other["window"] if p.other else {} for p in points]
    for name in points[-1].report["baselines"]:
        lines[name.replace("_", " ")] = [p.report["baselines"][name]["window"] for p in points]
    highest = 0.0
    for name, scores in lines.items():
        ours = name in ("as it was", "changed")
        values = [math.nan if (v := s.get(metric)) is None else v for s in scores]
        style = "-" if ours else ":"
        axes.plot([p.events for p in points], values, style, label=name, linewidth=1.3)
        if ours:
            highest = max([highest, *(value for value in values if value > 0)])
    if metric == "mae" and highest:  # a baseline far off must not flatten what matters
        axes.set_ylim(0, 1.5 * highest)
    axes.set_xlabel("events")
    axes.set_ylabel("accuracy" if metric == "accuracy" else "mean absolute error")
    axes.set_title(f"{task.name}: fading window of {task.spec.window:,} events", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png" if path.suffix == ".png" else "svg", dpi=150)
    data = drawn.getvalue()
    if path.suffix == ".html":
        svg = data[data.index(b"<svg") :]
        data = b"<!doctype html><meta charset=utf-8><title>%s</title>%s" % (
            task.name.encode(),
            svg,
        )
    path.write_bytes(data)
