"""Which operations each part of a task needs, and no other: Kafka's access control lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import AuthorizationError

from headrace.stream.errors import BrokerError
from headrace.stream.kafka.access import LacksError
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import admin_of
from headrace.stream.task import Task

Role = Literal["admin", "producer", "normaliser", "learner", "reader"]
Resource = Literal["topic", "group", "transactional-id"]
ROLES: tuple[Role, ...] = ("admin", "producer", "normaliser", "learner", "reader")

SEE = ("DESCRIBE", "DESCRIBE_CONFIGS")
OUTPUTS = ("predictions", "dead-letter", "metrics", "drift", "models", "ledger")


class Acl(NamedTuple):
    """Allow one operation of a role on one resource; `prefixed`: on all whose names begin so."""

    role: Role
    operation: str
    resource: Resource
    name: str
    prefixed: bool = False

    @property
    def principal(self) -> str:
        """Return the user who plays the role."""
        return f"User:{self.role}"


def normalizer_group(names: Iterable[str]) -> str:
    """Return the consumer group of a normaliser of tasks with these names."""
    return f"headrace-normalize-{'-'.join(sorted(names))}"


def acls(tasks: Sequence[Task]) -> list[Acl]:
    """Return what each role needs for tasks, which one normaliser serves."""
    found: dict[Acl, None] = {}

    def allow(role: Role, topic: str, *operations: str) -> None:
        found.update(dict.fromkeys(Acl(role, each, "topic", topic) for each in operations))

    for task in tasks:
        raw, features = task.input.topic, task.output("features")
        for spec in topic_specs(task):
            allow("admin", spec.name, "CREATE", "ALTER", *SEE)
        allow("producer", raw, "WRITE", *SEE)
        if task.labels:
            allow("producer", task.labels.topic, "WRITE", *SEE)
            allow("learner", task.labels.topic, "READ", *SEE)
            allow("learner", task.output("expired"), "READ", "WRITE", *SEE)
        allow("normaliser", raw, "READ", *SEE)
        for topic in (features, task.output("dead-letter")):
            allow("normaliser", topic, "WRITE", *SEE)
        for topic in (raw, features):
            allow("learner", topic, "READ", *SEE)
        for stage in OUTPUTS:
            allow("learner", task.output(stage), "READ", "WRITE", *SEE)
        for operation in ("DESCRIBE", "WRITE"):
            for name in (f"{task.name}.learn", f"{task.name}.models"):
                found[Acl("learner", operation, "transactional-id", name)] = None
        for spec in topic_specs(task):
            allow("reader", spec.name, "READ", *SEE)
        found[Acl("reader", "READ", "group", f"{task.name}.", prefixed=True)] = None
    group = normalizer_group(task.name for task in tasks)
    found[Acl("normaliser", "READ", "group", group)] = None
    return sorted(found, key=lambda acl: ROLES.index(acl.role))


def grant(kafka: ClientSettings, wanted: Sequence[Acl]) -> None:
    """Have a broker allow it; what is allowed already stays.

    Raises:
        BrokerError: the broker does not answer, or has no access control.
        AccessError: this user may not do so.
    """
    with admin_of(kafka) as admin:
        failed = admin.create_acls([_binding(acl) for acl in wanted])["failed"]
        if any(issubclass(error, AuthorizationError) for error in failed):
            raise LacksError("ALTER", "the cluster")
    if failed:
        raise BrokerError(f"{kafka} takes no access control lists ({failed[0].__name__})")


def _binding(acl: Acl) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if acl.prefixed else ACLResourcePatternType.LITERAL
    kind = ResourceType[acl.resource.replace("-", "_").upper()]
    return ACL(
        acl.principal,
        "*",
        ACLOperation[acl.operation],
        ACLPermissionType.ALLOW,
        ResourcePattern(kind, acl.name, pattern),
    )
