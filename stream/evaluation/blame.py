"""What made the error rise at an alarm: the inputs that stopped helping, and where it came from."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.events import DriftAlarm, Records
from headrace.stream.formats import files
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.places import STDIN
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.rows.inputs import inputs_of
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer

BATCH = 4096
FEWEST = 20  # errors on each side of a change
MOST = 5000  # errors that are searched for one
SAMPLE = 200  # predictions on each side that are explained
SOURCES = 10  # that are named
OTHERS = "others"


@dataclass(frozen=True)
class Blame:
    """Say what made the error rise, or fall, before an alarm.

    Attributes:
        at: row of the alarm.
        detector: that raised it.
        since: row of the first prediction after the change.
        before, after: mean error on both sides: the share of wrong classes, or the absolute error.
        inputs: of the rise from `before` to `after`, what each input's part in the error rose by.
        rest: what is left: the error of predicting by what is usual rose by so much.
        noise: standard error of each of `inputs`, which are those of a sample.
        moved: columns whose distribution had changed most, as in the alarm.
        sources: by entity, what its errors add to the rise, the most first; together they are it.
    """

    at: int
    detector: str
    since: int
    before: float
    after: float
    inputs: dict[str, float]
    rest: float
    noise: dict[str, float]
    moved: list[str] = field(default_factory=list)
    sources: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return asdict(self)


def blame(
    task: Task,
    path: files.Given,
    *,
    limit: int | None = None,
    on_progress: Callable[[int], None] = lambda rows: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Blame]:
    """Learn the rows of files twice, and say of each alarm what made the error rise.

    The first time finds alarms, and when the error changed before each: at the cut of the errors
    since the change before that parts them most clearly (as ADWIN cuts). The second time, in which
    all comes out the same, explains a sample of the predictions on both sides. An input's part is
    its Shapley value of the error, of which it takes away as long as it tells something.

    Args:
        path: of one file or more.
        limit: rows to read at most.
        on_progress: called with the rows read, twice as many as there are at last.
        stop: asked after each batch whether to end: nothing is blamed then.

    Raises:
        UsageError: the files cannot be read, or only once; labels come late.
    """
    if task.labels:
        raise UsageError(f"{task.name}: [labels] come late: expected a task without")
    given = [path] if isinstance(path, str | Path) else path
    if any(str(each) == STDIN for each in given):
        raise UsageError("rows are read twice: expected files, not standard input")
    first = _Errors(task)
    done = 0
    for count, learned, names in _learned(task, Trainer(task, BATCH), path, limit):
        first.add(learned, names)
        on_progress(done := done + count)
        if stop():
            return []
    changes = [*_changes(first)]
    explained = task.model_copy(update={"model": task.model.model_copy(update={"explain": 0.0})})
    trainer, second = Trainer(explained, BATCH), _Errors(task)
    assert trainer.explaining  # noqa: S101
    wanted = {first.number[at] for change in changes for side in change.sampled for at in side}
    trainer.explaining.only = np.array(sorted(wanted), np.int64)
    for count, learned, names in _learned(explained, trainer, path, limit) if wanted else ():
        second.add(learned, names, trainer.explaining.explainer.errors)
        on_progress(done := done + count)
        if stop():
            return []
    inputs = [each.name for each in inputs_of(task)]
    return [_blamed(change, first, second.parts, inputs) for change in changes]


class _Errors:
    """Note the error of each prediction as its label comes."""

    def __init__(self, task: Task) -> None:
        self._horizon, self._classes = task.spec.horizon, task.spec.classes
        self._waiting: dict[tuple[int, ...], deque[tuple[int, int, Any, float]]] = {}
        self._met = 0
        self.error, self.number, self.row = list[float](), list[int](), list[int]()
        self.source: list[str] = []
        self.alarms: list[tuple[int, DriftAlarm]] = []  # behind so many errors
        self.parts: dict[int, NDArray[np.float64]] = {}  # by number of the event

    def add(
        self,
        learned: Learned,
        names: dict[int, str],
        errors: Callable[[Any, float], NDArray[np.float64]] | None = None,
    ) -> None:
        """Take what came of a batch.

        Args:
            names: of the entities, by row.
            errors: gives the parts of an error, by attributions and label.
        """
        rows = learned.rows
        alarms = {each.offset: each for each in learned.drift if isinstance(each, DriftAlarm)}
        labels, answers = rows.label.tolist(), learned.answer.tolist()
        entities = map(tuple, rows.entity.tolist())
        for at, entity in enumerate(entities):
            row, label = rows.offset[at], labels[at]
            asked: tuple[int, int, Any, float] | None = (
                self._met,
                row,
                learned.attributions.get(at),
                answers[at],
            )
            self._met += 1
            if self._horizon:
                waiting = self._waiting.setdefault(entity, deque())
                waiting.append(asked)  # type: ignore[arg-type]
                asked = waiting.popleft() if len(waiting) > self._horizon else None
            if asked and label == label and asked[3] == asked[3]:
                number, of, attributions, answer = asked
                self.error.append(float(answer != label) if self._classes else abs(answer - label))
                self.number.append(number)
                self.row.append(of)
                self.source.append(names.get(row, ""))
                if attributions is not None and errors:
                    self.parts[number] = errors(attributions, label)
            if alarm := alarms.get(row):
                self.alarms.append((len(self.error), alarm))


class _Change(NamedTuple):
    """Hold a change of the error before an alarm: places of errors before it and after it."""

    alarm: DriftAlarm
    before: range
    after: range

    @property
    def sampled(self) -> tuple[list[int], list[int]]:
        """Return which errors are explained: those next to the change before, spread after."""
        near = self.before[-SAMPLE * 5 :]
        return _spread(near), _spread(self.after)


def _spread(places: range) -> list[int]:
    """Return SAMPLE of some places at most, evenly."""
    chosen = np.linspace(0, len(places) - 1, min(len(places), SAMPLE)).astype(int)
    return [places[at] for at in dict.fromkeys(chosen.tolist())]


def _changes(found: _Errors) -> Iterator[_Change]:
    """Yield the clearest change before each alarm; one that was told already is not told again."""
    begun, error = 0, np.array(found.error)
    for end, alarm in found.alarms:
        first = max(begun, end - MOST)
        count = end - first
        if count < 2 * FEWEST:
            continue
        total = error[first:end].cumsum()
        cut = np.arange(FEWEST, count - FEWEST + 1)
        apart = (total[-1] - total[cut - 1]) / (count - cut) - total[cut - 1] / cut
        at = first + int(cut[np.argmax(np.abs(apart) * np.sqrt(cut * (count - cut)))])
        yield _Change(alarm, range(first, at), range(at, end))
        begun = at


def _blamed(
    change: _Change, found: _Errors, parts: dict[int, NDArray[np.float64]], names: Sequence[str]
) -> Blame:
    sides = [np.array(found.error)[[*side]].mean() for side in (change.before, change.after)]
    sampled = [
        np.array([parts[found.number[at]] for at in side if found.number[at] in parts])
        for side in change.sampled
    ]
    known = all(len(side) > 1 for side in sampled)
    rise, noise = np.zeros(len(names)), np.full(len(names), np.nan)
    if known:
        rise = sampled[1].mean(0) - sampled[0].mean(0)
        noise = np.sqrt(sum(side.var(0, ddof=1) / len(side) for side in sampled))
    return Blame(
        at=change.alarm.offset,
        detector=change.alarm.detector,
        since=found.row[change.after[0]],
        before=float(sides[0]),
        after=float(sides[1]),
        inputs=dict(zip(names, rise.tolist(), strict=True)),
        rest=float(sides[1] - sides[0] - rise.sum()),
        noise=dict(zip(names, noise.tolist(), strict=True)),
        moved=[each.column for each in change.alarm.moved],
        sources=_sources(change, found, float(sides[0])),
    )


def _sources(change: _Change, found: _Errors, usual: float) -> dict[str, float]:
    """Return what each source adds to the rise; of one that errs as `usual`, nothing."""
    added: defaultdict[str, float] = defaultdict(float)
    for side, sign in ((change.before, -1), (change.after, 1)):
        for at in side:
            added[found.source[at]] += sign * (found.error[at] - usual) / len(side)
    if {*added} <= {""}:
        return {}
    ranked = sorted(added.items(), key=lambda each: -each[1])
    others = {OTHERS: sum(each for _, each in ranked[SOURCES:])} if ranked[SOURCES:] else {}
    return dict(ranked[:SOURCES]) | others


def _learned(
    task: Task, trainer: Trainer, path: files.Given, limit: int | None
) -> Iterator[tuple[int, Learned, dict[int, str]]]:
    """Learn the rows of files; yield how many of each batch, what came of it, and its entities."""
    rows = FileRows(task, path, limit)
    normalizer, codec = Normalizer(rows.task), Codec(rows.task)
    while (records := rows.take(BATCH)).values:
        found, _ = normalizer.normalize(records)
        found, _ = trainer.admit(found, records.topic)
        if found.id:
            names = _names(codec, records) if task.input.entity else {}
            yield len(records.values), trainer.collect(trainer.submit(found)), names


def _names(codec: Codec, records: Records) -> dict[int, str]:
    """Return the names of entities by row."""
    columns, refused = codec.decode_all(records.values)
    offsets = [each for at, each in enumerate(records.offsets) if at not in refused]
    return dict(zip(offsets, map(scalar_text, columns[2]), strict=True))
