"""Publish events to a topic, and account for every one of them.

The idempotent producer of kafka-python 3.0 dies for good when the broker refuses one record, and
takes the records around it along. So what is not acknowledged goes again through a new producer,
in order and with the same ids, in halves until a refused record is alone and can be named.
A record whose acknowledgement was lost may so be in the topic twice: readers drop the second by id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, cast

from kafka.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.producer.future import FutureProduceResult

from headrace.producers.connection import MOST_RECORD_BYTES, Connection
from headrace.producers.delivery import NAMED_ERRORS, Delivery, Progress
from headrace.producers.late_labels import LateLabels
from headrace.producers.pace import Pace, Rate, Speed, paced
from headrace.producers.sources import Event
from headrace.stream.errors import BrokerError, UsageError
from headrace.stream.kafka.connection import KafkaConnection

_BATCH_EVENTS = 1024
# kafka-python takes 1-2 ms of CPU a request, so a slow stream waits a moment for company.
_COMPANY_EVENTS = 100
_LINGER_S = 0.05
_IN_FLIGHT_BYTES = 8 << 20
_LOOK_EVERY_S = 0.1
_ATTEMPTS = 3
_RECORD_REFUSED = (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)


def publish(
    events: Iterable[Event],
    *,
    kafka: KafkaConnection,
    topic: str,
    rate: float | None = None,
    speed: float | None = None,
    limit: int | None = None,
    labels: LateLabels | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    delivery_timeout_s: float = 120.0,  # Kafka's own
) -> Delivery:
    """Send events to an existing topic, keys deciding the partition as in Java's client.

    Order is kept within a partition. Records carry the time of sending: with event times of years
    ago, Kafka's retention would delete them at once. Paced events wait up to 50 ms until a hundred
    are together. At most 8 MiB are in flight.

    Args:
        rate: events per second; None for as fast as acknowledgements come.
        speed: event seconds per second; needs event times, and excludes `rate`.
        limit: take so many events at most.
        labels: takes the label out of each event, and says when it goes to its topic; those that
            are still to come at the end go then. They count as events do.
        on_progress: called about ten times a second, and at the end.
        stop: once it returns True, no event is taken any more; what is in flight is waited for.
        delivery_timeout_s: how long a record may stay unacknowledged, retries included. After
            that it counts as failed, and no further events are taken.

    Raises:
        BrokerError: no broker answers at the start.
        HeadraceError: there is no such topic.
        UsageError: `rate` and `speed` together, or an event without time and `speed`.
    """
    pace = _pace(rate, speed)
    outbox = _Outbox(kafka, topic, delivery_timeout_s)
    late = _Outbox(kafka, labels.topic, delivery_timeout_s) if labels else None
    boxes = [outbox, late] if late else [outbox]
    tell = on_progress or (lambda progress: None)
    looked_s = time.monotonic()

    def look() -> None:
        nonlocal looked_s
        if time.monotonic() - looked_s >= _LOOK_EVERY_S:
            looked_s = time.monotonic()
            ship()
            tell(outbox.progress())

    def ship() -> float:
        linger_s = min([each.ship_due() for each in boxes])
        for each in boxes:
            each.await_commit()
        return linger_s

    def idle(seconds: float) -> None:
        linger_s = ship()
        look()
        time.sleep(min(seconds, linger_s))

    try:
        for event in _taken(islice(events, limit), pace, idle, stop):
            if labels and late:
                before, event, behind = labels.split(event)
                for label in before:
                    late.put(label)
                outbox.put(event)
                for label in behind:
                    late.put(label)
            else:
                outbox.put(event)
            look()
            if any(each.gave_up for each in boxes):
                break
        else:
            if labels and late:
                for label in labels.rest():
                    late.put(label)
    finally:
        for each in boxes:
            each.close()
        tell(outbox.progress())
    done = outbox.delivery()
    return done.beside(late.delivery()) if late else done


def _pace(rate: float | None, speed: float | None) -> Pace | None:
    if rate is not None and speed is not None:
        raise UsageError(f"rate {rate:g} and speed {speed:g} exclude each other: give one")
    if speed is not None:
        return Speed(speed)
    return Rate(rate) if rate is not None else None


def _taken(
    events: Iterable[Event],
    pace: Pace | None,
    idle: Callable[[float], None],
    stop: Callable[[], bool],
) -> Iterator[Event]:
    if pace is not None:
        events = paced(events, pace, clock_ns=time.monotonic_ns, sleep_s=idle, stop=stop)
    for event in events:
        if stop():
            return
        yield event


class _Batch(NamedTuple):
    partition: int
    events: list[Event]
    size_bytes: int
    deadline_s: float  # the producer's own timeout fails to come while it seeks a broker
    future: FutureProduceResult

    def is_over(self) -> bool:
        return bool(self.future.is_done) or time.monotonic() >= self.deadline_s

    def wait(self) -> None:
        self.future.wait(max(0.0, self.deadline_s - time.monotonic()))

    def error(self) -> Exception | None:
        """Tell why the batch is not acknowledged; a record that is refused comes before the rest,
        which only share its fate."""
        if not self.future.is_done:
            return cast(Exception, KafkaTimeoutError("no answer from the broker"))
        error_of: Callable[[int], Exception] | None = self.future.value[2]
        if error_of is None:
            return None
        errors = [error_of(i) for i in range(len(self.events))]
        return min(errors, key=lambda error: not isinstance(error, _RECORD_REFUSED))


class _Outbox:
    """The events that are open or in flight, and the account of all that were put in."""

    def __init__(self, kafka: KafkaConnection, topic: str, timeout_s: float) -> None:
        self._connection = Connection(kafka, topic, timeout_s)
        self._timeout_s = timeout_s + 1
        partitions = range(self._connection.partitions)
        self._open: list[list[Event]] = [[] for _ in partitions]
        self._open_bytes = [0 for _ in partitions]
        self._in_flight: deque[_Batch] = deque()
        self._in_flight_bytes = 0
        self._sent = self._acknowledged = self._failed = 0
        self._errors: list[str] = []
        self._start_s = self._shipped_s = time.monotonic()
        self._producer_is_dead = False
        self.gave_up: Exception | None = None

    def put(self, event: Event) -> None:
        """Take one event; wait only while too much is in flight."""
        connection = self._connection
        partition = connection.partition(event.key, self._sent)
        self._sent += 1
        size_bytes = len(event.value) + len(event.key or b"")
        if size_bytes > connection.event_bytes:
            # Told here, because a producer does not survive what the broker refuses.
            limit_bytes = connection.event_bytes
            self._fail(event, f"{size_bytes} bytes, more than the topic takes ({limit_bytes})")
            return
        size_bytes += MOST_RECORD_BYTES
        events = self._open[partition]
        full = self._open_bytes[partition] + size_bytes > connection.batch_bytes
        if events and (full or len(events) == _BATCH_EVENTS):
            self._ship(partition)
            events = self._open[partition]
        events.append(event)
        self._open_bytes[partition] += size_bytes

    def ship(self) -> None:
        """Send what is open."""
        self._shipped_s = time.monotonic()
        for partition, events in enumerate(self._open):
            if events:
                self._ship(partition)

    def ship_due(self) -> float:
        """Send what is open, if enough or for long enough; return how long it may still wait."""
        wait_s = self._shipped_s + _LINGER_S - time.monotonic()
        if wait_s > 0 and sum(map(len, self._open)) < _COMPANY_EVENTS:
            return wait_s
        self.ship()
        return float("inf")

    def await_commit(self) -> None:
        """Account for what has been answered, oldest first, without waiting."""
        while self._in_flight and self._in_flight[0].is_over():
            self._settle_oldest()

    def close(self) -> None:
        """Wait until everything is acknowledged or has failed, then disconnect."""
        try:
            self.ship()
            while self._in_flight:
                self._settle_oldest()
        finally:
            self._connection.close()

    def progress(self) -> Progress:
        seconds = time.monotonic() - self._start_s
        return Progress(self._sent, self._acknowledged, self._failed, seconds)

    def delivery(self) -> Delivery:
        seconds = time.monotonic() - self._start_s
        errors = tuple(self._errors)
        return Delivery(self._sent, self._acknowledged, self._failed, seconds, errors)

    def _ship(self, partition: int) -> None:
        while self._in_flight and self._in_flight_bytes > _IN_FLIGHT_BYTES:
            self._settle_oldest()
        events, size_bytes = self._open[partition], self._open_bytes[partition]
        self._open[partition], self._open_bytes[partition] = [], 0
        if self._producer_is_dead:
            self._redeliver(partition, events)
            return
        self._in_flight.append(self._send(partition, events, size_bytes))
        self._in_flight_bytes += size_bytes

    def _send(self, partition: int, events: list[Event], size_bytes: int = 0) -> _Batch:
        future = self._connection.send(partition, events)
        return _Batch(partition, events, size_bytes, time.monotonic() + self._timeout_s, future)

    def _settle_oldest(self) -> None:
        batch = self._in_flight[0]
        batch.wait()
        if batch.error() is not None:
            self._recover()
            return
        self._in_flight.popleft()
        self._in_flight_bytes -= batch.size_bytes
        self._acknowledged += len(batch.events)

    def _recover(self) -> None:
        """Bring all that is in flight to an end, because one batch of it has failed."""
        batches = list(self._in_flight)
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._producer_is_dead = True
        for batch in batches:
            batch.wait()
            error = batch.error()
            if error is None:
                self._acknowledged += len(batch.events)
            elif isinstance(error, KafkaTimeoutError):
                self._give_up(batch.events, error)
            else:
                self._redeliver(batch.partition, batch.events)

    def _redeliver(self, partition: int, events: list[Event], attempt: int = 1) -> None:
        """Send events alone, halved as long as the broker refuses them, until each has ended."""
        error = self.gave_up or self._send_alone(partition, events)
        if error is None:
            self._acknowledged += len(events)
        elif isinstance(error, _RECORD_REFUSED) and len(events) == 1:
            self._fail(events[0], error)
        elif isinstance(error, _RECORD_REFUSED):
            middle = len(events) // 2
            self._redeliver(partition, events[:middle])
            self._redeliver(partition, events[middle:])
        elif isinstance(error, KafkaTimeoutError | BrokerError) or attempt == _ATTEMPTS:
            self._give_up(events, error)
        else:
            self._redeliver(partition, events, attempt + 1)

    def _send_alone(self, partition: int, events: list[Event]) -> Exception | None:
        if self._producer_is_dead:
            try:
                self._connection.renew()
            except BrokerError as unreachable:
                return unreachable
        batch = self._send(partition, events)
        batch.wait()
        error = batch.error()
        self._producer_is_dead = error is not None
        return error

    def _give_up(self, events: list[Event], error: Exception) -> None:
        self.gave_up = self.gave_up or error
        for event in events:
            self._fail(event, error)

    def _fail(self, event: Event, reason: Exception | str) -> None:
        self._failed += 1
        if len(self._errors) < NAMED_ERRORS:
            text = _in_words(reason) if isinstance(reason, KafkaError) else reason
            self._errors.append(f"{event.id}: {text}")


def _in_words(error: KafkaError) -> str:
    said = error.args[0] if error.args else None
    detail = said or getattr(error, "description", "")
    return f"{type(error).__name__}: {detail}".removesuffix(": ")
