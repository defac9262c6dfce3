"""Transactional ids: who has one, and transactions that nobody would ever end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.stream.audit.verify import verify
from headrace.stream.errors import FencedError, InDoubtError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.fencing import abort_hanging, owner_of, was_taken_over
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.task import Task, parse
from tests.support.events import good, task_text
from tests.support.learners import life
from tests.support.running import Running
from tests.support.topics import read, send


@pytest.fixture
def task(kafka: KafkaConnection) -> Task:
    name = f"fence-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(kafka, topic_specs(made))
    return made


@pytest.fixture
def careless(kafka: KafkaConnection) -> Iterator[None]:
    """Have the broker believe producers, as it did before KIP-890: so a transaction can hang."""

    def verification(value: str) -> None:
        name = "transaction.partition.verification.enable"
        resource = ConfigResource(ConfigResourceType.BROKER, "1", configs={name: value})
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.alter_configs([resource])

    verification("false")
    yield
    verification("true")


def hang(kafka: KafkaConnection, transactional_id: str, topic: str) -> None:
    """Leave a transaction open of which the coordinator knows nothing.

    The client is made to believe that it has told the coordinator of the partition.
    """
    producer = KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=transactional_id)
    producer.init_transactions()
    producer.begin_transaction()
    producer._transaction_manager._partitions_in_transaction.add(TopicPartition(topic, 0))
    producer.send(topic, b"never decided", partition=0).get(20)
    producer.close(timeout=0)


def test_a_transaction_that_hangs_is_aborted_by_the_next_learner(
    kafka: KafkaConnection, task: Task, careless: None
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    for stage in ("ledger", "predictions", "metrics"):
        hang(kafka, f"{task.name}.learn", task.output(stage))
    send(kafka, task.input.topic, [good(n) for n in range(20, 50)])
    with Running(task, kafka) as learner:
        learner.wait(lambda progress: progress.events == 50)
    assert sorted(note for note in learner.notes if "hung" in note) == [
        f"{task.output(stage)}/0: a transaction of an earlier learner hung there, and was aborted"
        for stage in ("ledger", "metrics", "predictions")
    ]
    assert len(read(kafka, task.output("predictions"))) == 50
    assert verify(task, kafka, deep=True).findings == []


def test_what_others_have_open_is_left_alone(kafka: KafkaConnection, task: Task) -> None:
    other = kafka.transactions(f"{task.name}.other")
    other.begin()
    other.send(task.output("drift"), [b"{}"])
    other._sink.flush(10)
    owner = owner_of(kafka, f"{task.name}.other")
    mine = kafka.transactions(f"{task.name}.mine")
    own = owner_of(kafka, f"{task.name}.mine")
    assert abort_hanging(kafka, own, [task.output("drift")]) == []
    other.commit()
    other.await_commit()
    assert owner_of(kafka, f"{task.name}.other") == owner
    mine.close()
    other.close()


def ends(kafka: KafkaConnection, topic: str, level: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=kafka.servers, isolation_level=level)
    place = TopicPartition(topic, 0)
    found: int = consumer.end_offsets([place])[place]
    consumer.close()
    return found


def wait_timed_out(kafka: KafkaConnection, topic: str, timeout_s: float = 60.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while ends(kafka, topic, "read_committed") != ends(kafka, topic, "read_uncommitted"):
        assert time.monotonic() < give_up_s
        time.sleep(0.3)


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transactions time out soon."""
    from headrace.stream.kafka import sink

    monkeypatch.setattr(sink, "TRANSACTION_S", 1.0)


def test_one_that_stood_still_is_not_told_that_another_took_over(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka ends its epoch in both cases; only in one of them it must not start again."""
    short(monkeypatch)
    sleeper = kafka.transactions(f"{task.name}.learn")
    owner = owner_of(kafka, f"{task.name}.learn")
    sleeper.begin()
    sleeper.send(task.output("drift"), [b"{}"])
    sleeper._sink.flush(10)
    wait_timed_out(kafka, task.output("drift"))
    assert not was_taken_over(kafka, f"{task.name}.learn", owner)
    sleeper.commit()
    with pytest.raises(InDoubtError, match="start again"):
        sleeper.await_commit()
    heir = kafka.transactions(f"{task.name}.learn")
    assert was_taken_over(kafka, f"{task.name}.learn", owner)
    heir.close()
    sleeper.close()


@pytest.mark.parametrize("opened", [False, True])
def test_one_that_was_fenced_is_told_so(kafka: KafkaConnection, task: Task, opened: bool) -> None:
    first = kafka.transactions(f"{task.name}.learn")
    first.begin()
    first.send(task.output("drift"), [b"{}"])
    first._sink.flush(10)
    second = kafka.transactions(f"{task.name}.learn")
    if opened:
        second.begin()
        second.send(task.output("drift"), [b"{}"])
        second.commit()
        second.await_commit()
    first.commit()
    with pytest.raises(FencedError, match="took over"):
        first.await_commit()
    first.close()
    second.close()


def test_a_record_that_cannot_be_delivered_is_no_fencing(
    kafka: KafkaConnection, task: Task
) -> None:
    writer = kafka.transactions(f"{task.name}.learn")
    writer.begin()
    writer.send(task.output("drift"), [b"x" * 3_000_000])
    writer.commit()
    with pytest.raises(InDoubtError, match="size too large; start again"):
        writer.await_commit()
    writer.close()


def test_a_sink_takes_what_a_topic_takes(kafka: KafkaConnection, task: Task) -> None:
    """librdkafka refuses what is larger than a million bytes, unless it is told otherwise."""
    sink: Any = kafka.sink()
    sink.send(task.output("predictions"), [b"x" * 1_040_000])
    sink.flush()
