from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, Message, Producer
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.stream.errors import BrokerError, HeadraceError, TopicError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import Outcome, delete, describe, ensure, list_topics
from headrace.stream.task import parse
from tests.support.events import TASK


@pytest.fixture
def name() -> str:
    return f"topics.{uuid4().hex[:8]}"


def partitions_and_retention(kafka: KafkaConnection, name: str) -> tuple[int, str]:
    """Ask the broker by other means than the code under test."""
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        [topic] = admin.describe_topics([name])
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        configs = admin.describe_configs([resource], config_filter="all")
        return len(topic["partitions"]), configs["topic"][name]["retention.ms"]["value"]


def test_ensure_creates_what_is_missing_and_nothing_twice(
    kafka: KafkaConnection, name: str
) -> None:
    specs = [TopicSpec(f"{name}.a", 3, 60_000), TopicSpec(f"{name}.b", retention_ms=-1)]
    assert ensure(kafka, specs[:1]) == [Outcome(f"{name}.a", "created", 3)]
    assert ensure(kafka, specs) == [
        Outcome(f"{name}.a", "unchanged", 3),
        Outcome(f"{name}.b", "created", 1),
    ]
    assert partitions_and_retention(kafka, f"{name}.a") == (3, "60000")
    assert partitions_and_retention(kafka, f"{name}.b") == (1, "-1")
    assert {f"{name}.a", f"{name}.b"} <= set(list_topics(kafka))
    assert [outcome.action for outcome in ensure(kafka, specs)] == ["unchanged", "unchanged"]


def test_a_topic_can_be_written_as_soon_as_ensure_returns(
    kafka: KafkaConnection, name: str
) -> None:
    ensure(kafka, [TopicSpec(name, partitions=8)])
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        [topic] = admin.describe_topics([name])
    assert [part["leader_id"] >= 0 for part in topic["partitions"]] == [True] * 8


def test_describe_reports_settings_and_offsets_by_partition(
    kafka: KafkaConnection, name: str
) -> None:
    ensure(kafka, [TopicSpec(name, 2, 60_000, 2_000_000)])
    with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
        for _ in range(3):
            producer.send(name, b"x", partition=1)
    [topic] = describe(kafka, [name])
    assert (topic.name, topic.partitions) == (name, 2)
    assert (topic.begin, topic.end) == ((0, 0), (0, 3))
    assert (topic.retention_ms, topic.max_message_bytes) == (60_000, 2_000_000)
    assert (topic.cleanup_policy, topic.retention_bytes) == ("delete", -1)
    assert name in [each.name for each in describe(kafka)]


def test_describe_names_a_topic_that_does_not_exist(kafka: KafkaConnection, name: str) -> None:
    with pytest.raises(HeadraceError, match=f"no topic {name}"):
        describe(kafka, [name])


def make(kafka: KafkaConnection, name: str, partitions: int = 1, **configs: object) -> None:
    """Make a topic as its user would, with Kafka's own defaults but for `configs`."""
    settings = {key.replace("_", "."): str(value) for key, value in configs.items()}
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "configs": settings}})


@pytest.mark.parametrize("configs", [{}, {"retention_ms": 3_600_000, "max_message_bytes": 900}])
def test_a_topic_of_its_user_is_taken_as_it_is(
    kafka: KafkaConnection, name: str, configs: dict[str, int]
) -> None:
    make(kafka, name, 3, **configs)
    before = describe(kafka, [name])
    specs = [
        TopicSpec(name, 1, 60_000, 5_000_000),
        TopicSpec(f"{name}.out", 1, record_bytes=100, role="output", beside=name),
    ]
    assert ensure(kafka, specs) == [
        Outcome(name, "unchanged", 3),
        Outcome(f"{name}.out", "created", 3),
    ]
    assert describe(kafka, [name]) == before


def test_outputs_grow_with_their_input_and_the_input_only_when_asked(
    kafka: KafkaConnection, name: str
) -> None:
    specs = [TopicSpec(name, 2), TopicSpec(f"{name}.out", 2, role="output", beside=name)]
    assert [each.action for each in ensure(kafka, specs)] == ["created", "created"]
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.create_partitions({name: 3})
    assert ensure(kafka, specs) == [
        Outcome(name, "unchanged", 3),
        Outcome(f"{name}.out", "grown", 3),
    ]
    more = [replace(spec, partitions=4) for spec in specs]
    assert [each.partitions for each in ensure(kafka, more)] == [3, 3]
    assert [each.partitions for each in ensure(kafka, more, grow=True)] == [4, 4]
    assert [each.partitions for each in ensure(kafka, specs, grow=True)] == [4, 4]


