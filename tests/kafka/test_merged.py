"""History of several partitions by time: all of it, once, and nothing kept back for ever."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.kafka import merged
from headrace.stream.kafka.merged import MergedSource
from tests.support.memory_kafka import MemoryKafka, Partition

TIMES = st.lists(st.integers(1, 60), max_size=25)


def log_of(partitions: list[list[int]], block: int = 7) -> MemoryKafka:
    """Make a topic of records with these timestamps, by partition."""
    kafka = MemoryKafka({"t": {at: Partition() for at in range(len(partitions))}})
    for at, times_ms in enumerate(partitions):
        for time_ms in times_ms:
            kafka.topics["t"][at].append(b"x", time_ms=time_ms)
    kafka.block = lambda: block
    return kafka


def by_time(partitions: list[list[int]]) -> list[tuple[int, int, int]]:
    """Return what each record is due at, its partition, and its offset, by time."""
    found = []
    for at, times_ms in enumerate(partitions):
        newest = 0
        for offset, time_ms in enumerate(times_ms):
            newest = max(newest, time_ms)
            found.append((newest, at, offset))
    return sorted(found)


@settings(deadline=None)
@given(st.lists(TIMES, min_size=2, max_size=4), st.integers(1, 9), st.integers(1, 12))
def test_history_comes_by_time_whatever_the_blocks_are(
    partitions: list[list[int]], block: int, most: int
) -> None:
    kafka = log_of(partitions, block)
    source = MergedSource(kafka.source("t", timestamps=True))
    ends, given_ones = source.ends(), list[tuple[int, int]]()
    due = {(at, offset): time_ms for time_ms, at, offset in by_time(partitions)}
    turns = 0
    while source.ended < set(source.partitions) or any(
        source.position[p] < end for p, end in ends.items()
    ):
        records = source.poll(most, 0)
        places = [*zip(records.partitions, records.offsets, strict=True)] if records else []
        assert places == sorted(places)
        given_ones += sorted(places, key=lambda place: (due[place], place))
        rest = [time_ms for place, time_ms in due.items() if place not in given_ones]
        assert source.complete_ms < min(rest, default=math.inf) or not rest
        turns += 1
        assert turns < 500
    times_ms = [due[place] for place in given_ones]
    assert times_ms == sorted(times_ms)
    assert sorted(given_ones) == sorted(due)
    assert source.complete_ms == math.inf
    assert source.lag() == 0


def test_what_comes_later_is_given_at_once() -> None:
    kafka = log_of([[10, 30], [20]])
    source = MergedSource(kafka.source("t", timestamps=True))
    while source.ended < {0, 1}:
        source.poll(9, 0)
    kafka.topics["t"][1].append(b"x", time_ms=5)
    records = source.poll(9, 0)
    assert records
    assert (records.partitions, records.offsets) == ([1], [1])
    assert source.position == {0: 2, 1: 2}


def test_a_partition_that_does_not_come_keeps_the_others_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka = log_of([[10, 20], [15]])
    monkeypatch.setattr(merged, "PATIENCE_S", math.inf)
    source = MergedSource(kafka.source("t", timestamps=True, partitions=[0, 1]))
    first = source.poll(9, 0)
    assert first is None  # the other partition may have what came before
    assert source.position[0] == 0
    monkeypatch.setattr(merged, "PATIENCE_S", 0.0)
    kafka.late = 1  # nothing comes
    records = source.poll(9, 0)
    assert records
    assert records.offsets == [0, 1]
