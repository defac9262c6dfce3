"""Learn a file as the service would learn a topic: the same normaliser and learner, no Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.columns import ColumnCheck, too_good
from headrace.stream.evaluation.compare import Rival, compare
from headrace.stream.evaluation.delayed_trainer import DelayedTrainer
from headrace.stream.evaluation.evaluation import Evaluation
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.evaluation.plot import Curve, Point, measure
from headrace.stream.evaluation.trace import Trace, tracing
from headrace.stream.events import DeadLetter, DriftAlarm, DriftRecord, LadderStep
from headrace.stream.formats import files
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.rows import label_delay as label_delays
from headrace.stream.rows.label_delay import LabelDelay
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.refusals import Refusals
from headrace.stream.task import Task
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer

BATCH = 4096
LATE = ("event_time", "held_out")  # scores that there are where labels come late
PROOF = ("rival", "events", "gain", "low", "high", "exchanged", "statistic")


def evaluate(
    task: Task,
    path: files.Given,
    *,
    limit: int | None = None,
    other: Task | None = None,
    trace: str | Path | None = None,
    curve: Curve | None = None,
    label_delay: str | None = None,
    names: tuple[str, str] = ("headrace", "the other"),
    on_progress: Callable[[int, Callable[[], dict[str, Any]]], None] = lambda events, report: None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Predict, score and learn each row of a file, or of several, in file order.

    Args:
        path: of one file or more: paths, globs, "-" for standard input, URLs.
        limit: rows to read at most.
        other: learn the same rows with this task too, and compare row by row.
        trace: write every prediction of `task` to this Parquet file.
        curve: takes the metrics down along the way; each point costs a wait. Without one there
            are fewer points, which cost none.
        label_delay: let labels come late: before the 500th event behind their own ("500"), before
            the first that is 10 minutes younger ("10m", of s, m, h, d), or so late on average
            ("exp(500)", "exp(1d)"), drawn by the row's number; "0" is right behind it. Those still
            to come at the end are learned then.
        names: what the two tasks are called in tables and plots.
        on_progress: called after each batch with the events so far, and a function that waits for
            the batch and gives the metrics.
        stop: asked after each batch whether to end here: with what is known so far, and no trace.

    Raises:
        UsageError: the file cannot be read, or lacks a column or the time that a task needs; the
            two tasks predict different things; the trace cannot be written.
    """
    trace = None if trace is None else Path(trace)
    if other:
        check_rival(task, other)
    if trace and any(each.is_file(trace) for each in files.places(path)):
        raise UsageError(f"--trace {trace}: is the file that is read; name another")
    delay = None if label_delay is None else label_delays.parse(label_delay)
    point: Callable[[_Run], Point] = _Run.sketch if not curve and not other else _Run.point
    curve = curve or Curve(most=32, stride=128)
    with tracing(task, trace) as book:
        run = _Run(task, path, limit, other, book, delay)
        while not (stopped := stop()) and run.step(curve.stride):
            if run.events % curve.stride == 0:
                curve.add(point(run))
            on_progress(run.events, run.trainer.report)
        if not stopped:
            run.finish()
        run.settle()
        if book and stopped:
            book.discard()
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
        delay: LabelDelay | None,
    ) -> None:
        self._task, self._other, self._book = task, other, book
        self._rows = FileRows(task, path, limit)
        self._other_rows = FileRows(other, path, limit) if other else None
        files.read_on(path)
        self._normalizer = Normalizer(self._rows.task)
        self.trainer = _trainer(task, delay)
        self._rival: Rival | None = None
        if self._other_rows:
            self._rival = Rival(task, _trainer(self._other_rows.task, delay))
        self._working: tuple[list[int], list[DeadLetter], Pending | None] | None = None
        self._refusals, self._columns = Refusals(task), ColumnCheck(task)
        self._fields = NewFields(self._rows.task)
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
        self._columns.add(rows)
        self._fields.add(records.values)
        letters = [*refused, *repeated]
        self._refusals.add(letters)
        pending = self.trainer.submit(rows) if rows.id else None
        self._collect()
        self._working = records.offsets, letters, pending
        self.events += len(records.values)
        return True

    def finish(self) -> None:
        """Learn the labels that are still to come at the end of the file."""
        self.settle()
        for trainer, _ in self._sides():
            if isinstance(trainer, DelayedTrainer):
                drift = trainer.learn_rest()
                self._drift += drift if trainer is self.trainer else []

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
        for trainer, refusals in self._sides():
            if isinstance(trainer, DelayedTrainer):
                refusals.add(trainer.take_refused())
        report = self.trainer.report()
        return Evaluation(
            events=self.events,
            learned=self.trainer.learned,
            rejected=self._refusals.total,
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
            codes=self._refusals.codes,
            refusals=self._refusals.all,
            warnings=tuple(self._warnings(report)),
            non_finite=self._normalizer.non_finite,
            further=report.get("further", {}),
            late={name: report[name] for name in LATE if name in report},
            comparison=compare(self._task, self._other, report, self._rival)
            if self._other and self._rival
            else None,
        )

    def _sides(self) -> list[tuple[Trainer, Refusals]]:
        ours = [(self.trainer, self._refusals)]
        return [*ours, (self._rival.trainer, self._rival.refusals)] if self._rival else ours

    def _warnings(self, report: dict[str, Any]) -> Iterator[str]:
        """Yield what else is to be known: of the rows, of the columns, of the score."""
        yield from self._refusals.warnings(self.events)
        if isinstance(self.trainer, DelayedTrainer):
            yield from self.trainer.warnings()
        columns = self._columns.warnings()
        yield from columns
        if not columns and (praise := too_good(report)) and (best := self._columns.best()):
            yield f"{praise}: is this too good to be true? {best}"
        yield from self._fields.lines()

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


def _trainer(task: Task, delay: LabelDelay | None) -> Trainer:
    return DelayedTrainer(task, BATCH, delay) if delay else Trainer(task, BATCH)
