"""Transactional ids: who has one, and transactions that nobody would ever end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from poison import good, task_text
from running import Running
from test_exactly_once import life
from test_learn import read, send

from headrace.stream.audit.verify import verify
from headrace.stream.errors import FencedError, InDoubtError
from headrace.stream.kafka.fencing import abort_hanging, owner_of, was_taken_over
from headrace.stream.kafka.sink import Sink
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.kafka.transactions import Transactions
from headrace.stream.task import Task, parse


@pytest.fixture
def task(bootstrap: str) -> Task:
    name = f"fence-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(bootstrap, topic_specs(made))
    return made


@pytest.fixture
def careless(bootstrap: str) -> Iterator[None]:
    """Have the broker believe producers, as it did before KIP-890: so a transaction can hang."""

    def verification(value: str) -> None:
        name = "transaction.partition.verification.enable"
        resource = ConfigResource(ConfigResourceType.BROKER, "1", configs={name: value})
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
            admin.alter_configs([resource])

    verification("false")
    yield
    verification("true")


def hang(bootstrap: str, transactional_id: str, topic: str) -> None:
    """Leave a transaction open of which the coordinator knows nothing.

    The client is made to believe that it has told the coordinator of the partition.
    """
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id)
    producer.init_transactions()
    producer.begin_transaction()
    producer._transaction_manager._partitions_in_transaction.add(TopicPartition(topic, 0))
    producer.send(topic, b"never decided", partition=0).get(20)
    producer.close(timeout=0)


def test_a_transaction_that_hangs_is_aborted_by_the_next_learner(
    bootstrap: str, task: Task, careless: None
) -> None:
    send(bootstrap, task.input.topic, [good(n) for n in range(20)])
    life(task, bootstrap)
    for stage in ("ledger", "predictions", "metrics"):
        hang(bootstrap, f"{task.name}.learn", task.output(stage))
    send(bootstrap, task.input.topic, [good(n) for n in range(20, 50)])
    with Running(task, bootstrap) as learner:
        learner.wait(lambda progress: progress.events == 50)
    assert sorted(note for note in learner.notes if "hung" in note) == [
        f"{task.output(stage)}/0: a transaction of an earlier learner hung there, and was aborted"
        for stage in ("ledger", "metrics", "predictions")
    ]
    assert len(read(bootstrap, task.output("predictions"))) == 50
    assert verify(task, bootstrap, deep=True).findings == []


def test_what_others_have_open_is_left_alone(bootstrap: str, task: Task) -> None:
    other = Transactions(bootstrap, f"{task.name}.other")
    other.begin()
    other.send(task.output("drift"), [b"{}"])
    other._sink.flush(10)
    owner = owner_of(bootstrap, f"{task.name}.other")
    mine = Transactions(bootstrap, f"{task.name}.mine")
    own = owner_of(bootstrap, f"{task.name}.mine")
    assert abort_hanging(bootstrap, own, [task.output("drift")]) == []
    other.commit()
    other.await_commit()
    assert owner_of(bootstrap, f"{task.name}.other") == owner
    mine.close()
    other.close()


def ends(bootstrap: str, topic: str, level: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level=level)
    place = TopicPartition(topic, 0)
    found: int = consumer.end_offsets([place])[place]
    consumer.close()
    return found


def wait_timed_out(bootstrap: str, topic: str, timeout_s: float = 60.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while ends(bootstrap, topic, "read_committed") != ends(bootstrap, topic, "read_uncommitted"):
        assert time.monotonic() < give_up_s
        time.sleep(0.3)


def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transactions time out soon."""
    from headrace.stream.kafka import sink

    monkeypatch.setattr(sink, "TRANSACTION_S", 1.0)


def test_one_that_stood_still_is_not_told_that_another_took_over(
    bootstrap: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka ends its epoch in both cases; only in one of them it must not start again."""
    short(monkeypatch)
    sleeper = Transactions(bootstrap, f"{task.name}.learn")
    owner = owner_of(bootstrap, f"{task.name}.learn")
    sleeper.begin()
    sleeper.send(task.output("drift"), [b"{}"])
    sleeper._sink.flush(10)
    wait_timed_out(bootstrap, task.output("drift"))
    assert not was_taken_over(bootstrap, f"{task.name}.learn", owner)
    sleeper.commit()
    with pytest.raises(InDoubtError, match="start again"):
        sleeper.await_commit()
    heir = Transactions(bootstrap, f"{task.name}.learn")
    assert was_taken_over(bootstrap, f"{task.name}.learn", owner)
    heir.close()
    sleeper.close()


@pytest.mark.parametrize("opened", [False, True])
def test_one_that_was_fenced_is_told_so(bootstrap: str, task: Task, opened: bool) -> None:
    first = Transactions(bootstrap, f"{task.name}.learn")
    first.begin()
    first.send(task.output("drift"), [b"{}"])
    first._sink.flush(10)
    second = Transactions(bootstrap, f"{task.name}.learn")
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


def test_a_record_that_cannot_be_delivered_is_no_fencing(bootstrap: str, task: Task) -> None:
    writer = Transactions(bootstrap, f"{task.name}.learn")
    writer.begin()
    writer.send(task.output("drift"), [b"x" * 3_000_000])
    writer.commit()
    with pytest.raises(InDoubtError, match="size too large; start again"):
        writer.await_commit()
    writer.close()


def test_a_sink_takes_what_a_topic_takes(bootstrap: str, task: Task) -> None:
    """librdkafka refuses what is larger than a million bytes, unless it is told otherwise."""
    sink: Any = Sink(bootstrap)
    sink.send(task.output("predictions"), [b"x" * 1_040_000])
    sink.flush()
