"""Learn a file as the service would learn a topic: the same normaliser and learner, no Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Rival, compare
from headrace.stream.evaluation.evaluation import Evaluation
from headrace.stream.evaluation.plot import Curve, Point, measure
from headrace.stream.evaluation.trace import Trace, tracing
from headrace.stream.events import DeadLetter, DriftAlarm, DriftRecord, LadderStep, Records
from headrace.stream.formats import files
from headrace.stream.formats.codec import pointer
from headrace.stream.rows import outside
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Image, Number, Text
from headrace.stream.training.trainer import Pending, Trainer

BATCH = 4096
PROOF = ("rival", "events", "gain", "low", "high", "exchanged", "statistic")


def evaluate(
    task: Task,
    path: files.Given,
    *,
    limit: int | None = None,
    other: Task | None = None,
    trace: str | Path | None = None,
    curve: Curve | None = None,
    names: tuple[str, str] = ("headrace", "the other"),
    on_progress: Callable[[int, Callable[[], dict[str, Any]]], None] = lambda events, report: None,
) -> Evaluation:
    """Predict, score and learn each row of a file, or of several, in file order.

    Args:
        path: of one file or more: paths, globs, "-" for standard input, URLs.
        limit: rows to read at most.
        other: learn the same rows with this task too, and compare row by row.
        trace: write every prediction of `task` to this Parquet file.
        curve: takes the metrics down along the way; each point costs a wait. Without one there
            are fewer points, which cost none.
        names: what the two tasks are called in tables and plots.
        on_progress: called after each batch with the events so far, and a function that waits for
            the batch and gives the metrics.

    Raises:
        UsageError: the file cannot be read, or lacks a column or the time that a task needs; the
            two tasks predict different things; the trace cannot be written.
    """
    trace = None if trace is None else Path(trace)
    if other:
        check_rival(task, other)
    if trace and any(each.is_file(trace) for each in files.places(path)):
        raise UsageError(f"--trace {trace}: is the file that is read; name another")
    point: Callable[[_Run], Point] = _Run.sketch if not curve and not other else _Run.point
    curve = curve or Curve(most=32, stride=128)
    with tracing(task, trace) as book:
        run = _Run(task, path, limit, other, book)
        while run.step(curve.stride):
            if run.events % curve.stride == 0:
                curve.add(point(run))
            on_progress(run.events, run.trainer.report)
        run.settle()
    curve.add(point(run))
    return replace(run.evaluation(), curve=curve, task=task, names=names)


def check_rival(task: Task, other: Task) -> None:
    """Make sure that two tasks predict the same thing.

    Raises:
        UsageError: they do not.
    """
    for key in ("field", "kind"):
        ours, theirs = getattr(task.target, key), getattr(other.target, key)
        if ours != theirs:
            raise UsageError(
                f"--compare: target.{key} is {theirs!r} there and {ours!r} here; "
                "only tasks that predict the same can be compared"
            )


class _Run:
    """Learn a file batch by batch; XLA works on one while the next is read."""

    def __init__(
        self,
        task: Task,
        path: files.Given,
        limit: int | None,
        other: Task | None,
        book: Trace | None,
    ) -> None:
        self._task, self._other, self._book = task, other, book
        self._rows = FileRows(task, path, limit)
        self._other_rows = FileRows(other, path, limit) if other else None
        self._normalizer = Normalizer(self._rows.task)
        self.trainer = Trainer(task, BATCH)
        self._rival = Rival(task, self._other_rows.task, BATCH) if self._other_rows else None
        self._working: tuple[list[int], list[DeadLetter], Pending | None] | None = None
        self._codes: dict[str, int] = {}
        self._drift: list[DriftRecord] = []
        self.events = 0
        self._started = time.perf_counter()

    def step(self, count: int) -> bool:
        """Take the next rows, `count` and BATCH at most; say whether there were any."""
        records = self._rows.take(min(count, BATCH))
        if not records.values:
            return False
        if self._rival and self._other_rows:
            self._rival.take(self._other_rows.take(len(records.values)))
        rows, refused = self._normalizer.normalize(records)
        rows, repeated = self.trainer.admit(rows, records.topic)
        letters = [*refused, *repeated]
        for letter in letters:
            self._codes[letter.code] = self._codes.get(letter.code, 0) + 1
        pending = self.trainer.submit(rows) if rows.id else None
        self._collect()
        self._working = records.offsets, letters, pending
        self.events += len(records.values)
        return True

    def settle(self) -> None:
        """Wait for all that was taken; then both tasks stand at the same row."""
        self._collect()
        if self._rival:
            self._rival.finish()

    def point(self) -> Point:
        """Measure where learning stands."""
        self.settle()
        return measure(self.events, self.trainer, self._rival)

    def sketch(self) -> Point:
        """Note where learning stands after what was taken, without waiting for it."""
        return Point(self.events, self.trainer.sketch())

    def evaluation(self) -> Evaluation:
        """Sum up."""
        report = self.trainer.report()
        return Evaluation(
            events=self.events,
            learned=self.trainer.learned,
            rejected=sum(self._codes.values()),
            seconds=time.perf_counter() - self._started,
            metrics={scope: report[scope] for scope in ("all", "window")},
            baselines=report["baselines"],
            per_class=report.get("per_class", {}),
            drifts=[
                {"at": alarm.offset, "detector": alarm.detector}
                | {"before": alarm.before, "after": alarm.after}
                | {"moved": [each.column for each in alarm.moved]}
                for alarm in self._drift
                if isinstance(alarm, DriftAlarm)
            ],
            ladder=[
                {"at": step.offset, "action": step.action}
                | {name: value for name in PROOF if (value := getattr(step, name)) is not None}
                for step in self._drift
                if isinstance(step, LadderStep)
            ],
            codes=self._codes,
            further=report.get("further", {}),
            comparison=compare(self._task, self._other, report, self._rival)
            if self._other and self._rival
            else None,
        )

    def _collect(self) -> None:
        if self._working is None:
            return
        (offsets, letters, pending), self._working = self._working, None
        learned = self.trainer.collect(pending) if pending else None
        if learned:
            self._drift += learned.drift
            if self._rival:
                self._rival.other(learned)
        if self._book:
            said = self.trainer.predictions(learned) if learned else []
            self._book.add(offsets, letters, learned, said)


class FileRows:
    """Cut a file's rows into records as a topic would give them; the offset is the row.

    `task` is the one that reads these rows: see `_events`. Where it maps no time, none is needed:
    a calendar and aggregates, which use it, are refused, and all rows have a time that it allows.
    """

    def __init__(self, task: Task, path: files.Given, limit: int | None) -> None:
        if timed := outside.needs_time(task):
            raise UsageError(
                f"{files.called(path)}: {timed} needs the time of an event, and the rows of a file "
                f"have none: name its column by input.time, or leave {timed} out"
            )
        self._topic, self._next = files.called(path), 0
        self.task, self._key, events = _events(task, path)
        self._rows = islice(events, limit)

    def take(self, count: int) -> Records:
        """Return the next `count` rows, or what is left."""
        values = list(islice(self._rows, count))
        first, self._next = self._next, self._next + len(values)
        if self._key:
            values = outside.all_numbered(self._key, first, values)
        return outside.records(self.task, self._topic, values, first)


def _events(task: Task, path: files.Given) -> tuple[Task, str, Iterator[bytes]]:
    """Return the task that reads a file's rows as the service reads its events, and the rows.

    A task of CloudEvents reads rows without an envelope as `produce --cloudevents` would wrap
    them: as the data of events. Rows that carry no id of their own are to
    be numbered, in the field that is returned; "" if they need not be.
    """
    source, sample = task.input, files.sample(path)
    if source.format == "cloudevents" and not any("specversion" in row for row in sample):
        source = source.model_copy(update={"format": "json"})
    within = ("data",) if source.format == "cloudevents" else ()
    columns = {name for row in sample for name in row}
    _require(task, path, within, sample)
    rows = files.read(path, _kinds(task, columns))
    key = ""
    if not any(files.has(row, pointer(source.id)) for row in sample):
        key = outside.number_field(columns)
        source = source.model_copy(update={"id": key})
    return task.model_copy(update={"input": source}), key, rows


def _kinds(task: Task, columns: Container[str]) -> dict[str, files.Kind]:
    """Return which columns of a text file the task reads as numbers, and which as texts."""
    weight = pointer(task.input.weight) if task.input.weight else ()
    numbers: dict[str, files.Kind] = {
        key: "number" for key in weight if len(weight) == 1 and key in columns
    }
    return numbers | {
        place[0]: "number" if isinstance(feature, Number) else "string"
        for name, feature in task.features.items()
        if isinstance(feature, Number | Text | Image)
        and len(place := pointer(feature.field or name)) == 1
        and place[0] in columns
    }


def _require(
    task: Task, path: files.Given, within: tuple[str, ...], sample: list[dict[str, object]]
) -> None:
    """Refuse a file without a field that the task names; JSON lines may have it in later rows."""
    read = {name: f for name, f in task.features.items() if not isinstance(f, Aggregate)}
    named: dict[str, tuple[str | None, tuple[str, ...]]] = {
        "target.field": (task.target.field, within),
        "input.time": (task.input.time, ()),
        "input.entity": (task.input.entity, within),
        "input.weight": (task.input.weight, within),
    } | {f"features.{name}": (f.field or name, within) for name, f in read.items()}
    places = {key: (*inside, *pointer(field)) for key, (field, inside) in named.items() if field}
    missing = files.lacking(path, places.values())
    for key, place in places.items():
        if place in missing:
            inner = [row.get("data") if within and len(place) > 1 else row for row in sample]
            names = dict.fromkeys(name for row in inner if isinstance(row, dict) for name in row)
            raise UsageError(
                f"{files.called(path)}: no column {named[key][0]!r} for {key}; the file has "
                f"{', '.join(names)}"
            )
