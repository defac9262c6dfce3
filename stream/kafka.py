"""The hot loop's way to Kafka: whole batches in and out (the only import of confluent_kafka)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from stream.errors import BrokerError, DeliveryError
from stream.events import Records

ANSWER_S = 10.0


class Source:
    """Read one topic from given offsets, all partitions, without group membership.

    Args:
        bootstrap: `host:port[,host:port]`.
        topic: must exist.
        offsets: first offset to read by partition; partitions not named start at the beginning.
        timestamps: whether records carry Kafka's timestamps.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        timestamps: bool = False,
    ) -> None:
        self._topic, self._timestamps = topic, timestamps
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headrace",  # demanded by the client; we assign and never commit
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 5,
                "fetch.error.backoff.ms": 100,
                "log_level": 0,
            }
        )
        try:
            metadata = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        except KafkaException as error:
            self._consumer.close()
            raise BrokerError(
                f"{bootstrap} does not answer: {error.args[0].str()}; start one with `headrace up`"
            ) from error
        if metadata.error is not None:
            self._consumer.close()
            raise BrokerError(
                f"{topic}: {metadata.error.str()}; make it with `headrace topics create`"
            )
        self.partitions = sorted(metadata.partitions)
        self.position = {p: self._watermarks(p)[0] for p in self.partitions} | (offsets or {})
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in self.position.items()])

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Take what is there, `most` records at most; wait `timeout_s` at most for the first.

        Records come ordered by partition and offset. None when nothing came.
        """
        first = self._consumer.poll(timeout_s)
        if first is None:
            return None
        messages = [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]
        if any(m.error() for m in messages if m.value() is None):
            error = next(e for m in messages if (e := m.error()))
            raise BrokerError(f"{self._topic}: {error.str()}")
        if len(self.partitions) > 1:
            messages.sort(key=lambda m: (m.partition(), m.offset()))
        partitions: list[int] = [m.partition() for m in messages]  # type: ignore[misc]
        offsets: list[int] = [m.offset() for m in messages]  # type: ignore[misc]
        self.position.update({p: at + 1 for p, at in zip(partitions, offsets, strict=True)})
        return Records(
            topic=self._topic,
            values=[m.value() for m in messages],
            keys=[m.key() for m in messages],
            partitions=partitions,
            offsets=offsets,
            timestamps_ms=[m.timestamp()[1] for m in messages] if self._timestamps else [],
        )

    def ends(self) -> dict[int, int]:
        """Ask for the end of each partition: the offset that the next record will get."""
        return {p: self._watermarks(p)[1] for p in self.partitions}

    def lag(self) -> int:
        """Count the records known to wait, as of the last fetch; asks nobody."""
        lag = 0
        for partition, position in self.position.items():
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), cached=True
            )
            lag += max(end - position, 0)
        return lag

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _watermarks(self, partition: int) -> tuple[int, int]:
        """Ask for the first offset of a partition and the one after its last."""
        at = TopicPartition(self._topic, partition)
        low, high = self._consumer.get_watermark_offsets(at, timeout=ANSWER_S)
        return low, high


class Sink:
    """Write records and learn of every one that did not arrive (idempotent, all replicas)."""

    def __init__(self, bootstrap: str, *, linger_ms: float = 5.0) -> None:
        self._failed: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "batch.size": 131_072,
                "compression.type": "none",
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 131_072,
                "delivery.report.only.error": True,
                "delivery.timeout.ms": 60_000,
                "log_level": 0,
            }
        )

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        """Queue records; blocks while the queue is full.

        Raises:
            DeliveryError: an earlier record was not acknowledged.
        """
        produce, place, count = self._producer.produce, 0, len(values)
        while place < count:
            try:
                while place < count:
                    produce(
                        topic,
                        values[place],
                        keys[place] if keys else None,
                        partitions[place] if partitions else -1,
                        self._report,
                    )
                    place += 1
            except BufferError:
                self._producer.poll(0.05)
        self.check()

    def check(self) -> None:
        """Serve delivery reports.

        Raises:
            DeliveryError: a record was not acknowledged.
        """
        self._producer.poll(0)
        if self._failed:
            raise DeliveryError(
                f"{len(self._failed)} records were not acknowledged, the first: {self._failed[0]}"
            )

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until every queued record is acknowledged.

        Raises:
            DeliveryError: one was refused, or not acknowledged in time.
        """
        deadline = time.monotonic() + timeout_s
        while (left := self._producer.flush(0.5)) and time.monotonic() < deadline:
            self.check()
        self.check()
        if left:
            raise DeliveryError(f"{left} records were not acknowledged within {timeout_s:g} s")

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
