"""One topic through one kafka-python producer, which can be replaced when it has died."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.partitioner.default import murmur2
from kafka.producer.future import FutureProduceResult
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from headrace.producers.sources import Event
from headrace.stream.errors import BrokerError
from headrace.stream.kafka import topics
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.rows.hashing import Cache

_BOOTSTRAP_MS = 5_000
_REQUEST_MS = 10_000
_BATCH_BYTES = 256 << 10
_BATCH_HEAD_BYTES = 61
_LEAST_RECORD_BYTES = 7
MOST_RECORD_BYTES = 32  # what a record adds to its key and value, at the most
_MAGIC = 2
_NO_COMPRESSION = 0


class Connection:
    """Sends batches to an existing topic, idempotent and acknowledged by all replicas.

    `partitions` count from 0; `batch_bytes` is what a batch holds at most, its records' own
    `MOST_RECORD_BYTES` included; the broker refuses key and value beyond `event_bytes` for certain.

    Raises:
        BrokerError: no broker answers.
        AccessError: it does not let us in, or not write there.
        HeadraceError: there is no such topic.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, timeout_s: float) -> None:
        [found] = topics.describe(kafka, [topic], needs="WRITE")
        self._kafka = kafka
        self.partitions = found.partitions
        # max.message.bytes limits whole batches, so a larger one would be refused.
        self.batch_bytes = min(_BATCH_BYTES, found.max_message_bytes) - _BATCH_HEAD_BYTES
        self.event_bytes = found.max_message_bytes - _BATCH_HEAD_BYTES - _LEAST_RECORD_BYTES
        self._topic = topic
        timeout_ms = int(timeout_s * 1000)
        self._settings: dict[str, Any] = {
            **kafka.kafka_python(),
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 0,
            "delivery_timeout_ms": timeout_ms,
            "request_timeout_ms": min(_REQUEST_MS, timeout_ms),
            "max_block_ms": timeout_ms,
            "bootstrap_timeout_ms": _BOOTSTRAP_MS,
            "metrics_enabled": False,
        }
        self._producer = self._connect()

    def partition(self, key: bytes | None, turn: int) -> int:
        """Return the partition of a key, as Java's client would; without a key, each in turn."""
        return (turn if key is None else _HASHES[key]) % self.partitions

    def send(self, partition: int, events: Sequence[Event]) -> FutureProduceResult:
        """Hand a batch to the producer's sender; the future is for the batch as a whole.

        `KafkaProducer.send` does the same record by record, with a future, two locks and three
        callbacks for each: that costs five times as much. Hence the producer's own parts, as
        its `RecordAccumulator.append` uses them.
        """
        now_ms = int(time.time() * 1000)
        records = MemoryRecordsBuilder(_MAGIC, _NO_COMPRESSION, self.batch_bytes)
        append = records.append
        for event in events:
            append(event.stamp_ms or now_ms, event.key, event.value)
        where = TopicPartition(self._topic, partition)
        batch = ProducerBatch(where, records)
        accumulator = self._producer._accumulator
        with accumulator._tp_lock(where):
            accumulator._batches[where].append(batch)
            accumulator._incomplete.add(batch)
        self._producer._sender.wakeup()
        return batch.produce_future

    def renew(self) -> None:
        """Replace a producer that has died.

        Raises:
            BrokerError: no broker answers.
        """
        self.close()
        self._producer = self._connect()

    def close(self) -> None:
        """Disconnect; what is still in flight is abandoned."""
        try:
            self._producer.close(timeout=1)
        except KafkaTimeoutError:
            # With records left it gives up closing, and would leave its thread running.
            self._producer._sender.force_close()
            self._producer._sender.join(1)
            self._producer.close(timeout=0)

    def _connect(self) -> KafkaProducer:
        made: list[KafkaNetClient] = []

        def make(**settings: Any) -> KafkaNetClient:
            made.append(KafkaNetClient(**settings))
            return made[0]

        try:
            producer = KafkaProducer(**self._settings, kafka_client=make)
            producer.partitions_for(self._topic)
        except (KafkaError, OSError) as error:
            for client in made:  # a producer that cannot bootstrap leaves its thread behind
                client.close()
            raise explain(self._kafka) or BrokerError(
                f"no Kafka answers at {self._settings['bootstrap_servers']} any more"
                f" ({type(error).__name__}): look at the broker, and publish the rest again"
            ) from error
        return producer


def _murmur(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


_HASHES = Cache(_murmur)