LEDGER = {"retention_ms": -1, "cleanup_policy": "delete"}


@pytest.mark.parametrize(
    ("spec", "partitions", "configs", "line"),
    [
        ({}, 1, {"cleanup_policy": "compact"}, "is compacted .*cleanup.policy=delete$"),
        ({}, 1, {"cleanup_policy": "compact,delete"}, "is compacted .*cleanup.policy=delete$"),
        (
            {"role": "output", "record_bytes": 700_000},
            1,
            {"max_message_bytes": 600_000},
            "has max.message.bytes=600000, and .* 700000: raise it to that$",
        ),
        ({"role": "ledger"}, 1, LEDGER | {"retention_ms": 5}, "has retention.ms=5 .* -1$"),
        ({"role": "ledger"}, 1, LEDGER | {"retention_bytes": 9}, ".* retention.bytes=9: .* -1$"),
    ],
)
def test_what_cannot_work_is_explained_and_nothing_is_changed(
    kafka: KafkaConnection,
    name: str,
    spec: dict[str, Any],
    partitions: int,
    configs: Any,
    line: str,
) -> None:
    make(kafka, name, partitions, **configs)
    before = describe(kafka, [name])
    with pytest.raises(TopicError, match=f"^topic {name} {line}") as caught:
        ensure(kafka, [TopicSpec(f"{name}.new"), TopicSpec(name, **spec)])
    assert "\n" not in str(caught.value)
    assert describe(kafka, [name]) == before
    assert f"{name}.new" not in list_topics(kafka), "one cannot work, and none is touched"


@pytest.mark.parametrize("max_bytes", [1_000, 65_536, 16_777_216])
def test_topics_take_what_default_clients_send(
    kafka: KafkaConnection, name: str, max_bytes: int
) -> None:
    """librdkafka puts records into batches of up to a million bytes."""
    text = TASK.replace("events.poisoned", name).replace("4096", str(max_bytes))
    task = parse(text.replace('"poisoned"', f'"{name.replace(".", "-")}"'), "t")
    ensure(kafka, topic_specs(task))
    refused: list[KafkaError] = []

    def reported(error: KafkaError | None, _: Message) -> None:
        refused.extend([error] if error else [])

    producer = Producer({"bootstrap.servers": kafka.servers, "linger.ms": 100})
    for number in range(50_000):
        producer.produce(name, b"%050d" % number, on_delivery=reported)
        producer.poll(0)
    assert producer.flush(60) == 0
    assert refused == []
    assert describe(kafka, [name])[0].max_message_bytes >= max(max_bytes, 1_048_588)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (TopicSpec("not a name"), "cannot create topic not a name: .*invalid"),
        (TopicSpec("none", partitions=0), "cannot create topic none: .*non-positive"),
        (TopicSpec("past", retention_ms=-7), "cannot create topic past: .*-7"),
    ],
)
def test_what_the_broker_refuses_is_told_in_its_words(
    kafka: KafkaConnection, spec: TopicSpec, line: str
) -> None:
    with pytest.raises(HeadraceError, match=line) as caught:
        ensure(kafka, [spec])
    assert "\n" not in str(caught.value)


def test_two_at_once_create_a_topic_once(kafka: KafkaConnection, name: str) -> None:
    errors: list[Exception] = []

    def create() -> None:
        try:
            ensure(kafka, [TopicSpec(name, 2)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert partitions_and_retention(kafka, name)[0] == 2


def test_a_broker_that_does_not_answer_is_named_with_the_way_out() -> None:
    def kafka_threads() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name.startswith("kafka")]

    before = len(kafka_threads())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerError, match=f"{address} .*`headrace up`") as caught:
            list_topics(KafkaConnection(address))
    assert "\n" not in str(caught.value)
    assert len(kafka_threads()) == before


def test_topics_are_deleted_if_they_are_there(kafka: KafkaConnection) -> None:
    name = f"deleted-{uuid4().hex[:8]}"
    ensure(kafka, [TopicSpec(f"{name}.{at}") for at in range(3)])
    delete(kafka, [f"{name}.0", f"{name}.1", f"{name}.1", f"{name}.none"])
    delete(kafka, [f"{name}.none"])
    assert [each for each in list_topics(kafka) if each.startswith(name)] == [f"{name}.2"]
