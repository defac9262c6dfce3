"""The loop of `headrace learn`: take, predict, learn, publish, and know what is certain."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import msgspec

from headrace.stream.events import DeadLetter, DriftAlarm
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.ledger.ledger import Consumed, Fields, Ledger
from headrace.stream.ledger.position import Offsets, Position
from headrace.stream.process.failpoint import failpoint
from headrace.stream.process.garbage import tune_memory
from headrace.stream.process.watchdog import Watchdog
from headrace.stream.rows.absent import Absent
from headrace.stream.rows.late import Truth, by_arrival, placed
from headrace.stream.rows.refusals import Refusals, literals_told
from headrace.stream.rows.rows import Rows, rows_of
from headrace.stream.service.checkpointer import Checkpointer
from headrace.stream.service.label_source import NO_LABELS, LabelBatch, LabelSource
from headrace.stream.service.progress import Measure, Progress
from headrace.stream.service.publisher import (
    Output,
    Publisher,
    digest_of,
    expired,
    partitions_beside,
)
from headrace.stream.service.releaser import Releaser
from headrace.stream.service.row_source import MicroBatch, RowSource
from headrace.stream.service.tracing import Step, Tracing
from headrace.stream.task import Task
from headrace.stream.training.late_labels import account
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer

IDLE_S = 0.1
GROUP_S = 0.1  # while a backlog waits, what one transaction may take; as in Kafka Streams
PASS_OVER_S = 5.0
HURRY_S, STEP_S = 3.0, 0.1  # of an end that was asked for
PATIENCE_S = 60.0


class Work(NamedTuple):
    """Hold a micro-batch between its submission and its publication."""

    taken: MicroBatch
    labels: list[Range]  # of the labels topic
    rows: Rows
    letters: list[DeadLetter]
    repeated: int
    truth: Truth
    pending: Pending | None  # None without rows
    position: str  # digest of where the learner stands after it
    steps: list[Step] | None  # taken of it so far, for spans


class Service:
    """Predict, learn and publish micro-batch by micro-batch; `start_service` makes one.

    Args:
        specs: of the task's topics that it reads or writes.
        partitions: that outputs have which go beside their event.
        labels: where late labels come from, None if they come with their events.
        micro_batch: most events that are taken at a time.
        position: where it stands; it moves on from there.
        ledger: of which the start of this session is the last record.
        on_progress: called about once a second.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        *,
        specs: Sequence[TopicSpec],
        partitions: int,
        trainer: Trainer,
        micro_batch: int,
        position: Position,
        source: RowSource,
        labels: LabelSource | None,
        ledger: Ledger,
        publisher: Publisher,
        checkpointer: Checkpointer,
        releaser: Releaser,
        tracing: Tracing,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._task, self._kafka, self._specs = task, kafka, specs
        self._partitions, self._trainer, self._position = partitions, trainer, position
        self._most = micro_batch
        self._source, self._labels = source, labels
        self._ledger, self._publisher = ledger, publisher
        self._checkpointer, self._releaser = checkpointer, releaser
        self._on_progress, self._tracing = on_progress, tracing
        self._no_rows = rows_of(task, [], [])
        self._encode = msgspec.json.Encoder().encode
        self._measure = Measure(trainer, position, source, labels, checkpointer)
        self._work: Work | None = None
        self._passed_s = -math.inf  # a loss that was accepted is written down at once
        self.refusals = Refusals(task, topic=True)  # of this session
        self._absent = Absent(task)  # of this session
        self._seq = ledger.seq  # of the batch that is submitted next

    def run(self, *, drain: bool, stop: Callable[[], bool]) -> Progress:
        """Loop: XLA works on batch k while k - 1 is published, k - 2 committed, k + 1 decoded."""
        tune_memory()
        ends = self._ends() if drain or self._labels else None
        self._history = ends if self._labels else None
        with Watchdog(PATIENCE_S) as watchdog:
            while not stop():
                watchdog.alive("reading")
                steps = self._tracing.begin()
                taken, labels = self._take()
                failpoint("taken")
                work = self._submit(taken, labels, steps) if taken or labels else None
                if self._work:
                    watchdog.alive(f"publishing record {self._ledger.seq}")
                    self._publish(self._work)
                elif work is None:
                    self._idle()
                self._work = work
                self._commit()
                if drain and ends and not self._work and self._reached(ends):
                    break
            return self._end(watchdog, hurry=stop())

    def remarks(self) -> list[str]:
        """Return a line for each thing to know at the end of the session, beside `refusals`.

        These are NaN and Infinity that were read as missing, fields that came in mid-stream and
        that the task does not read, and those that it reads and that no event has.
        """
        new = self._source.fields.lines("event")
        literals = self._source.non_finite + (self._labels.non_finite if self._labels else 0)
        return [*literals_told(literals), *new, *self._absent.lines()]

    def _ends(self) -> tuple[Offsets, Offsets]:
        """Ask where the topics end now: that of events, and that of labels."""
        return self._source.ends(), self._labels.ends() if self._labels else {}

    def _reached(self, ends: tuple[Offsets, Offsets]) -> bool:
        events, labels = ends
        return self._source.reached(events) and (not self._labels or self._labels.reached(labels))

    def _take(self) -> tuple[MicroBatch | None, LabelBatch | None]:
        """Take events, and the labels that came before the next ones.

        What was there at the start is history, in which neither runs ahead of the other.
        """
        most = self._most
        taken = self._source.take(most, 0 if self._work else IDLE_S)
        if not self._labels:
            return taken, None
        labels = self._labels.take(
            taken.newest_ms if taken else 0,
            self._source.complete_ms,
            most,
            history=self._history is not None,
        )
        if self._history and self._reached(self._history):
            self._history = None
        return taken, labels

    def _submit(
        self, taken: MicroBatch | None, labels: LabelBatch | None, steps: list[Step] | None
    ) -> Work:
        taken, late = taken or MicroBatch([], self._no_rows, [], 0), labels or NO_LABELS
        self._make_room(taken)
        rows, repeated = self._trainer.admit(taken.rows, self._task.input.topic)
        if self._labels:
            rows = by_arrival(rows)
        between = placed(rows, late.labels, late.arrived_ms)
        pending = self._trainer.submit(rows, between) if rows.id or between else None
        joined = pending.joined if pending else None
        truth = account(joined, late.letters)
        failpoint("submitted")
        for each in taken.ranges:
            self._position.offsets[each.partition] = each.stop
        self._position.reading.update(taken.reading)
        counts = self._position.counts
        counts.events += len(rows.id)
        counts.rejected += taken.rejected
        counts.repeated += len(repeated)
        counts.duplicates += taken.duplicates
        counts.healed += taken.healed
        self._position.labels.update({each.partition: each.stop for each in late.ranges})
        self._position.truth.add(truth)
        if self._checkpointer.is_due(self._position):
            self._save(self._seq)
        if self._releaser.is_due(self._position):
            self._releaser.stage(self._seq, self._trainer.snapshot(), self._position)
        self._seq += 1
        unmet = joined.letters if joined else []
        letters = [*taken.letters, *repeated, *late.letters, *unmet]
        self.refusals.add(letters)
        if not self._labels:  # else the target's field is rightly empty
            self._absent.add(rows)
        stands = self._position.digest()
        return Work(taken, late.ranges, rows, letters, len(repeated), truth, pending, stands, steps)

    def _make_room(self, taken: MicroBatch) -> None:
        """Return outputs the partitions that the raw topic got meanwhile."""
        if any(each.partition >= self._partitions for each in taken.ranges):
            topics = self._kafka.prepare(self._specs)
            self._partitions = partitions_beside(self._specs, topics)
            self._publisher.refresh(spec.name for spec in self._specs if spec.beside)

    def _save(self, seq: int) -> None:
        """Keep the state that is reached with record `seq`, for a checkpoint."""
        self._position.fields = self._source.fields.state()
        self._checkpointer.stage(seq, self._trainer.snapshot(), self._position)

    def _publish(self, work: Work) -> None:
        """Write what came of a micro-batch, and its record, into one transaction."""
        taken, rows = work.taken, work.rows
        learned = self._trainer.collect(work.pending) if work.pending else None
        self._tracing.learned(work.steps)
        lines = self._trainer.predictions(learned) if learned else []
        predictions = list(map(self._encode, lines))
        drift = learned.drift if learned else []
        used: dict[int, int] = {}
        for partition in rows.partition:
            used[partition] = used.get(partition, 0) + 1
        letters = list(map(self._encode, work.letters))
        self._publisher.write(
            [
                *self._metrics(),
                Output("predictions", predictions, rows.key, rows.partition),
                Output("drift", list(map(self._encode, drift))),
                Output(
                    "dead-letter",
                    letters,
                    [letter.key for letter in work.letters],
                    [letter.partition % self._partitions for letter in work.letters],
                ),
                *expired(work.pending, self._trainer),
            ],
            consumed=tuple(Consumed(*each, used.get(each.partition, 0)) for each in taken.ranges),
            predicted=len(predictions),
            rejected=taken.rejected,
            repeated=work.repeated,
            duplicates=taken.duplicates,
            healed=taken.healed,
            dead_letters=len(letters),
            alarms=sum(isinstance(each, DriftAlarm) for each in drift),
            output_digest=learned.outcome() if learned and lines else "",
            predictions=digest_of(predictions, rows.partition) if predictions else "",
            labels=tuple(work.labels),
            truth=work.truth if self._labels else None,
            reading=taken.reading,
            saved=self._checkpointer.pop_saved(),
            position=work.position,
        )
        self._tracing.published(work.steps, self._ledger.seq - 1, len(predictions))

    def _commit(self) -> None:
        """Begin to end the transaction that is open; a backlog may put more into it first."""
        behind = self._work is not None and self._source.lag() >= self._most
        if not behind or self._publisher.age_s >= GROUP_S:
            self._publisher.commit()

    def _idle(self) -> None:
        """Look after what is under way while there is nothing to publish."""
        if not self._publisher.settled:
            return
        self._publisher.await_commit()
        saved, metrics = self._checkpointer.pop_saved(), self._metrics()
        passed, labels = self._pass_over()
        if saved or passed or labels:
            self._note(metrics, consumed=passed, labels=labels, saved=saved)
        elif metrics:
            self._publisher.send(metrics)
        elif self._checkpointer.is_due(self._position):
            self._save(self._ledger.seq - 1)
            self._checkpointer.on_confirmed(self._publisher.last)
        elif self._releaser.is_due(self._position):
            self._release()

    def _release(self) -> None:
        """Release the state of now, unless it is; the last record is certain."""
        if self._releaser.is_stale(self._position) and not self._releaser.busy:
            self._releaser.stage(self._ledger.seq - 1, self._trainer.snapshot(), self._position)
            self._releaser.on_confirmed(self._publisher.last)

    def _pass_over(self) -> tuple[tuple[Consumed, ...], tuple[Range, ...]]:
        """Move on behind offsets that hold nothing, every PASS_OVER_S of a quiet stream.

        Retention moves a topic's beginning behind them: it must not seem to have taken an event.
        """
        if time.monotonic() - self._passed_s < PASS_OVER_S:
            return (), ()
        self._passed_s = time.monotonic()
        passed = self._source.pass_over()
        for each in passed:
            self._position.offsets[each.partition] = each.stop
        labels = tuple(self._labels.pass_over()) if self._labels else ()
        self._position.labels.update({each.partition: each.stop for each in labels})
        return tuple(Consumed(*each, 0) for each in passed), labels

    def _note(self, outputs: Sequence[Output] = (), **fields: Unpack[Fields]) -> None:
        """Write a record of no micro-batch; nothing may be submitted and not published."""
        fields["position"] = self._position.digest()
        self._publisher.write(outputs, **fields)
        self._seq = self._ledger.seq

    def _await(self, writer: Checkpointer | Releaser, watchdog: Watchdog, give_up_s: float) -> None:
        while writer.busy and time.monotonic() < give_up_s:
            watchdog.alive("writing the last state")
            writer.finish(STEP_S)

    def _metrics(self, *, last: bool = False) -> list[Output]:
        """Measure and tell, when it is time to; publish the measure if there is anything new."""
        if not self._measure.is_due and not last:
            return []
        progress, new = self._measure.take(self._ledger.seq - 1)
        self._progress = progress
        if not last:
            self._on_progress(progress)
        return [Output("metrics", [self._encode(progress.as_json())])] if new else []

    def _end(self, watchdog: Watchdog, *, hurry: bool) -> Progress:
        """Publish and release what is left, and leave a checkpoint that the ledger knows of.

        Whoever is told to end is in a hurry: what takes longer is left out, and the next start
        learns again what came after the checkpoint before.
        """
        give_up_s = time.monotonic() + (HURRY_S if hurry else math.inf)
        watchdog.alive("ending")
        if self._work:
            self._publish(self._work)
        self._publisher.commit()
        self._publisher.await_commit()
        self._release()  # while the checkpoint is written
        self._await(self._checkpointer, watchdog, give_up_s)
        if self._checkpointer.is_stale(self._position) and not self._checkpointer.busy:
            self._save(self._ledger.seq - 1)
            self._checkpointer.on_confirmed(self._publisher.last)
            self._await(self._checkpointer, watchdog, give_up_s)
        self._await(self._releaser, watchdog, give_up_s)
        self._release()  # what is served then is where learning ended
        self._await(self._releaser, watchdog, give_up_s)
        metrics, saved = self._metrics(last=True), self._checkpointer.pop_saved()
        if metrics or saved:
            self._note(metrics, saved=saved)
            self._publisher.commit()
            self._publisher.await_commit()
        self._on_progress(self._progress)
        return self._progress
