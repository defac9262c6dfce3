"""Releases are of records that are certain, and no trouble with them stops a learner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.stream.errors import BrokerError
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.ledger.ledger import Consumed, Entry, Record
from headrace.stream.ledger.position import Position
from headrace.stream.ledger.release import Collector, Release
from headrace.stream.service import releaser as module
from headrace.stream.service.releaser import Releaser
from headrace.stream.training.snapshot import digest, released_shapes
from headrace.stream.training.trainer import Trainer
from tests.support.memory_kafka import MemoryKafka, MemoryTransactions
from tests.support.serving import small_task, trained

TASK = small_task()
SHAPES = released_shapes(TASK)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trained(TASK)


@pytest.fixture
def kafka() -> MemoryKafka:
    made = MemoryKafka()
    made.make(topic_specs(TASK), partitions=1)
    return made


@pytest.fixture
def notes() -> list[str]:
    return []


class Clock:
    """Be the time of the releaser."""

    now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    yield made


def make(kafka: MemoryKafka, notes: list[str], every_s: float = 1.0) -> Releaser:
    return Releaser(TASK, kafka, None, {}, every_s, notes.append)


def entry(seq: int) -> Entry:
    record = Record(run="aa", seq=seq, epoch=1, time_ms=1, consumed=(Consumed(0, 0, seq, 0),))
    return Entry(100 + seq, record)


def at(offset: int) -> Position:
    position = Position()
    position.offsets[0] = offset
    return position


def release(by: Releaser, trainer: Trainer, seq: int) -> None:
    by.stage(seq, trainer.snapshot(), at(seq))
    by.on_confirmed(entry(seq))
    by.finish()


def found(kafka: MemoryKafka) -> list[Release]:
    """Return what a reader of committed records takes."""
    collector = Collector(SHAPES, None, lambda manifest: None)
    partition, taken = kafka.topics[TASK.output("models")][0], []
    for offset, value in zip(partition.offsets, partition.values, strict=True):
        if offset not in partition.hidden:
            taken.append(collector.add(partition.keys[offset], value))
    assert not collector.problems
    return [each for each in taken if each]


def test_a_release_holds_the_state_of_its_record(
    kafka: MemoryKafka, notes: list[str], trainer: Trainer
) -> None:
    by = make(kafka, notes)
    release(by, trainer, 7)
    (one,) = found(kafka)
    snapshot = trainer.snapshot()
    wanted = {name: snapshot.tensors()[name] for name in SHAPES}
    assert digest(one.tensors) == one.manifest.state == digest(wanted)
    assert (one.manifest.run, one.manifest.seq, one.manifest.ledger_offset) == ("aa", 7, 107)
    assert one.manifest.positions == {0: 7}
    assert one.manifest.learned == 60
    assert "recent" not in one.tensors
    assert not notes


def test_nothing_is_released_before_its_record_is_certain(
    kafka: MemoryKafka, notes: list[str], trainer: Trainer
) -> None:
    by = make(kafka, notes)
    by.stage(7, trainer.snapshot(), at(7))
    by.on_confirmed(entry(6))
    by.finish()
    assert by.busy
    assert not found(kafka)
    by.on_confirmed(entry(7))
    by.finish()
    assert not by.busy
    assert [each.manifest.seq for each in found(kafka)] == [7]


def test_it_is_due_when_something_came_and_time_has_passed(
    kafka: MemoryKafka, notes: list[str], trainer: Trainer, clock: Clock
) -> None:
    by = make(kafka, notes, every_s=2.0)
    assert by.is_due(at(1))
    by.stage(1, trainer.snapshot(), at(1))
    clock.now_s += 5
    assert not by.is_due(at(2))  # one is under way
    by.on_confirmed(entry(1))
    by.finish()
    assert by.is_due(at(2))
    assert not by.is_due(at(1))
    release(by, trainer, 2)
    clock.now_s += 1.9
    assert not by.is_due(at(3))
    clock.now_s += 0.2
    assert by.is_due(at(3))
    never = make(kafka, notes, every_s=0.0)
    assert not never.is_due(at(9))
    assert not never.is_stale(at(9))


def test_writing_takes_a_tenth_of_the_time_and_waiting_for_a_producer_does_not_count(
    kafka: MemoryKafka,
    notes: list[str],
    trainer: Trainer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = make(kafka, notes)
    opened = kafka.transactions

    def refused(*arguments: object, **more: object) -> None:
        clock.now_s += 90
        raise BrokerError("no Kafka answers")

    def slow(*arguments: Any, **more: Any) -> Any:
        clock.now_s += 60
        return opened(*arguments, **more)

    for opening in (refused, slow):
        monkeypatch.setattr(kafka, "transactions", opening)
        release(by, trainer, 1)
        assert by.is_due(at(2))
    assert [each.manifest.seq for each in found(kafka)] == [1]

    def commit(self: MemoryTransactions) -> None:
        clock.now_s += 3

    monkeypatch.setattr(MemoryTransactions, "await_commit", commit)
    release(by, trainer, 2)
    clock.now_s += 26.9
    assert not by.is_due(at(3))
    clock.now_s += 0.2
    assert by.is_due(at(3))


def test_what_cannot_be_written_is_told_once_and_tried_again(
    kafka: MemoryKafka, notes: list[str], trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = make(kafka, notes)
    with monkeypatch.context() as patch:

        def gone(*arguments: object, **more: object) -> None:
            raise BrokerError("no Kafka answers")

        patch.setattr(kafka, "transactions", gone)
        for seq in (1, 2):
            release(by, trainer, seq)
    assert notes == ["the state of record 1 was not released: no Kafka answers"]
    assert by.is_stale(at(3))
    release(by, trainer, 3)
    assert [each.manifest.seq for each in found(kafka)] == [3]


def test_without_its_topic_a_learner_says_what_to_do_and_looks_for_it_from_time_to_time(
    kafka: MemoryKafka,
    notes: list[str],
    trainer: Trainer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by = make(kafka, notes)
    with monkeypatch.context() as patch:
        patch.setattr(kafka, "describe_existing", lambda names: [])
        for seq in (1, 2):
            release(by, trainer, seq)
            clock.now_s += 29.9
            assert not by.is_due(at(seq + 1))
            clock.now_s += 0.2
            assert by.is_due(at(seq + 1))
    assert len(notes) == 1
    assert "no topic poisoned.models" in notes[0]
    assert "headrace topics create" in notes[0]
    release(by, trainer, 3)
    clock.now_s += 1.1
    assert by.is_due(at(4))
    assert [each.manifest.seq for each in found(kafka)] == [3]


def test_a_newer_learner_ends_the_releases_of_an_older_one(
    kafka: MemoryKafka, notes: list[str], trainer: Trainer
) -> None:
    old, new = make(kafka, notes), make(kafka, notes)
    release(old, trainer, 1)
    release(new, trainer, 2)
    release(old, trainer, 3)
    assert notes == ["releases no more states: another learner of this task does"]
    assert not old.is_stale(at(4))
    release(new, trainer, 4)
    assert [each.manifest.seq for each in found(kafka)] == [1, 2, 4]
