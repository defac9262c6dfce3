"""The hot loop's way into Kafka: whole batches, by confluent_kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer

from headrace.stream.errors import AccessError, DeliveryError
from headrace.stream.kafka.access import CLUSTER_REFUSED, TOPIC_REFUSED, lacking
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.topic_specs import BATCH_BYTES

ANSWER_S = 10.0
LINGER_MS = 5.0  # that a record may wait for others to share a request with; a flush waits for none
LARGEST_BYTES = 64 << 20  # of a record that the client sends
UNKNOWN_S = 30.0  # librdkafka's own default
TRANSACTION_S = 15.0  # a learner that stands still for longer in a transaction loses it


class Sink:
    """Write records and learn of every one that did not arrive (idempotent, all replicas).

    Args:
        transactional_id: for `headrace.stream.kafka.transactions` alone.
        batched: send records together; else one by one, so that no topic's limit is met by many.
        unknown_s: for so long after its first record a topic may be unknown to the brokers: a
            record for one that is not there waits so long before it is refused.
    """

    def __init__(
        self,
        kafka: ClientSettings,
        *,
        transactional_id: str | None = None,
        batched: bool = True,
        unknown_s: float = UNKNOWN_S,
    ) -> None:
        self._kafka = kafka
        self._failed: list[str] = []
        self._refused: AccessError | None = None
        in_transactions = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": round(TRANSACTION_S * 1000),
        }
        self.producer = Producer(
            kafka.confluent()
            | (in_transactions if transactional_id else {})
            | ({} if batched else {"batch.num.messages": 1})
            | {
                "enable.idempotence": True,
                "linger.ms": LINGER_MS,
                "batch.size": BATCH_BYTES,
                "message.max.bytes": LARGEST_BYTES,  # what is larger, the topic refuses
                "compression.type": "none",
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 131_072,
                "topic.metadata.propagation.max.ms": round(1000 * unknown_s),
                "delivery.report.only.error": True,
                "delivery.timeout.ms": round(1000 * (TRANSACTION_S if transactional_id else 60)),
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
                self.poll_delivery_reports(0.05)
        self.check()

    def refresh(self, topic: str) -> None:
        """Have the client learn of partitions that were added to a topic."""
        self.producer.list_topics(topic, ANSWER_S)

    def check(self) -> None:
        """Serve delivery reports.

        Raises:
            DeliveryError: a record was not acknowledged.
            AccessError: because we may not write there.
        """
        self.poll_delivery_reports(0)
        if self._refused:
            raise self._refused
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
        while (
            left := self.poll_delivery_reports(0.5, self.producer.flush)
        ) and time.monotonic() < deadline:
            self.check()
        self.check()
        if left:
            raise DeliveryError(f"{left} records were not acknowledged within {timeout_s:g} s")

    def poll_delivery_reports(
        self, timeout_s: float, call: Callable[[float], Any] | None = None
    ) -> Any:
        """Serve delivery reports, by `poll` or another call of the producer, and give its answer.

        After a fatal error the client calls `_report` with an exception pending, or gives none for
        a call that failed: what comes out is a SystemError.

        Raises:
            DeliveryError: the client gave up, and does not say why.
        """
        try:
            return (call or self.producer.poll)(timeout_s)
        except KafkaException as error:
            raise self._told(error) from None
        except SystemError as error:
            if isinstance(error.__cause__, KafkaException):
                raise self._told(error.__cause__) from None
            said = self._failed[0] if self._failed else str(error)
            raise DeliveryError(f"the Kafka client gave up: {said}") from error

    def _told(self, error: KafkaException) -> Exception:
        """Return an error of the client, as a refusal if it is one."""
        if error.args[0].code() == CLUSTER_REFUSED:  # asked before the first record to any topic
            return lacking(self._kafka, "WRITE", "any topic, nor IDEMPOTENT_WRITE on the cluster")
        return error

    def _report(self, error: Any, message: Any) -> None:
        if error is None:
            return
        if error.code() == TOPIC_REFUSED:
            self._refused = lacking(self._kafka, "WRITE", f"topic {message.topic()}")
        self._failed.append(f"{message.topic()}: {error.str()}")
