"""What a consumer asks Kafka about topics: whether they are there, and where they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.stream.errors import (
    AccessError,
    BrokerError,
    TopicError,
    did_you_mean,
    no_broker,
)
from headrace.stream.kafka.access import TOPIC_REFUSED, lacking
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.diagnosis import explain

ANSWER_S = 10.0
SOON_S = 3.0  # after which it is asked whether there will ever be an answer
RETRY_S = 0.05
LEAVING_S = 2.0
UNKNOWN_S = 1.0  # that a topic may be unknown to a broker that has just started
_LEADERLESS = {  # for a moment, while one is elected or starts
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._UNKNOWN_PARTITION,  # to the client, of a topic that was just made
}


def described(consumer: Any, kafka: ClientSettings, topic: str) -> Any:
    """Ask what a topic is; one that a broker does not know yet is asked for again."""
    give_up_s = time.monotonic() + UNKNOWN_S
    while True:
        metadata = _listed(consumer, kafka, topic)
        if metadata.error is None:
            return metadata
        if metadata.error.code() == TOPIC_REFUSED:
            raise lacking(kafka, "DESCRIBE", f"topic {topic}")
        if metadata.error.code() == KafkaError.TOPIC_EXCEPTION:
            raise TopicError(f"{topic}: {metadata.error.str()}: letters, digits, '.', '_' and '-'")
        if time.monotonic() > give_up_s:
            raise _no_topic(consumer, kafka, topic)
        time.sleep(RETRY_S)


def _listed(consumer: Any, kafka: ClientSettings, topic: str) -> Any:
    """Ask for metadata of a topic, but no longer than there is a chance of an answer."""
    try:
        return consumer.list_topics(topic, timeout=SOON_S).topics[topic]
    except KafkaException as error:
        wrong = explain(kafka)
        if isinstance(wrong, AccessError):
            raise wrong from error
    try:
        return consumer.list_topics(topic, timeout=ANSWER_S - SOON_S).topics[topic]
    except KafkaException as error:
        raise wrong or no_broker(kafka, _reason(error)) from error


def _reason(error: KafkaException) -> str:
    return str(error.args[0].str()).removeprefix("Local: ")


def _no_topic(consumer: Any, kafka: ClientSettings, topic: str) -> TopicError:
    """Return the error that a Kafka has no such topic, with the one that may be meant."""
    near = ""
    with suppress(KafkaException):  # a hint, no more
        near = did_you_mean(topic, consumer.list_topics(timeout=SOON_S).topics)
    return TopicError(
        f"{topic}: {kafka} has no such topic{near or ';'} `headrace topics list` shows those there "
        "are, `headrace topics create TASK` makes those of a task"
    )


def leave(consumer: Any) -> None:
    """Close a client, or let it alone where that does not end.

    librdkafka may wait for itself for ever, as when it hears at this very moment that an offset is
    out of range, or loses a leader (its issues 4514 and 5476).
    """
    closing = threading.Thread(target=consumer.close, daemon=True)
    closing.start()
    closing.join(LEAVING_S)


def watermarks(consumer: Any, at: TopicPartition) -> tuple[int, int]:
    """Ask for the first offset of a partition and the one after its last."""
    ask = partial(consumer.get_watermark_offsets, at, timeout=ANSWER_S)
    low, high = answer(f"{at.topic}/{at.partition}", ask)
    return low, high


def answer(name: str, ask: Callable[[], Any]) -> Any:
    """Ask something of partitions, and again while one has no leader."""
    give_up_s = time.monotonic() + ANSWER_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > give_up_s:
                raise BrokerError(f"{name}: {error.args[0].str()}") from error
            time.sleep(RETRY_S)


class EndReader:
    """Ask for the ends of topics, as often as wanted, by one client.

    Args:
        committed: ends of what is committed; else of all there is.
    """

    def __init__(self, kafka: ClientSettings, *, committed: bool) -> None:
        self._kafka = kafka
        self._consumer = Consumer(
            kafka.confluent()
            | {
                "group.id": "headrace",  # demanded by the client; we are in none
                "isolation.level": "read_committed" if committed else "read_uncommitted",
            }
        )

    def read(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Return the end of every partition, by topic and number.

        Raises:
            BrokerError: the broker does not answer.
            AccessError: it does not let us in.
        """
        found = {}
        self._consumer.poll(0)  # gives the client its turn, as for another token
        for topic in topics:
            for partition in _listed(self._consumer, self._kafka, topic).partitions:
                at = TopicPartition(topic, partition)
                found[topic, partition] = watermarks(self._consumer, at)[1]
        return found

    def close(self) -> None:
        """Leave the broker."""
        leave(self._consumer)


def ends(
    kafka: ClientSettings, topics: Sequence[str], *, committed: bool
) -> dict[tuple[str, int], int]:
    """Ask once for the end of every partition of topics; see `EndReader`."""
    with closing(EndReader(kafka, committed=committed)) as reader:
        return reader.read(topics)
