"""Messages that ask for an answer: read by a group, so that each is taken by one of its members."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException

from headrace.stream.errors import BrokerError, HeadraceError
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.kafka.metadata import ANSWER_S, leave

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE  # of a record that a topic does not take


class Message(NamedTuple):
    """Hold a record and its headers."""

    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]  # the last of each name


class Inbox:
    """Read a topic as a member of a consumer group; each message once at least.

    The group begins at the end of each partition, where its first member finds it: that is
    committed at once, so that whoever has the partition next begins there, not at a later end.

    Args:
        group: its name.

    Raises:
        BrokerError: the client cannot be made.
    """

    def __init__(self, kafka: ClientSettings, topic: str, group: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._consumer = Consumer(
            kafka.confluent()
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",  # who asked before this began does not wait
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
            }
        )
        self._consumer.subscribe([topic], on_assign=_begin)

    def take(self, most: int, timeout_s: float) -> list[Message]:
        """Return what is there, `most` at most; wait so long at most for the first.

        Raises:
            BrokerError: the topic cannot be read.
        """
        try:
            first = self._consumer.poll(timeout_s)
            if first is None:
                return []
            found = [first, *self._consumer.consume(most - 1, 0.0)]
        except KafkaException as error:
            raise self._told(error.args[0]) from error
        if wrong := [each.error() for each in found if each.error()]:
            raise self._told(wrong[0])
        headers: list[Any] = [each.headers() or () for each in found]
        return [
            Message(each.key(), each.value(), dict(told))
            for each, told in zip(found, headers, strict=True)
        ]

    def commit(self) -> None:
        """Say that all that was taken is done.

        Raises:
            BrokerError: Kafka does not say so; it may come again, here or elsewhere.
        """
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            raise self._told(error.args[0]) from error

    def close(self) -> None:
        """Leave the group."""
        leave(self._consumer)

    def _told(self, error: Any) -> HeadraceError:
        return explain(self._kafka) or BrokerError(f"{self._topic} cannot be read: {error.str()}")


def _begin(consumer: Consumer, assigned: list[Any]) -> None:
    """Start where the group stands; commit the end of a partition of which it has nothing yet."""
    with suppress(KafkaException):  # else the client asks by itself, and begins at a later end
        first = [at for at in consumer.committed(assigned, timeout=ANSWER_S) if at.offset < 0]
        for at in first:
            at.offset = consumer.get_watermark_offsets(at, timeout=ANSWER_S)[1]
        if first:
            consumer.commit(offsets=first, asynchronous=False)
        ends = {(at.topic, at.partition): at.offset for at in first}
        for at in assigned:
            at.offset = ends.get((at.topic, at.partition), at.offset)
    consumer.assign(assigned)
