"""Learn the same events another way beside the way it was, and say what that changes."""

from __future__ import annotations

import copy
import math
import tomllib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model.confidence import Gains, add, asymptotic, bounded
from headrace.model.memory import WAYS
from headrace.stream.errors import UsageError
from headrace.stream.events import Records
from headrace.stream.ledger import fingerprint
from headrace.stream.rows.late import Placed
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.refusals import Refusal, Refusals
from headrace.stream.rows.rows import Rows, split
from headrace.stream.task import Task, validate
from headrace.stream.training.learned import Learned, Pending
from headrace.stream.training.trainer import Trainer

MOST_MISS = 1e15  # so that the cubes of gains are finite
DEEPEST = 8  # parts of a key: no task file has more

Verdict = Literal["better", "worse", "no difference shown"]


def changed_task(task: Task, settings: Sequence[str]) -> Task:
    """Return a task with some keys set otherwise: `model.learning_rate=0.01`.

    A value is read as TOML gives it, and as text where that is no TOML.

    Raises:
        UsageError: a setting is no `key=value`, or the two tasks would predict different things.
        TaskError: naming the key, the value and what was expected there.
    """
    table = copy.deepcopy(task.model_dump(mode="json", exclude_unset=True))
    for setting in settings:
        key, sign, text = setting.partition("=")
        place = _path(key) if sign else None
        if place is None:
            raise UsageError(f"--set {setting}: expected key=value, such as model.chunk=32")
        _put(table, place, _value(text), setting)
    changed = validate(table, "--set")
    for name in ("name", "target"):
        if getattr(changed, name) != getattr(task, name):
            raise UsageError(f"--set {name}: the two would not predict the same; leave it as it is")
    if changed.input.topic != task.input.topic:
        raise UsageError("--set input.topic: both learn from the same events; leave it as it is")
    return changed


def without_effect(task: Task, settings: Sequence[str]) -> list[str]:
    """Return a line for each setting of `changed_task` whose key has that value already."""
    lines = []
    for setting in settings:
        key, _, text = setting.partition("=")
        known: Any = task.model_dump(mode="json")
        for part in _path(key) or ():
            known = known.get(part, _NOWHERE) if isinstance(known, dict) else _NOWHERE
        wanted = _value(text)
        if known == wanted and isinstance(known, bool) == isinstance(wanted, bool):
            lines.append(f"--set {setting}: {key.strip()} is that already, so it changes nothing")
    return lines


_NOWHERE = object()


def _path(key: str) -> list[str] | None:
    """Read a TOML key, such as `features."a b".min`; None if it is none, or more than one."""
    found: Any = _toml(f"{key}=0")
    path: list[str] = []
    while isinstance(found, dict) and len(found) == 1 and len(path) < DEEPEST:
        [(part, found)] = found.items()
        path.append(part)
    return path if found == 0 and "\n" not in key else None


def _value(text: str) -> Any:
    """Read a TOML value; what is none is text."""
    found = _toml(f"x={text}")
    return found["x"] if found and found.keys() == {"x"} else text.strip()


