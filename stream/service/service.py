"""The loop of `headrace learn`: take, predict, learn, publish, and know what is certain."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import msgspec

from headrace.stream.errors import FencedError
from headrace.stream.events import DeadLetter, DriftAlarm
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import prepare
from headrace.stream.kafka.transactions import Transactions
from headrace.stream.kafka.watch import TopicWatch
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.ledger import Consumed, Ledger, SessionStart
from headrace.stream.process.failpoint import failpoint
from headrace.stream.process.garbage import tune_memory
from headrace.stream.process.watchdog import Watchdog
from headrace.stream.rows.rows import Rows
from headrace.stream.service import plan, recovery
from headrace.stream.service.checkpointer import Checkpointer
from headrace.stream.service.progress import Progress
from headrace.stream.service.publisher import Output, Publisher
from headrace.stream.service.row_source import EventSource, FeatureSource, MicroBatch, RowSource
from headrace.stream.task import Task
from headrace.stream.training.trainer import Pending, Trainer

METRICS_EVERY_S = 1.0
IDLE_S = 0.1
GROUP_S = 0.1  # while a backlog waits, what one transaction may take; as in Kafka Streams
PASS_OVER_S = 5.0
HURRY_S, STEP_S = 3.0, 0.1  # of an end that was asked for
PATIENCE_S = 60.0

Origin = Literal["features", "events"]


@dataclass(frozen=True)
class Safety:
    """Say where checkpoints are kept, and what a start may do that cannot be undone."""

    place: str  # directory or URL
    key: bytes | None = None  # of the checkpoints' HMAC
    from_scratch: bool = False  # begin a new run in the same ledger
    accept_recompute: bool = False  # go on although history comes out otherwise
    accept_loss: bool = False  # go on although events were deleted before they were learned
    accept_new_topic: bool = False  # go on with a raw topic that was deleted and made again


class Work(NamedTuple):
    """Hold a micro-batch between its submission and its publication."""

    taken: MicroBatch
    rows: Rows
    letters: list[DeadLetter]
    repeated: int
    pending: Pending | None  # None without rows
    position: str  # digest of where the learner stands after it


class Service:
    """Hold the loop's ends: the stream it takes from, the learner, the topics it writes."""

    def __init__(
        self,
        task: Task,
        bootstrap: str,
        origin: Origin,
        safety: Safety,
        micro_batch: int,
        on_progress: Callable[[Progress], None],
        on_note: Callable[[str], None],
        stop: Callable[[], bool],
        stack: ExitStack,
    ) -> None:
        self._task, self._bootstrap, self._on_progress = task, bootstrap, on_progress
        self._encode = msgspec.json.Encoder().encode
        pool = ThreadPoolExecutor(1, "compile")
        stack.callback(pool.shutdown, wait=False)
        trainer = pool.submit(Trainer, task, micro_batch)  # compiles while Kafka is asked
        self._specs = [
            spec
            for spec in topic_specs(task)
            if origin == "features" or spec.name != task.output("features")
        ]
        found_topics = prepare(bootstrap, self._specs)
        topics = {topic.name: topic.id for topic in found_topics}
        self._partitions = min(t.partitions for t in found_topics if t.name in self._beside)
        run = plan.run_of(task, bootstrap, from_scratch=safety.from_scratch)
        checkpoints = plan.open_checkpoints(task, safety.place, run, safety.key)
        stack.enter_context(checkpoints.lock())
        outputs = [spec.name for spec in topic_specs(task)[2:]]
        transactions = Transactions(
            bootstrap, f"{task.name}.learn", topics=outputs, on_note=on_note, stop=stop
        )
        stack.callback(transactions.close)
        failpoint("fenced")
        # Only now that nobody else can write, what the ledger says is the last word.
        found, self._trainer, recomputed = recovery.recover(
            task,
            bootstrap,
            checkpoints,
            run,
            trainer=trainer,
            topics=topics,
            from_scratch=safety.from_scratch,
            accept_recompute=safety.accept_recompute,
            accept_new_topic=safety.accept_new_topic,
            on_note=on_note,
            stop=stop,
        )
        if found.new and found.tip and not safety.from_scratch:
            raise FencedError(f"another learner of {task.name} began at this moment; start again")
        failpoint("recovered")
        self._position = found.position
        offsets = self._position.offsets
        starts = recovery.readable_offsets(task, bootstrap, offsets, accept_loss=safety.accept_loss)
        watch = TopicWatch(bootstrap, task.input.topic, topics[task.input.topic])
        features = topics.get(task.output("features"), "")
        self._source: RowSource = (
            FeatureSource(task, bootstrap, offsets, starts, self._position.reading, features)
            if origin == "features"
            else EventSource(task, bootstrap, offsets, starts, watch)
        )
        stack.callback(self._source.close)
        self._reported = (time.monotonic(), self._position.counts.events)
        kept = found.manifest.position if found.manifest else None
        self._checkpointer = Checkpointer(checkpoints, task, topics, kept, on_note)
        stack.callback(self._checkpointer.finish, HURRY_S)
        self._ledger = Ledger(bootstrap, task.output("ledger"), found.tip, found.run)
        stack.callback(self._ledger.close)
        self._publisher = Publisher(
            task, transactions, self._ledger, watch, self._checkpointer.on_confirmed
        )
        self._work: Work | None = None
        self._last_report: tuple[tuple[int, int], dict[str, Any]] | None = None
        self._passed_s = -math.inf  # a loss that was accepted is written down at once
        self._seq = 0  # of the batch that is submitted next
        self._open(found, topics, recomputed)

    def run(self, *, drain: bool, stop: Callable[[], bool]) -> Progress:
        """Loop: XLA works on batch k while k - 1 is published, k - 2 committed, k + 1 decoded."""
        tune_memory()
        ends = self._source.ends() if drain else None
        with Watchdog(PATIENCE_S) as watchdog:
            while not stop():
                watchdog.alive("reading")
                taken = self._source.take(self._trainer.capacity, 0 if self._work else IDLE_S)
                failpoint("taken")
                work = self._submit(taken) if taken else None
                if self._work:
                    watchdog.alive(f"publishing record {self._ledger.seq}")
                    self._publish(self._work)
                elif work is None:
                    self._idle()
                self._work = work
                self._commit()
                if ends and not self._work and self._source.reached(ends):
                    break
            return self._end(watchdog, hurry=stop())

    def _open(
        self, found: plan.Plan, topics: dict[str, str], recomputed: tuple[int, int] | None
    ) -> None:
        """Write who learns from here on; certain before the first event is taken."""
        opening = SessionStart(
            task=fingerprint.of_task(self._task),
            code=fingerprint.of_code(),
            version=version("headrace"),
            settings=fingerprint.settings_of(self._task) if found.new else None,
            begins=dict(self._position.offsets) if found.new or found.new_topic else None,
            topics=topics,
            recomputed=recomputed,
        )
        reading = dict(self._position.reading) if found.new_features else {}
        self._note(session_start=opening, reading=reading)
        self._publisher.commit()
        self._publisher.await_commit()

    def _submit(self, taken: MicroBatch) -> Work:
        self._make_room(taken)
        rows, repeated = self._trainer.admit(taken.rows, self._task.input.topic)
        pending = self._trainer.submit(rows) if rows.id else None
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
        if self._checkpointer.is_due(self._position):
            self._save(self._seq)
        self._seq += 1
        letters = [*taken.letters, *repeated]
        return Work(taken, rows, letters, len(repeated), pending, self._position.digest())

    def _make_room(self, taken: MicroBatch) -> None:
        """Give outputs the partitions that the raw topic got meanwhile."""
        if any(each.partition >= self._partitions for each in taken.ranges):
            topics = prepare(self._bootstrap, self._specs)
            self._partitions = min(t.partitions for t in topics if t.name in self._beside)
            self._publisher.refresh(self._beside)

    @property
    def _beside(self) -> set[str]:
        """Name the outputs whose records go to the partition of their event."""
        return {spec.name for spec in self._specs if spec.beside}

    def _save(self, seq: int) -> None:
        """Keep the state that is reached with record `seq`, for a checkpoint."""
        self._checkpointer.stage(seq, self._trainer.snapshot(), self._position)

    def _publish(self, work: Work) -> None:
        """Write what came of a micro-batch, and its record, into one transaction."""
        taken, rows = work.taken, work.rows
        learned = self._trainer.collect(work.pending) if work.pending else None
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
                    [letter.partition for letter in work.letters],
                ),
            ],
            consumed=tuple(Consumed(*each, used.get(each.partition, 0)) for each in taken.ranges),
            predicted=len(predictions),
            rejected=taken.rejected,
            repeated=work.repeated,
            duplicates=taken.duplicates,
            healed=taken.healed,
            dead_letters=len(letters),
            alarms=sum(isinstance(each, DriftAlarm) for each in drift),
            output_digest=learned.outcome() if learned else "",
            predictions=sha256(b"".join(predictions)).hexdigest() if predictions else "",
            reading=taken.reading,
            saved=self._checkpointer.pop_saved(),
            position=work.position,
        )

    def _commit(self) -> None:
        """Begin to end the transaction that is open; a backlog may put more into it first."""
        behind = self._work is not None and self._source.lag() >= self._trainer.capacity
        if not behind or self._publisher.age_s >= GROUP_S:
            self._publisher.commit()

    def _idle(self) -> None:
        """Look after what is under way while there is nothing to publish."""
        if not self._publisher.settled:
            return
        self._publisher.await_commit()
        saved, metrics, passed = self._checkpointer.pop_saved(), self._metrics(), self._pass_over()
        if saved or passed:
            self._note(metrics, consumed=passed, saved=saved)
        elif metrics:
            self._publisher.send(metrics)
        elif self._checkpointer.is_due(self._position):
            self._save(self._ledger.seq - 1)
            self._checkpointer.on_confirmed(self._publisher.last)

    def _pass_over(self) -> tuple[Consumed, ...]:
        """Move on behind offsets that hold no event, every PASS_OVER_S of a quiet stream.

        Retention moves a topic's beginning behind them: it must not seem to have taken an event.
        """
        if time.monotonic() - self._passed_s < PASS_OVER_S:
            return ()
        self._passed_s = time.monotonic()
        passed = self._source.pass_over()
        for each in passed:
            self._position.offsets[each.partition] = each.stop
        return tuple(Consumed(*each, 0) for each in passed)

    def _note(self, outputs: Sequence[Output] = (), **said: Any) -> None:
        """Write a record of no micro-batch; nothing may be submitted and not published."""
        self._publisher.write(outputs, **said, position=self._position.digest())
        self._seq = self._ledger.seq

    def _await_checkpoint(self, watchdog: Watchdog, give_up_s: float) -> None:
        while self._checkpointer.busy and time.monotonic() < give_up_s:
            watchdog.alive("writing the last checkpoint")
            self._checkpointer.finish(STEP_S)

    def _metrics(self, *, last: bool = False) -> list[Output]:
        """Measure and tell, when it is time to; publish the measure if there is anything new."""
        now_s, (before_s, events) = time.monotonic(), self._reported
        if now_s - before_s < METRICS_EVERY_S and not last:
            return []
        counts = self._position.counts
        self._reported = (now_s, counts.events)
        age_s = self._checkpointer.age_s
        self._progress = Progress(
            **asdict(counts),
            lag=self._source.lag(),
            events_per_second=(counts.events - events) / max(now_s - before_s, 1e-9),
            record=self._ledger.seq - 1,
            checkpoint_age_s=None if age_s is None else round(age_s, 1),
            report=self._report(),
        )
        if not last:
            self._on_progress(self._progress)
        if counts.events == events:
            return []
        record = asdict(self._progress) | {
            "time_ms": time.time_ns() // 1_000_000,
            "learned": self._trainer.learned,
            "events_per_second": round(self._progress.events_per_second, 1),
        }
        return [Output("metrics", [self._encode(record | record.pop("report"))])]

    def _report(self) -> dict[str, Any]:
        """Give the metrics; those of before while nothing was learned."""
        learned = (self._position.counts.events, self._trainer.learned)
        if self._last_report is None or self._last_report[0] != learned:
            self._last_report = learned, self._trainer.report()
        return self._last_report[1]

    def _end(self, watchdog: Watchdog, *, hurry: bool) -> Progress:
        """Publish what is left, and leave a checkpoint that the ledger knows of.

        Whoever is told to end is in a hurry: a checkpoint that takes longer is left out, and the
        next start learns again what came after the one before.
        """
        give_up_s = time.monotonic() + (HURRY_S if hurry else math.inf)
        watchdog.alive("ending")
        if self._work:
            self._publish(self._work)
        self._publisher.commit()
        self._publisher.await_commit()
        self._await_checkpoint(watchdog, give_up_s)
        if self._checkpointer.is_stale(self._position) and not self._checkpointer.busy:
            self._save(self._ledger.seq - 1)
            self._checkpointer.on_confirmed(self._publisher.last)
            self._await_checkpoint(watchdog, give_up_s)
        metrics, saved = self._metrics(last=True), self._checkpointer.pop_saved()
        if metrics or saved:
            self._note(metrics, saved=saved)
            self._publisher.commit()
            self._publisher.await_commit()
        self._on_progress(self._progress)
        return self._progress
