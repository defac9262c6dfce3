from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count, islice

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from headrace.producers.delivery import Delivery, Progress
from headrace.producers.publish import publish
from headrace.producers.sources import Event, sensor, text
from headrace.stream.errors import BrokerError, HeadraceError, UsageError
from headrace.stream.kafka.connection import KafkaConnection

pytestmark = pytest.mark.kafka  # it starts brokers of its own

MakeTopic = Callable[..., str]


def events(n: int | None, keys: int = 7, size: int = 100) -> Iterator[Event]:
    for i in count() if n is None else range(n):
        yield Event(f"e{i}", b"key-%d" % (i % keys), i * 10, b'{"i":%d}' % i + b" " * size)


def read_back(
    kafka: KafkaConnection, topic: str, n: int
) -> dict[int, list[tuple[bytes | None, bytes]]]:
    """Read a topic from its start with another client; at least `n` records are awaited."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": topic})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: dict[int, list[tuple[bytes | None, bytes]]] = {each: [] for each in partitions}

        def keep(message: Message) -> None:
            partition, value = message.partition(), message.value()
            assert partition is not None and value is not None
            found[partition].append((message.key(), value))

        give_up = time.monotonic() + 20
        while sum(map(len, found.values())) < n and time.monotonic() < give_up:
            for message in consumer.consume(1000, timeout=0.5):
                assert message.error() is None
                keep(message)
        for message in consumer.consume(1000, timeout=0.5):
            keep(message)
        return found
    finally:
        consumer.close()


def accounted(delivery: Delivery, sent: int, failed: int) -> bool:
    return (delivery.sent, delivery.acknowledged, delivery.failed) == (sent, sent - failed, failed)


def test_every_event_arrives_byte_for_byte_and_in_order(
    kafka: KafkaConnection, topic: MakeTopic
) -> None:
    name = topic(partitions=3)
    sent = list(events(30_000))
    delivery = publish(sent, kafka=kafka, topic=name)
    assert accounted(delivery, 30_000, 0)
    found = read_back(kafka, name, 30_000)
    for key in {event.key for event in sent}:
        [home] = [p for p, records in found.items() if any(k == key for k, _ in records)]
        wanted = [event.value for event in sent if event.key == key]
        assert [value for k, value in found[home] if k == key] == wanted
    assert sum(map(len, found.values())) == 30_000


def test_keys_go_where_the_c_client_puts_them(kafka: KafkaConnection, topic: MakeTopic) -> None:
    from confluent_kafka import Producer

    ours, theirs = topic("ours", partitions=5), topic("theirs", partitions=5)
    sent = list(events(200, keys=50))
    publish(sent, kafka=kafka, topic=ours)
    producer = Producer({"bootstrap.servers": kafka.servers, "partitioner": "murmur2_random"})
    for event in sent:
        producer.produce(theirs, event.value, event.key)
    assert producer.flush(20) == 0
    expected = read_back(kafka, theirs, 200)
    assert {p: sorted(r) for p, r in read_back(kafka, ours, 200).items()} == {
        p: sorted(r) for p, r in expected.items()
    }


def test_events_without_key_spread_evenly(kafka: KafkaConnection, topic: MakeTopic) -> None:
    name = topic(partitions=4)
    delivery = publish(text(), kafka=kafka, topic=name, limit=400)
    assert accounted(delivery, 400, 0)
    assert [len(r) for r in read_back(kafka, name, 400).values()] == [100] * 4


def configure(kafka: KafkaConnection, topic: str, settings: dict[str, str]) -> None:
    """Set what a topic's owner has set."""
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=settings)])


def test_an_oversized_event_fails_alone_and_is_named(
    kafka: KafkaConnection, topic: MakeTopic
) -> None:
    name = topic()
    configure(kafka, name, {"max.message.bytes": "10000"})
    sent = list(events(1_000))
    sent[500] = Event("giant", b"key", None, b'"' + b"x" * 10_000 + b'"')
    delivery = publish(sent, kafka=kafka, topic=name)
    assert accounted(delivery, 1_000, 1)
    [error] = delivery.first_errors
    assert error.startswith("giant: 10005 bytes")
    values = [value for _, value in read_back(kafka, name, 999)[0]]
    assert values == [event.value for event in sent if event.id != "giant"]


@pytest.mark.parametrize("size", [9_927, 9_928, 9_929, 9_932, 9_933])
def test_size_limit_agrees_with_the_broker(
    kafka: KafkaConnection, topic: MakeTopic, size: int
) -> None:
    name = topic()
    configure(kafka, name, {"max.message.bytes": "10000"})
    delivery = publish([Event("a", None, None, b"x" * size)], kafka=kafka, topic=name)
    found = len(read_back(kafka, name, 1 - delivery.failed)[0])
    assert (found, delivery.acknowledged) in {(1, 1), (0, 0)}
    assert (delivery.failed == 0) == (size <= 9_928)


