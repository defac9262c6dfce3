"""Who owns a transactional id, and transactions of it that nobody will ever end.

Kafka gives a transactional id a producer id, and an epoch that grows whenever it is taken over,
but also when a transaction of it times out. A transaction hangs when a partition holds it open
while its coordinator has forgotten it: after a broker froze, a marker can be lost (KIP-890,
KIP-664). Until it is aborted no reader of committed records gets past it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import AbortTransactionSpec, KafkaAdminClient, TransactionState
from kafka.errors import KafkaError

from headrace.stream.errors import BrokerError
from headrace.stream.kafka.access import needing
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.topics import admin_of

ASK_S = 3.0  # that a coordinator may take to answer, and another learner to open its transactions
SETTLE_S = 1.0  # after which a transaction that was to be aborted counts as hanging
AGAIN_S = 0.2
_TIMED_OUT = {
    TransactionState.PREPARE_ABORT,
    TransactionState.PREPARE_EPOCH_FENCE,
    TransactionState.COMPLETE_ABORT,
}


class Owner(NamedTuple):
    """Name one owner of a transactional id; the next one has a larger epoch, or another id."""

    producer_id: int
    epoch: int


def owner_of(kafka: ClientSettings, transactional_id: str) -> Owner:
    """Ask who owns a transactional id now.

    Raises:
        BrokerError: the broker does not answer, or does not tell.
    """
    with admin_of(kafka) as admin:
        with needing("DESCRIBE", f"transactional-id {transactional_id}"):
            found = admin.describe_transactions([transactional_id])[transactional_id]
        return Owner(found.producer_id, found.producer_epoch)


def was_taken_over(kafka: ClientSettings, transactional_id: str, owner: Owner) -> bool:
    """Return whether somebody else has taken a transactional id over since `owner` got it.

    A transaction that times out also ends its owner's epoch: then the id stands aborted, until
    somebody opens it again. While Kafka does not answer, nobody can have.
    """
    give_up_s = time.monotonic() + ASK_S
    while True:
        try:
            with admin_of(kafka) as admin:
                found = admin.describe_transactions([transactional_id])[transactional_id]
        except BrokerError:
            found = None
        if found is not None:
            now = Owner(found.producer_id, found.producer_epoch)
            if now == owner:
                return False
            timed_out = now == owner._replace(epoch=owner.epoch + 1) and found.state in _TIMED_OUT
            if not timed_out:
                return True
        if time.monotonic() > give_up_s:
            return False
        time.sleep(AGAIN_S)


def abort_hanging(kafka: ClientSettings, owner: Owner, topics: Iterable[str]) -> list[str]:
    """Abort what former owners of the same producer id have left open on topics, for ever.

    To be called by an owner who has begun nothing yet: then Kafka has ended all that it knows of.

    Returns:
        the partitions that were freed, such as `power.ledger/0`.

    Raises:
        BrokerError: the broker does not answer, or does not let this user do so.
    """
    names = list(topics)
    with admin_of(kafka) as admin:
        found = _open(admin, owner, names)
        give_up_s = time.monotonic() + SETTLE_S
        while found and time.monotonic() < give_up_s:  # the markers may be under way
            time.sleep(AGAIN_S)
            found = _open(admin, owner, names)
        for spec in found.values():
            with needing("CLUSTER_ACTION", "the cluster, to abort a transaction that hangs"):
                admin.abort_transaction(spec)
    return [f"{place.topic}/{place.partition}" for place in found]


def _open(
    admin: KafkaAdminClient, owner: Owner, names: list[str]
) -> dict[TopicPartition, AbortTransactionSpec]:
    """Return the partitions on which a transaction of the producer id is open, and what ends it."""
    places = [
        TopicPartition(topic["name"], part["partition_index"])
        for topic in admin.describe_topics(names)
        for part in topic["partitions"]
    ]
    try:
        states = admin.describe_producers(places)
    except KafkaError as error:
        if type(error).__name__ in _NOT_ALLOWED:  # who may not look can have no hanging mended
            return {}
        raise
    return {
        place: AbortTransactionSpec(
            place, each.producer_id, each.producer_epoch, each.coordinator_epoch
        )
        for place, state in states.items()
        for each in state.active_producers
        if each.producer_id == owner.producer_id and each.current_transaction_start_offset >= 0
    }


_NOT_ALLOWED = {"TopicAuthorizationFailedError", "ClusterAuthorizationFailedError"}
