"""Topics: created in one place, checked against what is wanted, never changed in silence."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.net.compat import KafkaNetClient

from stream.errors import BrokerError, HeadraceError
from stream.task import TopicSpec

_BOOTSTRAP_MS = 5_000
_REQUEST_MS = 8_000


@dataclass(frozen=True)
class Topic:
    """Report a topic as it is; `begin` and `end` are offsets by partition, `end` exclusive."""

    name: str
    begin: tuple[int, ...]
    end: tuple[int, ...]
    retention_ms: int
    max_message_bytes: int

    @property
    def partitions(self) -> int:
        return len(self.end)


@dataclass(frozen=True)
class Outcome:
    """Tell what `ensure` did to one topic."""

    name: str
    action: Literal["created", "grown", "unchanged"]


def ensure(bootstrap: str, specs: Sequence[TopicSpec], *, grow: bool = False) -> list[Outcome]:
    """Create the topics that are missing, and make sure that the others are as wanted.

    All are checked before any is touched, and all have leaders when this returns. `grow` adds
    partitions where there are too few: keys then move to other partitions, so the order of an
    entity's events is broken once, at that moment.

    Returns:
        One outcome for each spec, in order.

    Raises:
        HeadraceError: a topic is not as wanted; one line for all of them, found against wanted.
        BrokerError: the broker does not answer.
    """
    with _admin(bootstrap) as admin:
        outcomes = _plan_all(admin, specs, grow=grow)
        for spec, outcome in zip(specs, outcomes, strict=True):
            if outcome.action == "created":
                _create(admin, spec)
            elif outcome.action == "grown":
                admin.create_partitions({spec.name: spec.partitions})
        _await_leaders(admin, specs)
        _plan_all(admin, specs, grow=False)  # somebody else may have created one, differently
    return outcomes


def list_topics(bootstrap: str) -> list[str]:
    """Return the names of all topics but Kafka's own, sorted.

    Raises:
        BrokerError: the broker does not answer.
    """
    with _admin(bootstrap) as admin:
        return _names(admin)


def describe(bootstrap: str, names: Iterable[str] | None = None) -> list[Topic]:
    """Report topics as they are, by name; all but Kafka's own when `names` is None.

    Raises:
        HeadraceError: a topic does not exist.
        BrokerError: the broker does not answer.
    """
    with _admin(bootstrap) as admin:
        existing = _names(admin)
        wanted = existing if names is None else sorted(set(names))
        if missing := [name for name in wanted if name not in existing]:
            raise HeadraceError(
                f"no topic {', '.join(missing)} at {bootstrap}: there is "
                f"{', '.join(existing) or 'none yet'}; create it (headrace topics create)"
            )
        return _describe(admin, wanted)


@contextmanager
def _admin(bootstrap: str) -> Iterator[KafkaAdminClient]:
    made: list[KafkaNetClient] = []

    def make(**config: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**config))
        return made[0]

    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
            request_timeout_ms=_REQUEST_MS,
            kafka_client=make,
        )
    except (KafkaError, OSError, ValueError) as error:
        for client in made:  # the admin client leaves its thread behind when it cannot bootstrap
            client.close()
        raise BrokerError(
            f"no Kafka answers at {bootstrap} ({type(error).__name__}): start one with "
            "`headrace up`, or give the address of yours (--bootstrap, KAFKA_BOOTSTRAP)"
        ) from error
    try:
        yield admin
    except KafkaError as error:
        raise BrokerError(
            f"the Kafka at {bootstrap} refused or did not answer in time ({type(error).__name__}): "
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
    counts = {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics(list(names))
        if topic["error_code"] == 0
    }
    if not counts:
        return []
    parts = [TopicPartition(name, part) for name, count in counts.items() for part in range(count)]
    begin = admin.list_partition_offsets({part: OffsetSpec.EARLIEST for part in parts})
    end = admin.list_partition_offsets({part: OffsetSpec.LATEST for part in parts})
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts]
    settings = admin.describe_configs(resources, config_filter="all")["topic"]
    return [
        Topic(
            name=name,
            begin=tuple(begin[TopicPartition(name, part)].offset for part in range(count)),
            end=tuple(end[TopicPartition(name, part)].offset for part in range(count)),
            retention_ms=int(settings[name]["retention.ms"]["value"]),
            max_message_bytes=int(settings[name]["max.message.bytes"]["value"]),
        )
        for name, count in sorted(counts.items())
    ]


def _plan_all(admin: KafkaAdminClient, specs: Sequence[TopicSpec], *, grow: bool) -> list[Outcome]:
    existing = {topic.name: topic for topic in _describe(admin, [spec.name for spec in specs])}
    plans = [_plan(spec, existing.get(spec.name), grow=grow) for spec in specs]
    if wrong := [plan for plan in plans if isinstance(plan, str)]:
        raise HeadraceError("; ".join(wrong))
    return [plan for plan in plans if isinstance(plan, Outcome)]


def _plan(spec: TopicSpec, found: Topic | None, *, grow: bool) -> Outcome | str:
    """Decide what to do for one topic, or say in words why it cannot be as wanted."""
    if found is None:
        return Outcome(spec.name, "created")
    title = f"topic {spec.name} has"
    if found.partitions > spec.partitions:
        return (
            f"{title} {found.partitions} partitions, wanted {spec.partitions}: partitions cannot "
            f"be taken away; want {found.partitions}, or use another topic"
        )
    if found.partitions < spec.partitions and not grow:
        return (
            f"{title} {found.partitions} partitions, wanted {spec.partitions}: with more, a key's "
            f"later events go to another partition than its earlier ones; want "
            f"{found.partitions}, use another topic, or ask to grow it"
        )
    actual = {"retention.ms": found.retention_ms, "max.message.bytes": found.max_message_bytes}
    for key, wanted in spec.settings.items():
        if actual[key] != wanted:
            return (
                f"{title} {key}={actual[key]}, wanted {wanted}: it was made otherwise; change it "
                "on the broker, or want what it has"
            )
    return Outcome(spec.name, "grown" if found.partitions < spec.partitions else "unchanged")


def _create(admin: KafkaAdminClient, spec: TopicSpec) -> None:
    configs = {key: str(value) for key, value in spec.settings.items()}
    wanted = {spec.name: {"num_partitions": spec.partitions, "configs": configs}}
    [answer] = admin.create_topics(wanted, raise_errors=False)["topics"]
    if answer["error_code"] not in (0, TopicAlreadyExistsError.errno):
        raise HeadraceError(f"cannot create topic {spec.name}: {answer['error_message']}")


def _await_leaders(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> None:
    """Wait until every partition that is wanted can be written: creation is asynchronous."""
    give_up = time.monotonic() + _REQUEST_MS / 1000
    while waiting := [spec.name for spec in specs if _led(admin, spec) < spec.partitions]:
        if time.monotonic() >= give_up:
            raise BrokerError(
                f"topic {waiting[0]} has no leader after {_REQUEST_MS / 1000:.0f} s: "
                "look at the broker's log"
            )
        time.sleep(0.05)


def _led(admin: KafkaAdminClient, spec: TopicSpec) -> int:
    [topic] = admin.describe_topics([spec.name])
    return sum(p["error_code"] == 0 and p["leader_id"] >= 0 for p in topic["partitions"])