def test_events_that_only_the_broker_can_refuse_fail_alone(
    kafka: KafkaConnection, topic: MakeTopic
) -> None:
    """A compacted topic refuses records without key: three of 3,000, one of them the last."""
    name = topic(partitions=2)
    configure(kafka, name, {"cleanup.policy": "compact"})
    sent = list(events(3_000))
    for i in (700, 701, 2_999):
        sent[i] = sent[i]._replace(key=None)
    delivery = publish(sent, kafka=kafka, topic=name)
    assert accounted(delivery, 3_000, 3)
    assert [error.split(": ")[0] for error in delivery.first_errors] == ["e700", "e701", "e2999"]
    assert all("InvalidRecordError" in error for error in delivery.first_errors)
    found = read_back(kafka, name, 2_997)
    arrived = [value for records in found.values() for _, value in records]
    assert len(arrived) == len(set(arrived))
    assert set(arrived) == {event.value for event in sent if event.key is not None}
    for key in {event.key for event in sent if event.key is not None}:
        values = [v for records in found.values() for k, v in records if k == key]
        assert values == [event.value for event in sent if event.key == key]


def test_an_unreachable_broker_is_an_error_at_once() -> None:
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1 "):
        publish(events(10), kafka=KafkaConnection("127.0.0.1:1"), topic="events")


def test_a_missing_topic_is_named(kafka: KafkaConnection) -> None:
    with pytest.raises(HeadraceError, match="no topic nowhere"):
        publish(events(10), kafka=kafka, topic="nowhere")


@pytest.fixture
def leaky_sockets() -> Iterator[None]:
    """Collect the sockets that kafka-python leaves open when it cannot connect."""
    yield
    gc.collect()


@pytest.mark.usefixtures("leaky_sockets")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_broker_that_dies_leaves_a_true_account() -> None:
    from headrace.stream.broker.embedded import embedded
    from headrace.stream.kafka.topic_specs import TopicSpec
    from headrace.stream.kafka.topics import ensure

    seen: list[Progress] = []
    with embedded(heap_mb=256) as broker:
        ensure(broker.kafka, [TopicSpec("events", partitions=2)])

        def kill_once_underway(progress: Progress) -> None:
            if progress.acknowledged >= 500 and not seen:
                os.kill(broker.pid, signal.SIGKILL)
                seen.append(progress)

        delivery = publish(
            events(None),
            kafka=broker.kafka,
            topic="events",
            rate=2_000,
            on_progress=kill_once_underway,
            delivery_timeout_s=2,
        )
    assert seen
    assert delivery.acknowledged >= 500
    assert delivery.failed > 0
    assert delivery.sent == delivery.acknowledged + delivery.failed
    assert 0 < len(delivery.first_errors) <= 10


@pytest.mark.usefixtures("leaky_sockets")
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_broker_that_pauses_loses_nothing() -> None:
    from headrace.stream.broker.embedded import embedded
    from headrace.stream.kafka.topic_specs import TopicSpec
    from headrace.stream.kafka.topics import ensure

    paused: list[float] = []
    with embedded(heap_mb=256) as broker:
        ensure(broker.kafka, [TopicSpec("events", partitions=2)])

        def pause_once(progress: Progress) -> None:
            if progress.acknowledged >= 500 and not paused:
                os.kill(broker.pid, signal.SIGSTOP)
                paused.append(progress.seconds)
            elif paused and progress.seconds - paused[0] > 1:
                os.kill(broker.pid, signal.SIGCONT)

        sent = list(events(6_000))
        try:
            delivery = publish(
                sent,
                kafka=broker.kafka,
                topic="events",
                rate=2_000,
                on_progress=pause_once,
            )
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert paused
        assert accounted(delivery, 6_000, 0)
        found = read_back(broker.kafka, "events", 6_000)
    arrived = [value for records in found.values() for _, value in records]
    assert sorted(arrived) == sorted(event.value for event in sent)


def test_stop_ends_the_taking_and_waits_for_the_rest(
    kafka: KafkaConnection, topic: MakeTopic
) -> None:
    name = topic()
    reports: list[Progress] = []
    delivery = publish(
        events(None),
        kafka=kafka,
        topic=name,
        on_progress=reports.append,
        stop=lambda: bool(reports) and reports[-1].acknowledged >= 1_000,
    )
    assert delivery.acknowledged == delivery.sent >= 1_000
    assert reports[-1].acknowledged == delivery.acknowledged
    [found] = read_back(kafka, name, delivery.sent).values()
    assert [v for _, v in found] == [event.value for event in islice(events(None), delivery.sent)]


def test_limit_and_rate_hold(kafka: KafkaConnection, topic: MakeTopic) -> None:
    name = topic()
    delivery = publish(sensor(loop=True), kafka=kafka, topic=name, rate=200, limit=101)
    assert accounted(delivery, 101, 0)
    assert delivery.seconds >= 0.5


def test_a_source_that_breaks_delivers_what_came_before(
    kafka: KafkaConnection, topic: MakeTopic
) -> None:
    def broken() -> Iterator[Event]:
        yield from events(100)
        raise UsageError("the file ends here")

    name = topic()
    with pytest.raises(UsageError, match="ends here"):
        publish(broken(), kafka=kafka, topic=name)
    assert len(read_back(kafka, name, 100)[0]) == 100


def test_rate_and_speed_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        publish(events(1), kafka=KafkaConnection("127.0.0.1:1"), topic="t", rate=1, speed=2)
