from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from stream.errors import BrokerError, HeadraceError
from stream.task import TopicSpec
from stream.topics import Outcome, describe, ensure, list_topics


@pytest.fixture
def name() -> str:
    return f"topics.{uuid4().hex[:8]}"


def partitions_and_retention(bootstrap: str, name: str) -> tuple[int, str]:
    """Ask the broker by other means than the code under test."""
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        [topic] = admin.describe_topics([name])
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        configs = admin.describe_configs([resource], config_filter="all")
        return len(topic["partitions"]), configs["topic"][name]["retention.ms"]["value"]


def test_ensure_creates_what_is_missing_and_nothing_twice(bootstrap: str, name: str) -> None:
    specs = [TopicSpec(f"{name}.a", 3, 60_000, 5_000), TopicSpec(f"{name}.b", retention_ms=-1)]
    assert ensure(bootstrap, specs[:1]) == [Outcome(f"{name}.a", "created")]
    assert ensure(bootstrap, specs) == [
        Outcome(f"{name}.a", "unchanged"),
        Outcome(f"{name}.b", "created"),
    ]
    assert partitions_and_retention(bootstrap, f"{name}.a") == (3, "60000")
    assert partitions_and_retention(bootstrap, f"{name}.b") == (1, "-1")
    assert {f"{name}.a", f"{name}.b"} <= set(list_topics(bootstrap))
    assert [outcome.action for outcome in ensure(bootstrap, specs)] == ["unchanged", "unchanged"]


def test_a_topic_can_be_written_as_soon_as_ensure_returns(bootstrap: str, name: str) -> None:
    ensure(bootstrap, [TopicSpec(name, partitions=8)])
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        [topic] = admin.describe_topics([name])
    assert [part["leader_id"] >= 0 for part in topic["partitions"]] == [True] * 8


def test_describe_reports_settings_and_offsets_by_partition(bootstrap: str, name: str) -> None:
    ensure(bootstrap, [TopicSpec(name, 2, 60_000, 5_000)])
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        for _ in range(3):
            producer.send(name, b"x", partition=1)
    [topic] = describe(bootstrap, [name])
    assert (topic.name, topic.partitions) == (name, 2)
    assert (topic.begin, topic.end) == ((0, 0), (0, 3))
    assert (topic.retention_ms, topic.max_message_bytes) == (60_000, 5_000)
    assert name in [each.name for each in describe(bootstrap)]


def test_describe_names_a_topic_that_does_not_exist(bootstrap: str, name: str) -> None:
    with pytest.raises(HeadraceError, match=f"no topic {name}"):
        describe(bootstrap, [name])


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (lambda name: TopicSpec(name, 1), r"has 2 partitions, wanted 1: .* cannot be taken away"),
        (lambda name: TopicSpec(name, 4), r"has 2 partitions, wanted 4: .* another partition"),
        (lambda name: TopicSpec(name, 2, 5), r"has retention.ms=60000, wanted 5"),
        (lambda name: TopicSpec(name, 2, None, 9), r"has max.message.bytes=5000, wanted 9"),
    ],
)
def test_a_mismatch_is_explained_and_nothing_is_changed(
    bootstrap: str, name: str, wanted: Callable[[str], TopicSpec], line: str
) -> None:
    ensure(bootstrap, [TopicSpec(name, 2, 60_000, 5_000)])
    with pytest.raises(HeadraceError, match=f"^topic {name} {line}") as caught:
        ensure(bootstrap, [TopicSpec(f"{name}.new"), wanted(name)])
    assert "\n" not in str(caught.value)
    assert partitions_and_retention(bootstrap, name) == (2, "60000")
    assert f"{name}.new" not in list_topics(bootstrap), "one mismatch, and none is touched"


def test_growing_must_be_asked_for(bootstrap: str, name: str) -> None:
    ensure(bootstrap, [TopicSpec(name, 2)])
    assert ensure(bootstrap, [TopicSpec(name, 3)], grow=True) == [Outcome(name, "grown")]
    assert partitions_and_retention(bootstrap, name)[0] == 3
    with pytest.raises(HeadraceError, match="has 3 partitions, wanted 2"):
        ensure(bootstrap, [TopicSpec(name, 2)], grow=True)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (TopicSpec("not a name"), "cannot create topic not a name: .*invalid"),
        (TopicSpec("none", partitions=0), "cannot create topic none: .*non-positive"),
        (TopicSpec("past", retention_ms=-7), "cannot create topic past: .*-7"),
    ],
)
def test_what_the_broker_refuses_is_told_in_its_words(
    bootstrap: str, spec: TopicSpec, line: str
) -> None:
    with pytest.raises(HeadraceError, match=line) as caught:
        ensure(bootstrap, [spec])
    assert "\n" not in str(caught.value)


def test_two_at_once_create_a_topic_once(bootstrap: str, name: str) -> None:
    errors: list[Exception] = []

    def create() -> None:
        try:
            ensure(bootstrap, [TopicSpec(name, 2)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert partitions_and_retention(bootstrap, name)[0] == 2


def test_a_broker_that_does_not_answer_is_named_with_the_way_out() -> None:
    def kafka_threads() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name.startswith("kafka")]

    before = len(kafka_threads())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerError, match=f"{address} .*`headrace up`") as caught:
            list_topics(address)
    assert "\n" not in str(caught.value)
    assert len(kafka_threads()) == before
