"""A follower holds the newest whole state, wherever it begins, and tells only of real trouble."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.ledger.release import CHUNK_BYTES, MANIFEST_KEY, released
from headrace.stream.serve.follower import Follower
from headrace.stream.storage.tensors import most_bytes
from headrace.stream.task import parse
from headrace.stream.training.snapshot import digest, released_shapes
from tests.support.events import task_text
from tests.support.memory_kafka import MemoryKafka, MemoryWatch, Partition
from tests.support.releases import release, releaser, snapshot

TASK = parse(task_text("large"), "test")  # whose state takes many chunks
SHAPES = released_shapes(TASK)
MANY = 9  # releases: more than are looked at first


@pytest.fixture
def kafka() -> MemoryKafka:
    made = MemoryKafka()
    made.make(topic_specs(TASK), partitions=1)
    return made


def topic(kafka: MemoryKafka) -> Partition:
    return kafka.topics[TASK.output("models")][0]


def newest(kafka: MemoryKafka) -> tuple[int | None, list[str]]:
    """Return which release a new follower gives, and the problems that it tells."""
    follower = Follower(TASK, kafka)
    found = follower.poll(0.0)
    follower.close()
    if found is None:
        return None, follower.problems
    seq = found.manifest.seq
    assert digest(found.tensors) == digest(released(snapshot(TASK, seq).tensors(), SHAPES))
    return seq, follower.problems


def test_whenever_it_begins_it_has_the_newest_release_and_no_problem(kafka: MemoryKafka) -> None:
    assert most_bytes(SHAPES) > 5 * CHUNK_BYTES
    by = releaser(TASK, kafka)
    for seq in range(1, MANY + 1):
        release(by, TASK, seq)
        kafka.given.clear()
        assert newest(kafka) == (seq, [])
    assert kafka.given[TASK.output("models")] < len(topic(kafka).offsets) / 2


def test_a_topic_that_is_made_again_at_once_is_not_taken_for_the_one_it_began_with(
    kafka: MemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks which topic it is before it reads: a source alone asks after some seconds."""
    known: list[Any] = []
    confirm, opened = MemoryWatch.confirm, kafka.source

    def confirmed(self: MemoryWatch, asked: int) -> int:
        known.append(self)
        return confirm(self, asked)

    def source(topic: str, **settings: Any) -> Any:
        assert settings["watch"] in known
        return opened(topic, **settings)

    monkeypatch.setattr(MemoryWatch, "confirm", confirmed)
    monkeypatch.setattr(kafka, "source", source)
    release(releaser(TASK, kafka), TASK, 1)
    assert newest(kafka) == (1, [])


def test_nor_has_it_one_where_compaction_left_half_a_release(kafka: MemoryKafka) -> None:
    by = releaser(TASK, kafka)
    for seq in (1, 2):
        release(by, TASK, seq)
    of = topic(kafka)
    half = len(of.offsets) // 2 // 2
    of.offsets, of.values = of.offsets[half:], of.values[half:]
    assert newest(kafka) == (2, [])


def test_what_is_wrong_behind_the_newest_release_is_told(kafka: MemoryKafka) -> None:
    release(releaser(TASK, kafka), TASK, 1)
    topic(kafka).append(b"{}", key=MANIFEST_KEY)
    seq, problems = newest(kafka)
    assert seq == 1
    assert len(problems) == 1


def test_it_finds_the_release_before_many_that_were_cut_off(kafka: MemoryKafka) -> None:
    release(releaser(TASK, kafka), TASK, 1)
    for _ in range(100):  # chunks of transactions that were aborted: no reader sees them
        of = topic(kafka)
        of.hidden[of.append(b"torn", key=bytes(4))] = "aborted"
    assert newest(kafka) == (1, [])