def _toml(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # dates that are none raise a plain ValueError
        return None


def _put(table: dict[str, Any], path: Sequence[str], value: Any, setting: str) -> None:
    for key in path[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {setting}: {key} is no table")
    table[path[-1]] = value


class Scored(NamedTuple):
    """Hold the labels of a batch that scored a prediction, in order."""

    line: NDArray[np.int64]  # [m]  of the batch, where the label stands
    place: NDArray[np.int64]  # [m]  of that event, as one number
    answered: NDArray[np.int64]  # [m]  place of the event that the prediction was made about
    error: NDArray[np.float64]  # [m]  of a class 0 or 1, of a number the distance to the label


class Errors:
    """Tell what each labelled event says about the prediction that was made for it.

    With `target.horizon` = h the label of an event answers what was said h events of its entity
    before; entities are remembered and forgotten as the model does it (`model.memory`).
    """

    def __init__(self, task: Task) -> None:
        self._classes, self._horizon = bool(task.spec.classes), task.target.horizon
        self._sets = -(-task.lags.entities // WAYS)
        self._open: dict[int, dict[int, deque[tuple[int, float]]]] = {}  # by set, stalest first

    def of(self, learned: Learned) -> Scored:
        """Return the events of the next batch whose label scored something, and the errors."""
        rows, said = learned.rows, learned.answer
        place = (np.array(rows.partition, np.int64) << 48) + np.array(rows.offset, np.int64)
        answered, scored = place, ~np.isnan(rows.label)
        if self._horizon:
            answered, said = self._due(rows, place, said)
            scored &= answered >= 0
        scored &= ~np.isnan(said)
        miss = np.abs(rows.label[scored] - said[scored])
        error = (miss > 0).astype(np.float64) if self._classes else np.fmin(miss, MOST_MISS)
        return Scored(np.flatnonzero(scored), place[scored], answered[scored], error)

    def _due(
        self, rows: Rows, places: NDArray[np.int64], said: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return where and what was said about each event before it came; -1 where nothing was."""
        answered, due = np.full(len(said), -1), np.full(len(said), np.nan)
        entities = rows.entity.T.tolist()
        lines = zip(*entities, places.tolist(), said.tolist(), strict=True)
        for at, (group, key, place, value) in enumerate(lines):
            known = self._open.setdefault(group % self._sets, {})
            ring = known.pop(key, None)
            if ring is None:
                ring = deque(maxlen=self._horizon)
                if len(known) == WAYS:
                    del known[next(iter(known))]
            known[key] = ring
            if len(ring) == self._horizon:
                answered[at], due[at] = ring[0]
            ring.append((place, value))
        return answered, due


class Rival:
    """Learn the same raw events with another task, and pair each error of the two.

    The gain of an event that both scored is the error of the task as it was, less the rival's.

    Args:
        task: as it was.
        trainer: of the rival.
        on_learned: called with each batch that the rival learned.
        known: puts labels into rows that the rival is scored by, and learns by if it gets no other.
    """

    def __init__(
        self,
        task: Task,
        trainer: Trainer,
        on_learned: Callable[[Learned], None] = lambda learned: None,
        known: Callable[[Rows], Rows] = lambda rows: rows,
    ) -> None:
        self.trainer, other = trainer, trainer.task
        self.gains, self.alone = Gains(), 0
        self.refusals = Refusals(other)
        self._bound = bounded if task.spec.classes else asymptotic
        self._normalizer, self._on_learned = Normalizer(other), on_learned
        self._known = known
        self._working: list[Pending] = []
        self._sides = (Errors(task), Errors(other))
        self._found: tuple[list[Scored], list[Scored]] = ([], [])

    def take(
        self, records: Records, late: Callable[[Rows], tuple[Rows, list[Placed]]] | None = None
    ) -> None:
        """Learn raw records; `other` must have told of all that was read before the last ones.

        Args:
            late: gives the rows in their order, and the labels that come between them; None if
                they are within them.
        """
        self._pair()
        rows, refused = self._normalizer.normalize(records)
        if late is None:
            rows = self._known(rows)
        rows, repeated = self.trainer.admit(rows, records.topic)
        self.refusals.add([*refused, *repeated])
        if late is not None:
            pending = [self.trainer.submit(*late(rows))]
        else:
            pending = [self.trainer.submit(part) for part in split(rows, self.trainer.capacity)]
        self._collect()
        self._working = pending

    def other(self, learned: Learned) -> None:
        """Take what the task as it was said of the same events."""
        self._found[0].append(self._sides[0].of(self._answered(learned)))

    def finish(self) -> None:
        """Pair all that was taken; `other` must have told of all of it."""
        self._collect()
        self._pair()

    def lead(self) -> Lead:
        """Return how far the rival is ahead, after all that is paired."""
        known = Gains(*map(float, self.gains))  # of one type: else XLA compiles the bound again
        ends = map(float, self._bound(known))
        low, high = (None if math.isinf(end) else end for end in ends)
        return Lead(self.gains.events, known.total / max(known.events, 1.0), low, high)

    def _collect(self) -> None:
        working, self._working = self._working, []
        for each in working:
            learned = self.trainer.collect(each)
            self._found[1].append(self._sides[1].of(self._answered(learned)))
            self._on_learned(learned)

    def _answered(self, learned: Learned) -> Learned:
        """Return what was said beside the labels that answer it, whenever they came."""
        rows = self._known(learned.rows)
        if rows is learned.rows:
            return learned
        if learned.classes.is_open:
            label = learned.classes.indices(rows.label, rows.new_class)
            rows = rows._replace(label=label)
        return replace(learned, rows=rows)

    def _pair(self) -> None:
        """Compare the events that both scored; those that one alone did are counted."""
        found, self._found = self._found, ([], [])
        (first, was), (second, would) = (
            (
                np.concatenate([_NO_PLACES, *(each.place for each in side)]),
                np.concatenate([_NO_ERRORS, *(each.error for each in side)]),
            )
            for side in found
        )
        if not np.array_equal(first, second):
            _, at, other = np.intersect1d(first, second, return_indices=True)
            self.alone += len(first) + len(second) - 2 * len(at)
            was, would = was[at], would[other]
        self.gains = add(self.gains, was - would)


_NO_PLACES, _NO_ERRORS = np.empty(0, np.int64), np.empty(0, np.float64)


class Lead(NamedTuple):
    """Say how far a rival is ahead: the mean gain of the pairs so far, and what bounds it.

    `low` and `high` are a confidence sequence, see `model.confidence`: `bounded` for classes,
    `asymptotic` for numbers. None is no bound.
    """

    pairs: int
    gain: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> Verdict:
        """Return whether the rival is ahead or behind beyond doubt."""
        if self.low is not None and self.low > 0:
            return "better"
        return "worse" if self.high is not None and self.high < 0 else "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """Say what another task would have made of the same events.

    `gain` is what the other task gained over the pairs, the events that both scored: accuracy, or
    of a regression absolute error that it avoided. `low` and `high` bound it at any time of
    looking, with 95 % confidence (None: no bound yet). `alone` counts the events that only one of
    the two scored: those the other refused; `refusals` says why the other task refused any.
    `differences` are the metrics of the other task less those as it was, each over all that it
    scored.
    """

    changes: list[str]
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    differences: dict[str, dict[str, float | None]]
    pairs: int
    alone: int
    gain: float
    low: float | None
    high: float | None
    verdict: Verdict
    refusals: tuple[Refusal, ...]


def compare(task: Task, other: Task, report: dict[str, Any], rival: Rival) -> Comparison:
    """Sum up, after `rival.finish()`; `report` holds the metrics of the task as it was."""
    would, lead = rival.trainer.report(), rival.lead()
    return Comparison(
        changes=fingerprint.differences(
            fingerprint.settings_of(task), fingerprint.settings_of(other)
        ),
        metrics={span: would[span] for span in ("all", "window")},
        baselines=would["baselines"],
        differences={
            span: {
                name: None if value is None or before is None else value - before
                for name, value in would[span].items()
                if name != "events"
                for before in [report[span].get(name)]
            }
            for span in ("all", "window")
        },
        alone=rival.alone,
        verdict=lead.verdict,
        refusals=rival.refusals.all,
        **lead._asdict(),
    )
