"""Which topic stands behind a name: Kafka gives each topic an id, and a name can be used again."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from headrace.stream.errors import BrokerError, RecoveryError, TopicError
from headrace.stream.kafka.access import TOPIC_REFUSED, lacking
from headrace.stream.kafka.client_settings import ClientSettings

ANSWER_S = 10.0
GONE_S = 3.0  # a broker that has just started may not know a topic yet
LOOK_S = 2.0


class TopicWatch:
    """Ask for a topic's id and partitions, as often as wanted, without holding up the caller.

    Args:
        identity: the id that it must have, as Kafka's own tools write it; "" takes the first.
    """

    def __init__(self, kafka: ClientSettings, topic: str, identity: str = "") -> None:
        self._kafka, self.topic, self.identity = kafka, topic, identity
        self._admin = AdminClient(kafka.confluent())
        self._looked_s = time.monotonic()
        self._asked: Any = None
        self._missed_s: float | None = None  # since when the topic has not been there

    def ask(self) -> Any:
        """Ask, and return the question: `confirm` waits for its answer."""
        topics = TopicCollection([self.topic])
        return self._admin.describe_topics(topics, request_timeout=ANSWER_S)[self.topic]

    def confirm(self, asked: Any) -> int:
        """Wait for an answer: the topic was the same one until the question was asked.

        Returns:
            how many partitions it has.

        Raises:
            RecoveryError: another topic has its name now.
            TopicError: there is none of that name any more.
            BrokerError: no answer.
        """
        while True:
            try:
                found = asked.result(ANSWER_S + 1)
            except KafkaException as error:
                if error.args[0].code() == TOPIC_REFUSED:
                    raise lacking(self._kafka, "DESCRIBE", f"topic {self.topic}") from error
                if error.args[0].code() not in _MISSING:
                    raise BrokerError(f"{self.topic}: {error.args[0].str()}") from error
                self._note_missing()
            except TimeoutError as error:
                raise BrokerError(f"{self.topic}: Kafka does not answer") from error
            else:
                self._missed_s = None
                return self._checked(found)
            time.sleep(0.1)
            asked = self.ask()

    def look(self) -> int | None:
        """Ask every LOOK_S, and return the number of partitions when an answer is there.

        Raises:
            RecoveryError, TopicError: as `confirm`; while Kafka does not answer, nothing.
        """
        now_s = time.monotonic()
        if self._asked is None:
            if now_s - self._looked_s >= LOOK_S:
                self._asked, self._looked_s = self.ask(), now_s
            return None
        if not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        try:
            found = asked.result()
        except KafkaException as error:
            if error.args[0].code() in _MISSING:
                self._note_missing()
            return None
        self._missed_s = None
        return self._checked(found)

    def _checked(self, found: Any) -> int:
        identity = str(found.topic_id).translate(_URL_SAFE)
        self.identity = self.identity or identity
        if identity != self.identity:
            raise other_topic(self.topic)
        return len(found.partitions)

    def _note_missing(self) -> None:
        now_s = time.monotonic()
        self._missed_s = self._missed_s or now_s
        if now_s - self._missed_s > GONE_S:
            raise TopicError(
                f"{self.topic} is not there any more: it was deleted while it was read"
                if self.identity
                else f"{self.topic} is not there; make it with `headrace topics create`"
            )


def other_topic(topic: str) -> RecoveryError:
    """Say that a topic was deleted and made again, and what can be done."""
    return RecoveryError(
        f"{topic} was deleted and made again: its offsets mean other records now. `learn` goes on "
        "with the new topic from its beginning (--accept-new-topic), or begins --from-scratch"
    )


_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}
_URL_SAFE = str.maketrans("+/", "-_")
