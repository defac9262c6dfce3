"""What a Kafka lets us do: who lacks which operation on which resource, in words."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, CoordinatorNotAvailableError

from headrace.stream.errors import AccessError, HeadraceError
from headrace.stream.kafka.client_settings import ClientSettings

TOPIC_REFUSED, CLUSTER_REFUSED, TRANSACTIONS_REFUSED = 29, 31, 53  # Kafka's own error codes
GROUP_REFUSED = 30
COORDINATOR_S, AGAIN_S = 10.0, 0.1
NO_PARTITION = 2**31 - 1


class LacksError(Exception):
    """Say, where the connection is not known, which operation on which resource was refused."""

    def __init__(self, operation: str, resource: str) -> None:
        super().__init__(operation, resource)
        self.operation, self.resource = operation, resource


def lacking(kafka: ClientSettings, operation: str, resource: str) -> AccessError:
    """Return the error that names who may not do what, and the way out."""
    try:
        who = kafka.principal
    except HeadraceError:  # it asks for a token
        who = "this user"
    return AccessError(
        f"{who} lacks {operation} on {resource} at {kafka}: have it granted; "
        "`headrace acls TASK` prints what each part needs"
    )


@contextmanager
def needing(operation: str, resource: str) -> Iterator[None]:
    """Name what a refusal by Kafka within the block was about.

    Raises:
        LacksError: Kafka refused.
    """
    try:
        yield
    except AuthorizationError as error:
        raise LacksError(operation, resource) from error


def require(admin: KafkaAdminClient, needs: Mapping[str, Sequence[str]]) -> None:
    """Make sure of operations on topics that exist, before the first record tells.

    Args:
        needs: topics by operation, such as WRITE.

    Raises:
        LacksError: one is not allowed.
    """
    names = sorted({name for topics in needs.values() for name in topics})
    if not names:
        return
    allowed = {
        topic["name"]: topic["authorized_operations"]
        for topic in described(admin, names)
        if topic["error_code"] == 0
    }
    for operation, topics in needs.items():
        for name in topics:
            known = allowed.get(name)  # None: an old broker does not say
            if known is not None and operation not in known:
                raise LacksError(operation, f"topic {name}")


def described(admin: KafkaAdminClient, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the broker says of topics, whether they exist or not.

    Raises:
        LacksError: one may not be looked at.
    """
    found: list[dict[str, Any]] = admin.describe_topics(list(names))
    for topic in found:
        if topic["error_code"] == TOPIC_REFUSED:
            raise LacksError("DESCRIBE", f"topic {topic['name']}")
    return found


def require_group(admin: KafkaAdminClient, group: str, topic: str) -> None:
    """Make sure that we may read as a consumer group.

    Kafka checks that before it finds that there is no such partition, and changes nothing.

    Raises:
        LacksError: it is not allowed.
    """
    nowhere, give_up_s = TopicPartition(topic, NO_PARTITION), time.monotonic() + COORDINATOR_S
    while True:
        try:
            with needing("READ", f"group {group}"):
                found = admin.alter_group_offsets(group, {nowhere: OffsetAndMetadata(0, "", -1)})
            break
        except CoordinatorNotAvailableError:  # the first group of all makes Kafka's own topic
            if time.monotonic() > give_up_s:
                raise
            time.sleep(AGAIN_S)
    if getattr(found.get(nowhere), "errno", None) == GROUP_REFUSED:
        raise LacksError("READ", f"group {group}")
