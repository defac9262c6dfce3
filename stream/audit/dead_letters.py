"""Whether the dead letters that the ledger counts are there."""

from __future__ import annotations

from contextlib import closing

from headrace.stream.kafka.connection import KafkaConnection

READ = 5_000
WAIT_S = 0.5


def missing(kafka: KafkaConnection, topic: str, counted: int) -> int:
    """Return how many of the `counted` dead letters of a learner a topic lacks.

    The normaliser writes to it, too, so more may be there; how many is not known where retention
    took some, and then 0 is returned.

    Raises:
        BrokerError, TopicError: no broker; no such topic.
    """
    if not counted:
        return 0
    with closing(kafka.source(topic)) as source:
        if any(source.begins.values()):
            return 0
        found, ends = 0, source.ends()
        while any(source.position[p] < end for p, end in ends.items()):
            found += len(source.messages(READ, WAIT_S))
    return max(counted - found, 0)
