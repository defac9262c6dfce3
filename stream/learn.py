"""The service loop of `headrace learn`: take, predict, learn, publish, and know what is certain."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import msgspec

from stream import fingerprint, recovery
from stream.collector import tune_memory
from stream.errors import FencedError
from stream.events import DeadLetter, DriftAlarm
from stream.failpoint import failpoint
from stream.intake import FromEvents, FromFeatures, Intake, Place, Taken
from stream.ledger import Consumed, Ledger, Opening
from stream.normalize import Rows
from stream.publisher import Output, Publisher
from stream.saver import Saver
from stream.task import Task
from stream.trainer import Pending, Trainer
from stream.transactions import Transactions
from stream.watchdog import Watchdog

METRICS_EVERY_S = 1.0
IDLE_S = 0.1
GROUP_S = 0.1  # while a backlog waits, what one transaction may take; as in Kafka Streams
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


@dataclass(frozen=True)
class Progress:
    """Say how far a learner is; counts are of the whole run, restarts included."""

    events: int  # predicted
    rejected: int  # refused by the normaliser
    repeated: int  # refused here: their id came a short while before, or their class finds no room
    duplicates: int  # features that came twice and were dropped
    healed: int  # events whose features never came, normalised by the learner
    lag: int
    events_per_second: float
    record: int  # of the ledger, the last one written
    checkpoint_age_s: float | None
    report: dict[str, Any]


class Work(NamedTuple):
    """Hold a micro-batch between its submission and its publication."""

    taken: Taken
    rows: Rows
    letters: list[DeadLetter]
    repeated: int
    pending: Pending | None  # None without rows


def learn(
    task: Task,
    bootstrap: str,
    *,
    origin: Origin,
    safety: Safety,
    micro_batch: int = 4096,
    drain: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_ready: Callable[[], None] = lambda: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Progress:
    """Learn from a topic until told to stop, exactly once, and publish what is predicted.

    Goes on where the task's ledger ends, with the state that it had there, bit for bit.

    Args:
        origin: `features` as made by the normaliser, or raw `events` normalised here.
        micro_batch: most events handled at a time; changes speed, never a prediction.
        drain: stop at what is now the end of the topic.
        on_progress: called about once a second.
        on_note: called with a line for a person: how it goes on, what went wrong beside.

    Raises:
        BrokerError: no broker, or a topic is missing.
        RecoveryError: the state of the ledger's tip cannot be had again.
        DoubtError, FencedError: what was written is not certain, or is another's to write.
    """
    tune_memory()  # history is learned again at once
    with ExitStack() as stack:
        service = Service(task, bootstrap, origin, safety, micro_batch, on_progress, on_note, stack)
        on_ready()
        return service.run(drain=drain, stop=stop)


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
        stack: ExitStack,
    ) -> None:
        self._task, self._on_progress = task, on_progress
        self._encode = msgspec.json.Encoder().encode
        pool = stack.enter_context(ThreadPoolExecutor(1, "compile"))
        trainer = pool.submit(Trainer, task, micro_batch)  # compiles while Kafka is asked
        run = recovery.run_of(task, bootstrap, from_scratch=safety.from_scratch)
        checkpoints = recovery.open_checkpoints(task, safety.place, run, safety.key)
        stack.enter_context(checkpoints.lock())
        transactions = Transactions(bootstrap, f"{task.name}.learn")
        stack.callback(transactions.close)
        failpoint("fenced")
        # Only now that nobody else can write, what the ledger says is the last word.
        found, self._trainer, recomputed = recovery.come_back(
            task,
            bootstrap,
            checkpoints,
            run,
            trainer=trainer,
            accept_recompute=safety.accept_recompute,
            on_note=on_note,
        )
        if found.new and found.tip and not safety.from_scratch:
            raise FencedError(f"another learner of {task.name} began at this moment; start again")
        failpoint("recovered")
        self._positions, self._reading = found.positions, found.reading
        starts = recovery.reach(task, bootstrap, self._positions, accept_loss=safety.accept_loss)
        self._intake: Intake = (
            FromFeatures(task, bootstrap, self._positions, starts, self._reading)
            if origin == "features"
            else FromEvents(task, bootstrap, self._positions, starts)
        )
        stack.callback(self._intake.close)
        self._counts = found.counts
        self._reported = (time.monotonic(), found.counts.events)
        saved = found.manifest.counts["events"] if found.manifest else 0
        self._saver = Saver(checkpoints, fingerprint.of_task(task), saved, on_note)
        stack.callback(self._saver.finish)
        self._ledger = Ledger(bootstrap, task.output("ledger"), found.tip, found.run)
        stack.callback(self._ledger.close)
        self._publisher = Publisher(task, transactions, self._ledger, self._saver.confirmed)
        self._work: Work | None = None
        self._open(new=found.new, begins=dict(found.positions), recomputed=recomputed)

    def run(self, *, drain: bool, stop: Callable[[], bool]) -> Progress:
        """Loop: XLA works on batch k while k - 1 is published, k - 2 committed, k + 1 decoded."""
        tune_memory()
        ends = self._intake.ends() if drain else None
        with Watchdog(PATIENCE_S) as watchdog:
            while not stop():
                watchdog.alive("reading")
                taken = self._intake.take(self._trainer.capacity, 0 if self._work else IDLE_S)
                failpoint("taken")
                work = self._submit(taken) if taken else None
                if self._work:
                    watchdog.alive(f"publishing record {self._ledger.seq}")
                    self._publish(self._work)
                else:
                    self._idle()
                self._work = work
                self._commit()
                if ends and not self._work and self._intake.reached(ends):
                    break
            watchdog.alive("ending")
            return self._end()

    def _open(self, *, new: bool, begins: Place, recomputed: tuple[int, int] | None) -> None:
        """Write who learns from here on; certain before the first event is taken."""
        opening = Opening(
            task=fingerprint.of_task(self._task),
            code=fingerprint.of_code(),
            version=version("headrace"),
            settings=fingerprint.settings_of(self._task) if new else None,
            begins=begins if new else None,
            recomputed=recomputed,
        )
        self._publisher.write(opening=opening)
        self._publisher.commit()
        self._publisher.settle()
        self._seq = self._ledger.seq  # of the batch that is submitted next

    def _submit(self, taken: Taken) -> Work:
        rows, repeated = self._trainer.admit(taken.rows, self._task.input.topic)
        pending = self._trainer.submit(rows) if rows.id else None
        failpoint("submitted")
        for each in taken.ranges:
            self._positions[each.partition] = each.stop
        self._reading.update(taken.reading)
        self._counts = replace(
            self._counts,
            events=self._counts.events + len(rows.id),
            rejected=self._counts.rejected + taken.rejected,
            repeated=self._counts.repeated + len(repeated),
            duplicates=self._counts.duplicates + taken.duplicates,
            healed=self._counts.healed + taken.healed,
        )
        if self._saver.due(self._counts.events):
            self._save(self._seq)
        self._seq += 1
        return Work(taken, rows, [*taken.letters, *repeated], len(repeated), pending)

    def _save(self, seq: int) -> None:
        """Keep the state that is reached with record `seq`, for a checkpoint."""
        snapshot = self._trainer.snapshot()
        self._saver.take(seq, snapshot, self._positions, self._reading, self._counts)

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
            used=len(predictions),
            rejected=taken.rejected,
            repeated=work.repeated,
            duplicates=taken.duplicates,
            healed=taken.healed,
            letters=len(letters),
            alarms=sum(isinstance(each, DriftAlarm) for each in drift),
            outcome=learned.outcome() if learned else "",
            predictions=sha256(b"".join(predictions)).hexdigest() if predictions else "",
            reading=taken.reading,
            saved=self._saver.news(),
        )

    def _commit(self) -> None:
        """Begin to end the transaction that is open; a backlog may put more into it first."""
        behind = self._work is not None and self._intake.lag() >= self._trainer.capacity
        if not behind or self._publisher.age_s >= GROUP_S:
            self._publisher.commit()

    def _idle(self) -> None:
        """Look after what is under way while there is nothing to publish."""
        if self._publisher.settled:
            self._publisher.settle()
            if metrics := self._metrics():
                self._publisher.send(metrics)

    def _metrics(self, *, last: bool = False) -> list[Output]:
        """Measure and tell, when it is time to; publish the measure if there is anything new."""
        now_s, (before_s, events) = time.monotonic(), self._reported
        if now_s - before_s < METRICS_EVERY_S and not last:
            return []
        self._reported = (now_s, self._counts.events)
        age_s = self._saver.age_s
        self._progress = Progress(
            **asdict(self._counts),
            lag=self._intake.lag(),
            events_per_second=(self._counts.events - events) / max(now_s - before_s, 1e-9),
            record=self._ledger.seq - 1,
            checkpoint_age_s=None if age_s is None else round(age_s, 1),
            report=self._trainer.report(),
        )
        if not last:
            self._on_progress(self._progress)
        if self._counts.events == events:
            return []
        record = asdict(self._progress) | {
            "time_ms": time.time_ns() // 1_000_000,
            "learned": self._trainer.learned,
            "events_per_second": round(self._progress.events_per_second, 1),
        }
        return [Output("metrics", [self._encode(record | record.pop("report"))])]

    def _end(self) -> Progress:
        """Publish what is left, and leave a checkpoint that the ledger knows of."""
        if self._work:
            self._publish(self._work)
        self._publisher.commit()
        self._publisher.settle()
        self._saver.finish()
        if self._saver.stale(self._counts.events):
            self._save(self._ledger.seq - 1)
            self._saver.confirmed(self._publisher.last)
            self._saver.finish()
        metrics, saved = self._metrics(last=True), self._saver.news()
        if metrics or saved:
            self._publisher.write(metrics, saved=saved)
            self._publisher.commit()
            self._publisher.settle()
        self._on_progress(self._progress)
        return self._progress
