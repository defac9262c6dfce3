"""Learn a part of the ledger again, record by record, and prove it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict

from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.audit.history_rival import HistoryRival
from headrace.stream.audit.paced_publisher import PacedPublisher
from headrace.stream.audit.replay_range import ReplayRange
from headrace.stream.audit.replayed import Replayed
from headrace.stream.errors import AuditError
from headrace.stream.evaluation.plot import Point, measure
from headrace.stream.events import Records
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, Range, TopicHistory
from headrace.stream.kafka.watch import other_topic
from headrace.stream.ledger import fingerprint, ledger
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.ledger.manifest import Manifest, fitting
from headrace.stream.rows.label_delay import LabelDelay
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.refusals import Refusals
from headrace.stream.rows.rows import split
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.run import begun
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.snapshot import SavedState, digest


class Relearning:
    """Learn a range of the ledger again, with a rival beside it if there is one."""

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
        label_delay: LabelDelay | None = None,
        publisher: PacedPublisher | None = None,
        points: int = 0,
    ) -> None:
        self._task, self._kafka, self._span = task, kafka, span
        self._publisher, self._points = publisher, points
        topic = task.input.topic
        inputs = [*([] if archive else [topic]), *([task.labels.topic] if task.labels else [])]
        for found in kafka.describe_existing(inputs):
            if span.topics.get(found.name, found.id) != found.id:
                raise other_topic(found.name)
        self._history: History = (
            ArchiveHistory(archive, topic) if archive else TopicHistory(kafka, topic)
        )
        stack.callback(self._history.close)
        labels = None
        if task.labels:
            labels = stack.enter_context(closing(TopicHistory(kafka, task.labels.topic)))
        self._labels = LabelHistory(task, labels) if labels else None
        opening = None if span.begin else span.opening.record
        self.trainer = begun(task, opening, start, capacity)
        self._other = (
            HistoryRival(task, kafka, span, changed, label_delay, capacity, self._on_other, stack)
            if changed
            else None
        )
        self._rival = self._other.rival if self._other else None
        _, last = span.ends()
        proven_from = last.record.seq + 1 if span.begin else span.proven_from
        self._proven_from = proven_from
        self._fields, self._refusals = NewFields(task), Refusals(task, topic=True)
        self._replayer = LedgerReplayer(
            task,
            self.trainer,
            self._history,
            labels,
            proven_from=proven_from,
            fields=self._fields,
            on_read=self._on_read,
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
        if self._other:
            self._other.finish()
        if self._points:
            self._mark()
        if self._publisher:
            self._publisher.flush()
        self._seconds = time.perf_counter() - started

    def _on_read(self, records: Records, group: Sequence[Record]) -> None:
        """Give both the same."""
        if self._read * self._points > self._span.offsets * len(self._curve):
            self._mark()
        self._read += len(records.offsets)
        if self._other:
            self._other.take(records, group)

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
            comparison=self._other.compare(report) if self._other else None,
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
        records = self._history.read(ranges)
        self._on_read(records, [entry.record])
        rows, refused = self._normalizer.normalize(records)
        rows, repeated = self.trainer.admit(rows, records.topic)
        self._refusals.add([*refused, *repeated])
        if not entry.record.reading:
            self._fields.add(records.values)
        if self._labels:  # those behind the last event are left out, as others may stand there
            rows, between, unread = self._labels.between(rows, [entry.record])
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
