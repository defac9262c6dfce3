"""The hot loop's way to Kafka: whole batches in and out, by confluent_kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream.errors import BrokerError, DeliveryError
from stream.events import Records
from stream.topic_specs import BATCH_BYTES

ANSWER_S = 10.0
RETRY_S = 0.05
GATHER_MS, GATHER_BYTES = 20, 16_384
LINGER_MS = 5.0  # that a record may wait for others to share a request with; a flush waits for none
LARGEST_BYTES = 64 << 20  # of a record that the client sends
TRANSACTION_S = 15.0  # a learner that stands still for longer in a transaction loses it
_ERROR = methodcaller("error")
_LEADERLESS = {  # for a moment, while one is elected or starts
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
}


class Source:
    """Read one topic from given offsets, all partitions, without group membership.

    Args:
        bootstrap: `host:port[,host:port]`.
        topic: must exist.
        offsets: first offset to read by partition; partitions not named start at the beginning.
        or_later: read on at what is there where an offset was deleted; else `poll` raises.
        partitions: the ones to read; default: all.
        timestamps: whether records carry Kafka's timestamps.
        prompt: give each record at once; else a few may gather for up to 20 ms, which spares the
            broker a request for each.

    Only committed records are given. `position` holds by partition the offset to be read next;
    at the end of a partition it is the end, whatever invisible records stand before it.

    Raises:
        BrokerError: the broker does not answer, or has no such topic.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        or_later: bool = False,
        partitions: Sequence[int] | None = None,
        timestamps: bool = False,
        prompt: bool = False,
    ) -> None:
        self.topic, self._timestamps = topic, timestamps
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "headrace",  # demanded by the client; we assign and never commit
                "enable.auto.commit": False,
                "auto.offset.reset": "error",  # a position that retention overtook is no beginning
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": GATHER_MS,  # also how late the end of a partition is noticed
                "fetch.min.bytes": 1 if prompt else GATHER_BYTES,
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
        self.partitions = sorted(metadata.partitions if partitions is None else partitions)
        try:
            self.begins = {p: self._watermarks(p)[0] for p in self.partitions}
        except BrokerError:
            self._consumer.close()
            raise
        self.position = self.begins | (offsets or {})
        if or_later:
            self.position = {p: max(at, self.begins[p]) for p, at in self.position.items()}
        self.ended: set[int] = set()  # partitions of which nothing more was there
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in self.position.items()])

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Take what is there, `most` records at most; wait `timeout_s` at most for the first.

        Records come ordered by partition and offset. None when nothing came.
        """
        messages = self.messages(most, timeout_s)
        if not messages:
            return None
        return Records(
            topic=self.topic,
            values=[m.value() for m in messages],
            keys=[m.key() for m in messages],
            partitions=[m.partition() for m in messages],
            offsets=[m.offset() for m in messages],
            timestamps_ms=[m.timestamp()[1] for m in messages] if self._timestamps else [],
        )

    def messages(self, most: int, timeout_s: float) -> list[Any]:
        """Take what is there, as the client has it: for those who want little of each record."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages: list[Any] = [first]
        if most > 1:
            messages += self._consumer.consume(most - 1, 0)
        if any(map(_ERROR, messages)):
            messages = self._without_ends(messages)
            if not messages:
                return []
        if len(self.partitions) > 1:
            messages.sort(key=lambda m: (m.partition(), m.offset()))
            stops = {m.partition(): m.offset() + 1 for m in messages}
        else:
            stops = {self.partitions[0]: messages[-1].offset() + 1}
        for partition, stop in stops.items():
            if stop > self.position[partition]:  # else the end that was noted comes after it
                self.position[partition] = stop
                self.ended.discard(partition)
        return messages

    def _without_ends(self, messages: list[Any]) -> list[Any]:
        """Note the ends of partitions, raise real errors, and give the records among messages."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                raise BrokerError(f"{self.topic}: {error.str()}")
            else:
                partition, end = message.partition(), message.offset()
                self.position[partition] = max(self.position[partition], end)
                self.ended.add(partition)
        return records

    def ends(self) -> dict[int, int]:
        """Ask for the end of each partition: the offset that the next record will get."""
        return {p: self._watermarks(p)[1] for p in self.partitions}

    def lag(self) -> int:
        """Count the records known to wait, as of the last fetch; asks nobody."""
        lag = 0
        for partition, position in self.position.items():
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), cached=True
            )
            lag += max(end - position, 0)
        return lag

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _watermarks(self, partition: int) -> tuple[int, int]:
        """Ask for the first offset of a partition and the one after its last."""
        return _watermarks(self._consumer, TopicPartition(self.topic, partition))


def _watermarks(consumer: Any, at: TopicPartition) -> tuple[int, int]:
    """Ask for the two ends of a partition, and again while it has no leader."""
    give_up_s = time.monotonic() + ANSWER_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(at, timeout=ANSWER_S)
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > give_up_s:
                raise BrokerError(f"{at.topic}/{at.partition}: {error.args[0].str()}") from error
            time.sleep(RETRY_S)
        else:
            return low, high


def ends(bootstrap: str, topics: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
    """Ask for the end of every partition of topics: of what is committed, or of all there is."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "headrace",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "log_level": 0,
        }
    )
    try:
        found = {}
        for topic in topics:
            for partition in consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions:
                at = TopicPartition(topic, partition)
                found[topic, partition] = _watermarks(consumer, at)[1]
        return found
    except KafkaException as error:
        raise BrokerError(f"{bootstrap} does not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


class Sink:
    """Write records and learn of every one that did not arrive (idempotent, all replicas).

    Args:
        transactional_id: for `stream.transactions` alone.
    """

    def __init__(self, bootstrap: str, *, transactional_id: str | None = None) -> None:
        self._failed: list[str] = []
        in_transactions = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": round(TRANSACTION_S * 1000),
        }
        self.producer = Producer(
            (in_transactions if transactional_id else {})
            | {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": LINGER_MS,
                "batch.size": BATCH_BYTES,
                "message.max.bytes": LARGEST_BYTES,  # what is larger, the topic refuses
                "compression.type": "none",
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 131_072,
                "delivery.report.only.error": True,
                "delivery.timeout.ms": round(1000 * (TRANSACTION_S if transactional_id else 60)),
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
        produce, place, count = self.producer.produce, 0, len(values)
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
                self.serve(0.05)
        self.check()

    def check(self) -> None:
        """Serve delivery reports.

        Raises:
            DeliveryError: a record was not acknowledged.
        """
        self.serve(0)
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
        while (left := self.serve(0.5, self.producer.flush)) and time.monotonic() < deadline:
            self.check()
        self.check()
        if left:
            raise DeliveryError(f"{left} records were not acknowledged within {timeout_s:g} s")

    def serve(self, timeout_s: float, call: Callable[[float], Any] | None = None) -> Any:
        """Serve delivery reports, by `poll` or another call of the producer, and give its answer.

        After a fatal error the client calls `_report` with an exception pending, or gives none for
        a call that failed: what comes out is a SystemError.

        Raises:
            DeliveryError: the client gave up, and does not say why.
        """
        try:
            return (call or self.producer.poll)(timeout_s)
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                raise error.__cause__ from None
            said = self._failed[0] if self._failed else str(error)
            raise DeliveryError(f"the Kafka client gave up: {said}") from error

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
