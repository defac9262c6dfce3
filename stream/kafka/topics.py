"""Topics: created in one place, checked against what is wanted, never changed in silence."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import (
    AuthorizationError,
    InvalidPartitionsError,
    KafkaError,
    TopicAlreadyExistsError,
)
from kafka.net.compat import KafkaNetClient

from headrace.stream.errors import AccessError, BrokerError, TopicError, no_broker
from headrace.stream.kafka.access import (
    TOPIC_REFUSED,
    LacksError,
    described,
    lacking,
    needing,
    require,
)
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.kafka.topic_specs import BATCH_BYTES, TopicSpec

_BOOTSTRAP_MS = 5_000
_REQUEST_MS = 8_000


@dataclass(frozen=True)
class Topic:
    """Report a topic as it is; `begin` and `end` are offsets by partition, `end` exclusive."""

    name: str
    id: str  # Kafka gives each topic another, also when a name is used again
    begin: tuple[int, ...]
    end: tuple[int, ...]
    cleanup_policy: str
    retention_ms: int
    retention_bytes: int
    max_message_bytes: int

    @property
    def partitions(self) -> int:
        return len(self.end)


@dataclass(frozen=True)
class Outcome:
    """Tell what `ensure` did to one topic, and how many partitions it has now."""

    name: str
    action: Literal["created", "grown", "unchanged"]
    partitions: int = 1


def ensure(
    kafka: ClientSettings, specs: Sequence[TopicSpec], *, grow: bool = False
) -> list[Outcome]:
    """Create the topics that are missing, and make sure that the others can do what they are for.

    What is there is taken as it is, but an output gets as many partitions as its input has. All
    are checked before any is touched, and all have leaders when this returns.

    Args:
        grow: add partitions to an input that has fewer than its spec. Keys then move to other
            partitions, so the order of an entity's events is broken once, at that moment.

    Returns:
        One outcome for each spec, in order.

    Raises:
        TopicError: a topic cannot be used, or not be made; one line for all of them.
        BrokerError: the broker does not answer.
    """
    with admin_of(kafka) as admin:
        outcomes = _plan_all(admin, specs, grow=grow)
        for spec, outcome in zip(specs, outcomes, strict=True):
            if outcome.action == "created":
                _create(admin, spec, outcome.partitions)
            elif outcome.action == "grown":
                _grow(admin, outcome)
        _await_leaders(admin, outcomes)
        _plan_all(admin, specs, grow=False)  # somebody else may have created one, differently
    return outcomes


def prepare(
    kafka: ClientSettings,
    specs: Sequence[TopicSpec],
    *,
    needs: Mapping[str, Sequence[str]] | None = None,
) -> list[Topic]:
    """Make sure that topics are there and can do what they are for; let outputs grow.

    Args:
        needs: topics by an operation that has to be allowed, such as WRITE.

    Raises:
        TopicError: one is missing, or cannot be used.
        AccessError: an operation is not allowed.
        BrokerError: the broker does not answer.
    """
    with admin_of(kafka) as admin:
        outcomes = _plan_all(admin, specs, grow=False)
        if missing := [each.name for each in outcomes if each.action == "created"]:
            raise TopicError(
                f"no topic {', '.join(missing)} at {kafka}: make it with `headrace topics create`"
            )
        if grown := [each for each in outcomes if each.action == "grown"]:
            for outcome in grown:
                _grow(admin, outcome)
            _await_leaders(admin, grown)
        require(admin, needs or {})
        return _describe(admin, [spec.name for spec in specs])


def list_topics(kafka: ClientSettings) -> list[str]:
    """Return the names of all topics but Kafka's own, sorted.

    Raises:
        BrokerError: the broker does not answer.
    """
    with admin_of(kafka) as admin:
        return _names(admin)


def delete(kafka: ClientSettings, names: Iterable[str]) -> None:
    """Delete those of some topics that exist, with all that is in them.

    Raises:
        BrokerError: the broker does not answer, or refuses.
    """
    with admin_of(kafka) as admin:
        if there := sorted({*names} & {*_names(admin)}):
            admin.delete_topics(there)


def describe(
    kafka: ClientSettings, names: Iterable[str] | None = None, *, needs: str = ""
) -> list[Topic]:
    """Report topics as they are, by name; all but Kafka's own when `names` is None.

    Args:
        needs: an operation that has to be allowed on each, such as WRITE.

    Raises:
        TopicError: a topic does not exist, or we may not know of it.
        AccessError: the operation is not allowed.
        BrokerError: the broker does not answer.
    """
    with admin_of(kafka) as admin:
        existing = _names(admin)
        wanted = existing if names is None else sorted(set(names))
        if missing := [name for name in wanted if name not in existing]:
            raise TopicError(
                f"no topic {', '.join(missing)} at {kafka}: there is "
                f"{_some(existing) or 'none yet'}; make it with `headrace topics create`"
            )
        require(admin, {needs: wanted} if needs else {})
        return _describe(admin, wanted)


def describe_existing(kafka: ClientSettings, names: Iterable[str]) -> list[Topic]:
    """Report those of some topics that exist, by name.

    Raises:
        BrokerError: the broker does not answer.
    """
    with admin_of(kafka) as admin:
        return _describe(admin, sorted(set(names)))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


@contextmanager
def admin_of(kafka: ClientSettings) -> Iterator[KafkaAdminClient]:
    """Connect an admin client; what it raises is told as a BrokerError, in words if possible."""
    made: list[KafkaNetClient] = []

    def make(**config: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**config))
        return made[0]

    try:
        admin = KafkaAdminClient(
            **kafka.kafka_python(),
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
            request_timeout_ms=_REQUEST_MS,
            kafka_client=make,
        )
    except (KafkaError, OSError, ValueError) as error:
        for client in made:  # the admin client leaves its thread behind when it cannot bootstrap
            client.close()
        raise explain(kafka) or no_broker(kafka, type(error).__name__) from error
    try:
        yield admin
    except LacksError as error:
        raise lacking(kafka, error.operation, error.resource) from error
    except AuthorizationError as error:
        raise AccessError(f"{kafka} does not allow that ({type(error).__name__})") from error
    except KafkaError as error:
        raise BrokerError(
            f"the Kafka at {kafka} refused or did not answer in time ({type(error).__name__}): "
            "look at its log, and run again"
        ) from error
    finally:
        admin.close()


def _names(admin: KafkaAdminClient) -> list[str]:
    return sorted(name for name in admin.list_topics() if not name.startswith("__"))


def _describe(admin: KafkaAdminClient, names: Sequence[str]) -> list[Topic]:
    """Report the topics among `names` that exist."""
    if not names:
        return []
    found = {topic["name"]: topic for topic in described(admin, names) if topic["error_code"] == 0}
    if not found:
        return []
    counts = {name: len(topic["partitions"]) for name, topic in found.items()}
    parts = [TopicPartition(name, part) for name, count in counts.items() for part in range(count)]
    begin = admin.list_partition_offsets({part: OffsetSpec.EARLIEST for part in parts})
    end = admin.list_partition_offsets({part: OffsetSpec.LATEST for part in parts})
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]

    for name in counts:
        if not configs[name]:  # that is how a refusal looks
            raise LacksError("DESCRIBE_CONFIGS", f"topic {name}")

    def setting(name: str, key: str) -> str:
        return str(configs[name][key]["value"])

    return [
        Topic(
            name=name,
            id=_identity(found[name]["topic_id"]),
            begin=tuple(begin[TopicPartition(name, part)].offset for part in range(count)),
            end=tuple(end[TopicPartition(name, part)].offset for part in range(count)),
            cleanup_policy=setting(name, "cleanup.policy"),
            retention_ms=int(setting(name, "retention.ms")),
            retention_bytes=int(setting(name, "retention.bytes")),
            max_message_bytes=int(setting(name, "max.message.bytes")),
        )
        for name, count in sorted(counts.items())
    ]


def _identity(topic_id: Any) -> str:
    """Write a topic's id as Kafka's own tools do."""
    return urlsafe_b64encode(UUID(str(topic_id)).bytes).decode().rstrip("=")


def _plan_all(admin: KafkaAdminClient, specs: Sequence[TopicSpec], *, grow: bool) -> list[Outcome]:
    names = {name for spec in specs for name in (spec.name, spec.beside) if name}
    existing = {topic.name: topic for topic in _describe(admin, sorted(names))}
    plans = []
    for spec in specs:
        if beside := existing.get(spec.beside or ""):
            wanted = max(beside.partitions, spec.partitions if grow else 0)
            spec = replace(spec, partitions=wanted)
        plans.append(_plan(spec, existing.get(spec.name), grow=grow))
    if wrong := [plan for plan in plans if isinstance(plan, str)]:
        raise TopicError("; ".join(wrong))
    return [plan for plan in plans if isinstance(plan, Outcome)]


def _plan(spec: TopicSpec, found: Topic | None, *, grow: bool) -> Outcome | str:
    """Decide what to do for one topic, or say in words why it cannot be used."""
    if found is None:
        return Outcome(spec.name, "created", spec.partitions)
    if problem := unfit(spec, found):
        return f"topic {spec.name} {problem}"
    if found.partitions < spec.partitions and (grow or spec.role == "output"):
        return Outcome(spec.name, "grown", spec.partitions)
    return Outcome(spec.name, "unchanged", found.partitions)


def unfit(spec: TopicSpec, found: Topic) -> str | None:
    """Say why a topic cannot do what it is for, whoever made it; None if it can."""
    if spec.role == "models" and found.cleanup_policy != "compact":
        return (
            f"has cleanup.policy={found.cleanup_policy}: the newest state of a learner has to stay "
            "there, so it has to be compact"
        )
    if "compact" in found.cleanup_policy and spec.role != "models":
        return (
            f"is compacted (cleanup.policy={found.cleanup_policy}): what was learned from a record "
            "that compaction removes cannot be learned again; use one with cleanup.policy=delete"
        )
    if spec.role == "input":
        return None
    needed = max(spec.record_bytes, BATCH_BYTES)
    if found.max_message_bytes < needed:
        return (
            f"has max.message.bytes={found.max_message_bytes}, and this task's records, or batches "
            f"of them, may have {needed}: raise it to that"
        )
    if spec.role != "ledger":
        return None
    if (found.retention_ms, found.retention_bytes) != (-1, -1):
        return (
            f"has retention.ms={found.retention_ms} and retention.bytes={found.retention_bytes}: "
            "a ledger is read from its beginning, so both have to be -1"
        )
    return None


def _create(admin: KafkaAdminClient, spec: TopicSpec, partitions: int) -> None:
    wanted = {spec.name: {"num_partitions": partitions, "configs": spec.configs}}
    [answer] = admin.create_topics(wanted, raise_errors=False)["topics"]
    if answer["error_code"] == TOPIC_REFUSED:
        raise LacksError("CREATE", f"topic {spec.name}")
    if answer["error_code"] not in (0, TopicAlreadyExistsError.errno):
        raise TopicError(f"cannot create topic {spec.name}: {answer['error_message']}")


def _grow(admin: KafkaAdminClient, outcome: Outcome) -> None:
    try:
        with needing("ALTER", f"topic {outcome.name}"):
            admin.create_partitions({outcome.name: outcome.partitions})
    except InvalidPartitionsError:  # somebody else was first
        return


def _await_leaders(admin: KafkaAdminClient, outcomes: Sequence[Outcome]) -> None:
    """Wait until every partition that is wanted can be written: creation is asynchronous."""
    give_up = time.monotonic() + _REQUEST_MS / 1000
    while waiting := [each.name for each in outcomes if _led(admin, each.name) < each.partitions]:
        if time.monotonic() >= give_up:
            raise BrokerError(
                f"topic {waiting[0]} has no leader after {_REQUEST_MS / 1000:.0f} s: "
                "look at the broker's log"
            )
        time.sleep(0.05)


def _led(admin: KafkaAdminClient, name: str) -> int:
    [topic] = admin.describe_topics([name])
    return sum(p["error_code"] == 0 and p["leader_id"] >= 0 for p in topic["partitions"])
