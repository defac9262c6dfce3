"""What goes on around a learner: events that keep coming, and a reader who watches what appears."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.labels import LATER, bare, late_label, partition_of
from tests.support.events import POISON, good

SPOILED = [raw for raw, _ in POISON.values()]


def mixed(number: int) -> bytes | None:
    """Make event `number`: 1 in 50 a poison, 1 in 97 with the id of the one four before."""
    if number % 50 == 7:
        return SPOILED[number // 50 % len(SPOILED)]
    return good(number - 4 if number % 97 == 50 else number)


class Feeder:
    """Send events, one partition after the other, as fast as told until it is closed.

    Each acknowledgement is written to a file of its own: number, partition, offset. What was not
    acknowledged is sent again, by a new producer, until it is.

    Args:
        late: the topic of labels: they are taken out of their events and sent there, LATER events
            after those.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        topic: str,
        acks: Path,
        *,
        rate: float = 500.0,
        partitions: int = 4,
        make: Callable[[int], bytes | None] = mixed,
        late: str | None = None,
    ) -> None:
        self._kafka, self._topic, self._rate = kafka, topic, rate
        self._partitions, self._make, self._late = partitions, make, late
        self._log = acks.open("w")
        self._failed: deque[Callable[[Any], None]] = deque()  # that send it again
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="feeder")
        self._thread.start()

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait until all that was sent is acknowledged."""
        self._stop.set()
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        from kafka.errors import KafkaError

        producer, began_s = self._producer(), time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - began_s) * self._rate) - self.sent
            for _ in range(max(due, 0)):
                self._send(producer, self.sent)
                if self._late and self.sent >= LATER:
                    self._tell(producer, self.sent - LATER)
                self.sent += 1
            if self._failed:
                producer = self._again(producer)
            self._stop.wait(0.02)
        while True:
            with suppress(KafkaError):
                producer.flush(timeout=20)
            if not self._failed:
                break
            producer = self._again(producer)
        producer.close()

    def _producer(self) -> Any:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        while True:
            try:
                return KafkaProducer(
                    **self._kafka.kafka_python(),
                    acks="all",
                    linger_ms=5,
                    request_timeout_ms=5_000,
                    delivery_timeout_ms=300_000,  # it waits for a Kafka that is away
                    max_block_ms=300_000,
                )
            except KafkaError:
                time.sleep(0.3)

    def _again(self, producer: Any) -> Any:
        from kafka.errors import KafkaError

        with suppress(KafkaError):
            producer.close(timeout=5)
        producer = self._producer()
        while self._failed:
            self._failed.popleft()(producer)
        return producer

    def _send(self, producer: Any, number: int) -> None:
        def acknowledged(found: Any) -> None:
            self._log.write(f"{number} {found.partition} {found.offset}\n")

        value = self._make(number)
        value = bare(value, number) if self._late else value
        record = (self._topic, value, b"%d" % number, number % self._partitions)
        self._put(producer, record, acknowledged)

    def _tell(self, producer: Any, number: int) -> None:
        record = (self._late, late_label(number), b"%d" % number, partition_of(number))
        self._put(producer, record, lambda found: None)

    def _put(self, producer: Any, record: Any, acknowledged: Callable[[Any], None]) -> None:
        from kafka.errors import KafkaError

        def again(other: Any) -> None:
            self._put(other, record, acknowledged)

        topic, value, key, partition = record
        try:
            future = producer.send(topic, value, key=key, partition=partition)
        except KafkaError:
            self._failed.append(again)
            return
        future.add_callback(acknowledged)
        future.add_errback(lambda error: self._failed.append(again))


class Seen(NamedTuple):
    """Hold a record as it was read."""

    offset: int
    value: bytes | None


class Witness:
    """Read topics while they are written, committed records alone, and keep what was seen."""

    def __init__(self, kafka: KafkaConnection, topics: list[str]) -> None:
        self._kafka, self._topics = kafka, topics
        self.seen: dict[tuple[str, int], list[Seen]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(
            **self._kafka.kafka_python(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        places = [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in sorted(consumer.partitions_for_topic(topic))
        ]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while not self._stop.is_set():
            for place, records in consumer.poll(timeout_ms=100, max_records=5_000).items():
                kept = self.seen.setdefault((place.topic, place.partition), [])
                kept += [Seen(record.offset, record.value) for record in records]
        consumer.close()

    def openings(self, ledger: str) -> list[float]:
        """Return the Unix times at which learners wrote their first records."""
        records = [json.loads(each.value or b"{}") for each in self.seen[ledger, 0]]
        return [record["time_ms"] / 1000 for record in records if "opening" in record]

    @property
    def alive(self) -> bool:
        """Wait a moment, and say whether it still reads."""
        self._thread.join(0.05)
        return self._thread.is_alive()
