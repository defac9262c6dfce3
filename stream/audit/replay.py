"""Run history again, in the order that the ledger tells: prove it, stop anywhere, change it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from hashlib import sha256
from typing import NamedTuple

from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.audit.paced_publisher import PacedPublisher, check_name, make_empty
from headrace.stream.audit.replay_range import LedgerPosition, ReplayRange, scan
from headrace.stream.audit.replayed import Replayed
from headrace.stream.errors import AuditError, UsageError
from headrace.stream.evaluation.compare import Rival, compare
from headrace.stream.evaluation.plot import Point, measure
from headrace.stream.events import Records
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, Range, TopicHistory
from headrace.stream.kafka.watch import other_topic
from headrace.stream.ledger import fingerprint, ledger
from headrace.stream.ledger.checkpoint import Manifest, fitting, start_manifest
from headrace.stream.ledger.ledger import Entry
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.refusals import Refusals
from headrace.stream.rows.rows import split
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.run import begun, open_checkpoints
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.snapshot import SavedState, digest
from headrace.stream.training.trainer import Trainer

CAPACITY = 4096


def replay(
    task: Task,
    kafka: KafkaConnection,
    *,
    begin: LedgerPosition | None = None,
    until: LedgerPosition | None = None,
    archive: str | None = None,
    start: SavedState | None = None,
    changed: Task | None = None,
    to_topic: str | None = None,
    speed: float | None = None,
    points: int = 0,
    capacity: int = CAPACITY,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replayed:
    """Learn again what the ledger's last run learned, in its order, and prove it record by record.

    Reads alone: it fences and locks nobody, so it runs beside the live learner.

    Args:
        begin: learn from here on, with a fresh model or `start`: nothing can be proven then.
        until: the end: a whole record, or an event within one (that record is not proven then).
        archive: where raw events are read instead of the raw topic.
        start: the saved learner that the run began with.
        changed: learn the same events with this task too, from nothing, and compare.
        to_topic: publish predictions here, of `changed` if given; made if it is not there.
        speed: so much faster than event time; None is as fast as it goes.
        points: so many of a curve of the metrics; each costs a wait.
        capacity: most events handled at a time; changes no bit of what comes out.
        on_progress: called with the raw events read, and how many there are at most.

    Raises:
        AuditError: history comes out otherwise, or the ledger is broken; names the record.
        HistoryError: raw events are gone.
        UsageError: a moment is not in the run, or the topic is not one to write to; or the run
            began with a saved learner, and `start` is not that.
        RecoveryError: the task is another than the one that was learned.
    """
    if to_topic:
        check_name(task, to_topic)
    if changed and task.labels:
        raise UsageError(
            "--set: the labels of this task come in a topic of their own, and history with those "
            "cannot be learned by a changed task; leave it out"
        )
    span = scan(task, kafka, begin, until)
    if to_topic:
        make_empty(task, kafka, to_topic)
    publisher = PacedPublisher(kafka, to_topic, speed, stop) if to_topic or speed else None
    with ExitStack() as stack:
        again = _Again(
            task, kafka, span, archive, start, capacity, stack, changed, publisher, points
        )
        again.run(stop, on_progress)
    return again.replayed()


class Kept(NamedTuple):
    """Hold the manifest of a state that was written, and how it was come by."""

    manifest: Manifest
    replayed: Replayed


def state(
    task: Task,
    kafka: KafkaConnection,
    at: LedgerPosition,
    to: str,
    *,
    archive: str | None = None,
    start: SavedState | None = None,
    key: bytes | None = None,
    capacity: int = CAPACITY,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Kept:
    """Write the state of a past moment as a checkpoint under `to`, proven as `replay` proves it.

    After a whole record it is the checkpoint that the live run would have left there: a learner
    with that state directory goes on from it. Within a record it is filed as a run of its own, so
    that no learner takes it for one of its ledger's.

    Args:
        to: directory or URL; locked meanwhile.
        start: the saved learner that the run began with.
        key: signs the checkpoint.

    Raises:
        AuditError, HistoryError, UsageError, RecoveryError: as `replay`; it cannot be written.
    """
    span = scan(task, kafka, None, at)
    run = span.opening.record.run
    with ExitStack() as stack:
        checkpoints = open_checkpoints(task, to, run, key)
        stack.enter_context(checkpoints.lock())
        again = _Again(task, kafka, span, archive, start, capacity, stack)
        again.run(lambda: False, on_progress)
        if again.part is not None:
            run = sha256(f"{run} {span.until}".encode()).hexdigest()[:32]
            checkpoints = open_checkpoints(task, to, run, key)
        replayed = again.replayed()
        if start:
            begun_with = start_manifest(
                task, run, span.begins, start.digest, start.learned, start.code
            )
            checkpoints.save_start(begun_with, start.tensors)
        manifest = again.manifest(run, replayed.state)
        checkpoints.save(manifest, again.trainer.snapshot().tensors())
    return Kept(manifest, replayed)


class _Again:
    """Learn a range of the ledger again, with a rival beside it if there is one.

    It is the `History` that `LedgerReplayer` reads: so the rival gets the same records at once.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        span: ReplayRange,
        archive: str | None,
        start: SavedState | None,
        capacity: int,
        stack: ExitStack,
        changed: Task | None = None,
        publisher: PacedPublisher | None = None,
        points: int = 0,
    ) -> None:
        self._task, self._kafka, self._span = task, kafka, span
        self._changed, self._publisher, self._points = changed, publisher, points
        topic = task.input.topic
        inputs = [*([] if archive else [topic]), *([task.labels.topic] if task.labels else [])]
        for found in kafka.describe_existing(inputs):
            if span.topics.get(found.name, found.id) != found.id:
                raise other_topic(found.name)
        self._history: History = (
            ArchiveHistory(archive, topic) if archive else TopicHistory(kafka, topic)
        )
        stack.callback(self._history.close)
        self.close = self._history.close
        labels = None
        if task.labels:
            labels = stack.enter_context(closing(TopicHistory(kafka, task.labels.topic)))
        self._labels = LabelHistory(task, labels) if labels else None
        opening = None if span.begin else span.opening.record
        self.trainer = begun(task, opening, start, capacity)
        self._rival = Rival(task, Trainer(changed, capacity), self._on_other) if changed else None
        _, last = span.ends()
        proven_from = last.record.seq + 1 if span.begin else span.proven_from
        self._proven_from = proven_from
        self._fields, self._refusals = NewFields(task), Refusals(task, topic=True)
        self._replayer = LedgerReplayer(
            task,
            self.trainer,
            self,
            labels,
            proven_from=proven_from,
            fields=self._fields,
            on_refused=self._refusals.add,
            on_learned=self._on_learned,
        )
        self._normalizer = Normalizer(task)
        self._position = span.begins.copy()
        self._topics: dict[str, str] = {}
        self._read = self._events = self._batches = self._equal = self._checkpoints = 0
        self._whole = span.opening
        self.part: int | None = None
        self._curve: list[Point] = []
        self._stopped = False
        self._seconds = 0.0

    def run(self, stop: Callable[[], bool], on_progress: Callable[[int, int], None]) -> None:
        """Learn it all, and prove what can be proven."""
        started, span = time.perf_counter(), self._span
        first, last = span.ends()
        book = self._task.output("ledger")
        for entry in ledger.read(self._kafka, book, first.offset, last.offset + 1):
            if stop():
                self._stopped = True
                break
            ranges = span.ranges(entry.record)
            if ranges == [each.range for each in entry.record.consumed]:
                self._take(entry)
            else:
                self._take_part(entry, ranges)
            on_progress(self._read, span.offsets)
        self._settle()
        if self._points:
            self._mark()
        if self._publisher:
            self._publisher.flush()
        self._seconds = time.perf_counter() - started

    def read(self, ranges: Sequence[Range]) -> Records:
        """Read raw records for both."""
        if self._read * self._points > self._span.offsets * len(self._curve):
            self._mark()
        records = self._history.read(ranges)
        self._read += len(records.offsets)
        if self._rival:
            self._rival.take(records)
        return records

    def replayed(self) -> Replayed:
        """Sum up."""
        report = self.trainer.report()
        first, last = self._span.ends()
        return Replayed(
            run=first.record.run,
            records=(
                first.record.seq,
                self._whole.record.seq if self._stopped else last.record.seq,
            ),
            events=self._events,
            refused=self._read - self._events,
            batches=self._batches,
            equal=self._equal,
            checkpoints=self._checkpoints,
            part=self.part,
            stopped=self._stopped,
            state=digest(self.trainer.snapshot().tensors()),
            seconds=self._seconds,
            published=self._publisher.published if self._publisher else 0,
            metrics={scope: report[scope] for scope in ("all", "window")},
            baselines=report["baselines"],
            comparison=compare(self._task, self._changed, report, self._rival)
            if self._changed and self._rival
            else None,
            refusals=self._refusals.all,
            warnings=tuple(self._warnings()),
            non_finite=self._normalizer.non_finite + self._replayer.non_finite,
            curve=self._curve,
        )

    def manifest(self, run: str, state: str) -> Manifest:
        """Describe the state as a checkpoint."""
        return Manifest(
            run=run,
            seq=self._whole.record.seq,
            chain=self._whole.record.chain,
            ledger_offset=self._whole.offset,
            positions=self._position.offsets,
            labels=self._position.labels,
            truth=self._position.truth if self._position.labels else None,
            reading=self._position.reading,
            counts=asdict(self._position.counts) | {"learned": self.trainer.learned},
            task=fingerprint.of_task(self._task),
            code=fingerprint.of_code(),
            state=state,
            time_ms=time.time_ns() // 1_000_000,
            topics=self._topics,
            settings=fitting(fingerprint.written(self._task)),
            fields=self._fields.state(),
        )

    def _warnings(self) -> Iterator[str]:
        """Yield what came that nobody asked for, and what was asked for and never came."""
        yield from self._refusals.warnings(self._read)
        if self._rival:
            yield from (f"changed: {line}" for line in self._rival.refusals.warnings(self._read))
        yield from self._fields.lines("event")

    def _take(self, entry: Entry) -> None:
        record = entry.record
        self._replayer.add(record)
        self._position.advance(record)
        if record.session_start and record.session_start.topics:
            self._topics = record.session_start.topics
        self._whole = entry
        proven = record.seq >= self._proven_from
        if record.consumed:
            self._batches += 1
            self._equal += proven
        said = self._span.saved.get(record.seq)
        if said and proven:
            self._settle()
            if self._replayer.state() != said:
                raise AuditError(
                    f"the state after record {record.seq} is not the one that the ledger announces "
                    "with a checkpoint, though what was said up to it is the same: the code or the "
                    "libraries are others than they were"
                )
            self._checkpoints += 1

    def _take_part(self, entry: Entry, ranges: list[Range]) -> None:
        """Learn a part of a record: no bit of a row depends on how a stream is cut."""
        self._settle()
        records = self.read(ranges)
        rows, refused = self._normalizer.normalize(records)
        rows, repeated = self.trainer.admit(rows, records.topic)
        self._refusals.add([*refused, *repeated])
        if not entry.record.reading:
            self._fields.add(records.values)
        if self._labels:  # those behind the last event are left out, as others may stand there
            between, unread = self._labels.between(rows, [entry.record])
            self._refusals.add(unread)
            between = [each for each in between if each[0] < len(rows.id)]
            self._on_learned(self.trainer.collect(self.trainer.submit(rows, between)))
        else:
            for part in split(rows, self.trainer.capacity):
                self._on_learned(self.trainer.collect(self.trainer.submit(part)))
        counts = self._position.counts
        counts.events += len(rows.id)
        counts.rejected += len(refused)
        counts.repeated += len(repeated)
        self._position.offsets.update({each.partition: each.stop for each in ranges})
        self._position.labels.update({each.partition: each.stop for each in entry.record.labels})
        self.part = entry.record.seq

    def _settle(self) -> None:
        """Wait for all that was fed; then both stand at the same event."""
        self._replayer.finish()
        if self._rival:
            self._rival.finish()

    def _mark(self) -> None:
        """Add a point to the curve."""
        self._settle()
        self._curve.append(measure(self._read, self.trainer, self._rival))

    def _on_learned(self, learned: Learned) -> None:
        self._events += len(learned.rows.id)
        if self._rival:
            self._rival.other(learned)
        elif self._publisher:
            self._publisher.put(self.trainer, learned)

    def _on_other(self, learned: Learned) -> None:
        if self._publisher and self._rival:
            self._publisher.put(self._rival.trainer, learned)
