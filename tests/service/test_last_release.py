"""What is served once learning stands still is where it stands, whatever was slow or failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.errors import BrokerError
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.position import Position
from headrace.stream.ledger.release import Release, released
from headrace.stream.serve.follower import Follower
from headrace.stream.service import service, start
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from headrace.stream.training.snapshot import digest, released_shapes, shapes_of
from tests.support.events import good, task_text
from tests.support.memory_kafka import MemoryKafka, MemoryTransactions
from tests.support.releases import release, releaser

SMALL = '\n[model]\nnetwork = "linear"\nlearning_rate = 0.01\nneighbours = 0\n'
TASK = parse(task_text("small") + SMALL, "test")


@pytest.fixture
def kafka() -> MemoryKafka:
    made = MemoryKafka()
    made.make(topic_specs(TASK), partitions=1)
    return made


def newest(kafka: MemoryKafka, task: Task = TASK) -> Release | None:
    follower = Follower(task, kafka)
    found = follower.poll(0.0)
    assert not follower.problems
    follower.close()
    return found


def delay(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have each release take so long."""
    begin = MemoryTransactions.begin

    def later(self: MemoryTransactions) -> None:
        if self._id.endswith(".models"):
            time.sleep(seconds)
        begin(self)

    monkeypatch.setattr(MemoryTransactions, "begin", later)


def learned(kafka: MemoryKafka, folder: Path, release_s: float = 60.0, **options: Any) -> None:
    """Learn what is there, and end."""
    place = Safety(str(folder))
    learn(TASK, kafka, origin="events", safety=place, release_s=release_s, **options)


def fill(kafka: MemoryKafka, events: int) -> None:
    for number in range(events):
        kafka.topics[TASK.input.topic][0].append(good(number))


def test_a_learner_that_ends_waits_for_its_last_release(
    kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(kafka, 70)
    monkeypatch.setattr(start, "HURRY_S", 0.01)
    delay(monkeypatch, 1.0)
    learned(kafka, tmp_path, drain=True, micro_batch=16)
    found = newest(kafka)
    assert found is not None
    assert found.manifest.positions == {0: 70}
    assert found.manifest.counts["events"] == 70


def test_one_in_a_hurry_does_not_wait_for_a_slow_one(
    kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(kafka, 10)
    for module in (service, start):
        monkeypatch.setattr(module, "HURRY_S", 0.2)
    delay(monkeypatch, 5.0)
    told_s: list[float] = []

    def stop() -> bool:
        if kafka.topics[TASK.output("predictions")][0].end:
            told_s.append(time.monotonic())
        return bool(told_s)

    learned(kafka, tmp_path, stop=stop)
    assert time.monotonic() - told_s[0] < 4.0
    assert newest(kafka) is None


def test_no_release_is_written_where_none_is_asked_for(kafka: MemoryKafka, tmp_path: Path) -> None:
    fill(kafka, 10)
    learned(kafka, tmp_path, release_s=0.0, drain=True)
    assert not kafka.topics[TASK.output("models")][0].offsets


def test_the_state_that_is_released_is_that_of_the_checkpoint(
    kafka: MemoryKafka, tmp_path: Path
) -> None:
    fill(kafka, 70)
    learned(kafka, tmp_path, drain=True)
    found = newest(kafka)
    assert found is not None
    with_all = Checkpoints(str(tmp_path / TASK.name), run=found.manifest.run).newest(
        shapes_of(TASK), accept=lambda _: True
    )
    assert with_all is not None
    manifest, tensors = with_all
    assert (manifest.seq, manifest.chain) == (found.manifest.seq, found.manifest.chain)
    assert digest(released(tensors, released_shapes(TASK))) == digest(found.tensors)


def test_one_that_failed_is_tried_again_although_nothing_more_comes(
    kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    by = releaser(TASK, kafka, every_s=0.001, on_trouble=lines.append)

    def refuse(*arguments: object, **settings: object) -> None:
        raise BrokerError("no Kafka answers")

    with monkeypatch.context() as patch:
        patch.setattr(kafka, "transactions", refuse)
        release(by, TASK, 1)
    assert newest(kafka) is None
    assert len(lines) == 1
    assert by.is_stale(Position({0: 1}))
    give_up_s = time.monotonic() + 60
    while not by.is_due(Position({0: 1})):  # writing rests ten times as long as it took
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    release(by, TASK, 1)
    assert not by.is_stale(Position({0: 1}))
    found = newest(kafka)
    assert found is not None
    assert found.manifest.seq == 1
