"""The service loop of `headrace learn`: poll, normalise, predict, learn, publish."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from stream.events import DeadLetter, Feature, Records
from stream.kafka import Sink, Source
from stream.normalize import Normalizer, Rows, rows_of
from stream.task import Task
from stream.trainer import Learned, Pending, Trainer

METRICS_EVERY_S = 1.0
IDLE_S = 0.1


@dataclass(frozen=True)
class Progress:
    """Say how far a learner is."""

    events: int  # rows predicted
    rejected: int  # dead letters written by the learner
    duplicates: int  # features that came twice and were dropped
    lag: int
    events_per_second: float
    report: dict[str, Any]


class Intake(Protocol):
    """Turn what was polled into rows and dead letters; count what was dropped."""

    topic: str
    timestamps: bool
    duplicates: int

    def __call__(self, records: Records) -> tuple[Rows, list[DeadLetter]]: ...


class FromEvents:
    """Take raw events and normalise them here, without the intermediate topic."""

    def __init__(self, task: Task) -> None:
        self._normalizer = Normalizer(task)
        self.topic = task.input.topic
        self.timestamps = self._normalizer.needs_timestamps
        self.duplicates = 0

    def __call__(self, records: Records) -> tuple[Rows, list[DeadLetter]]:
        return self._normalizer.normalize(records)


class FromFeatures:
    """Take rows that the normaliser made; drop one that comes again, by its source offset."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._decode: Any = msgspec.msgpack.Decoder(Feature).decode
        self._next: dict[int, int] = {}
        self.topic = task.output("features")
        self.timestamps = False
        self.duplicates = 0

    def __call__(self, records: Records) -> tuple[Rows, list[DeadLetter]]:
        features = list(map(self._decode, records.values))
        fresh = []
        for place, feature in enumerate(features):
            if feature.offset >= self._next.get(feature.partition, 0):
                self._next[feature.partition] = feature.offset + 1
                fresh.append(place)
        self.duplicates += len(features) - len(fresh)
        return rows_of(
            self._task, [features[i] for i in fresh], [records.keys[i] for i in fresh]
        ), []


def learn(
    task: Task,
    bootstrap: str,
    *,
    origin: Literal["features", "events"],
    micro_batch: int = 4096,
    drain: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_ready: Callable[[], None] = lambda: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Learn from a topic until told to stop, and publish what is predicted.

    Args:
        origin: `features` as made by the normaliser, or raw `events` normalised here.
        micro_batch: most events handled at a time; changes speed, never a prediction.
        drain: stop at what is now the end of the topic.
        on_progress: called about once a second.

    Raises:
        BrokerError: no broker, or a topic is missing.
        DeliveryError: an output was not acknowledged.
    """
    service = Service(task, bootstrap, origin=origin, micro_batch=micro_batch)
    try:
        on_ready()
        return service.run(drain=drain, stop=stop, on_progress=on_progress)
    finally:
        service.close()


class Service:
    """Hold the loop's ends: the topic it reads, the learner, the topics it writes."""

    def __init__(
        self, task: Task, bootstrap: str, *, origin: Literal["features", "events"], micro_batch: int
    ) -> None:
        self._task = task
        self._intake: Intake = FromFeatures(task) if origin == "features" else FromEvents(task)
        self._trainer = Trainer(task, micro_batch)
        self._source = Source(bootstrap, self._intake.topic, timestamps=self._intake.timestamps)
        self._sink = Sink(bootstrap)
        self._encode = msgspec.json.Encoder().encode
        self._events = self._rejected = 0
        self._reported = (time.monotonic(), 0)

    def run(
        self,
        *,
        drain: bool,
        stop: Callable[[], bool],
        on_progress: Callable[[Progress], None],
    ) -> Progress:
        """Loop: while XLA works on batch k, batch k - 1 is published and batch k + 1 fetched."""
        gc.collect()
        gc.freeze()  # millions of short-lived tuples: let the collector look at them alone
        gc.set_threshold(100_000, 20, 100)
        ends = self._source.ends() if drain else None
        pending: Pending | None = None
        progress = self._progress()
        while not stop():
            records = self._source.poll(self._trainer.capacity, 0 if pending else IDLE_S)
            submitted = self._submit(records) if records else None
            if pending:
                self._publish(self._trainer.collect(pending))
            pending = submitted
            if time.monotonic() - self._reported[0] >= METRICS_EVERY_S:
                progress = self._progress()
                on_progress(progress)
            if ends and not pending and self._reached(ends):
                break
        if pending:
            self._publish(self._trainer.collect(pending))
        progress = self._progress()
        self._sink.flush()
        on_progress(progress)
        return progress

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()

    def _submit(self, records: Records) -> Pending | None:
        rows, refused = self._intake(records)
        rows, repeated = self._trainer.admit(rows, self._task.input.topic)
        if refused or repeated:
            self._bury([*refused, *repeated])
        return self._trainer.submit(rows) if rows.id else None

    def _publish(self, learned: Learned) -> None:
        encode, task = self._encode, self._task
        predictions = self._trainer.predictions(learned)
        self._sink.send(
            task.output("predictions"),
            list(map(encode, predictions)),
            keys=learned.rows.key,
            partitions=learned.rows.partition,
        )
        if learned.alarms:
            self._sink.send(task.output("drift"), list(map(encode, learned.alarms)))
        self._events += len(predictions)

    def _bury(self, letters: list[DeadLetter]) -> None:
        self._sink.send(
            self._task.output("dead-letter"),
            list(map(self._encode, letters)),
            keys=[letter.key for letter in letters],
            partitions=[letter.partition for letter in letters],
        )
        self._rejected += len(letters)

    def _progress(self) -> Progress:
        """Measure, and publish the measure to `<task>.metrics`."""
        now, (before, events) = time.monotonic(), self._reported
        self._reported = (now, self._events)
        progress = Progress(
            events=self._events,
            rejected=self._rejected,
            duplicates=self._intake.duplicates,
            lag=self._source.lag(),
            events_per_second=(self._events - events) / max(now - before, 1e-9),
            report=self._trainer.report(),
        )
        if self._events > events:
            record = {
                "time_ms": time.time_ns() // 1_000_000,
                "events": progress.events,
                "learned": self._trainer.learned,
                "rejected": progress.rejected,
                "duplicates": progress.duplicates,
                "lag": progress.lag,
                "events_per_second": round(progress.events_per_second, 1),
                **progress.report,
            }
            self._sink.send(self._task.output("metrics"), [self._encode(record)])
        return progress

    def _reached(self, ends: dict[int, int]) -> bool:
        return all(self._source.position[p] >= end for p, end in ends.items())
