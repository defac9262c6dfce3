from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stream.errors import BrokerError, HistoryError
from headrace.stream.kafka import history
from headrace.stream.kafka.history import Range, TopicHistory
from tests.support.memory_kafka import MemoryKafka, Partition

GAPS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 40]), max_size=60)


def filled(*gaps: list[int]) -> MemoryKafka:
    """Return a log of one topic; of each partition, how many offsets are empty before a record."""
    partitions = {}
    for at, skips in enumerate(gaps):
        partitions[at] = Partition()
        for number, skip in enumerate(skips):
            partitions[at].append(b"%d/%d" % (at, number), skip)
    return MemoryKafka({"t": partitions})


def opened(log: MemoryKafka) -> TopicHistory:
    return TopicHistory(log, "t")


def truth(log: MemoryKafka, ranges: list[Range]) -> list[tuple[int, int, bytes]]:
    """Return partition, offset and value of what a log holds in ranges."""
    return [
        (p, offset, value)
        for p, start, stop in ranges
        for offset, value in zip(log.topics["t"][p].offsets, log.topics["t"][p].values, strict=True)
        if start <= offset < stop
    ]


def given_again(found: TopicHistory, ranges: list[Range]) -> list[tuple[int, int, bytes]]:
    got = found.read(ranges)
    assert len(got.keys) == len(got.timestamps_ms) == len(got.values)
    return list(zip(got.partitions, got.offsets, (v or b"" for v in got.values), strict=True))


@given(GAPS, GAPS, st.integers(0, 2**32))
def test_ranges_give_what_the_topic_holds_and_fetch_it_once(
    one: list[int], other: list[int], seed: int
) -> None:
    rng, log = random.Random(seed), filled(one, other)
    for partition in log.topics["t"].values():
        partition.end += rng.choice((0, 0, 5))  # a transaction that was aborted
    log.block = lambda: rng.randint(1, 20)
    positions, batches = {0: 0, 1: 0}, []
    while any(at < log.topics["t"][p].end for p, at in positions.items()):
        batch = []
        for p in rng.sample((0, 1), rng.randint(1, 2)):
            start = positions[p]
            stop = min(start + rng.randint(1, 30), log.topics["t"][p].end)
            positions[p] = stop
            if start < stop:
                batch.append(Range(p, start, stop))
        batches.append(batch)
    found = opened(log)
    for batch in batches:
        if rng.random() < 0.5:
            for each in batch:
                held = [offset for _, offset, _ in truth(log, [each])]
                assert found.first(each) == min(held, default=each.stop)
                assert found.fetched(Range(each.partition, each.start, each.start + 1))
        assert given_again(found, batch) == truth(log, batch)
    found.close()
    assert log.opened["t"] <= 2
    assert log.given["t"] <= len(one) + len(other)


def test_what_lies_behind_is_read_again() -> None:
    log = filled([0] * 50)
    log.block = lambda: 10
    found = opened(log)
    for wanted in (Range(0, 30, 40), Range(0, 5, 12)):
        assert given_again(found, [wanted]) == truth(log, [wanted])


def test_a_wide_space_is_skipped_and_a_narrow_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FAR", 100)
    log = filled([0] * 5_000)
    log.block = lambda: 10
    found = opened(log)
    for start in (0, 50, 100, 150, 4_000):
        wanted = [Range(0, start, start + 10)]
        assert given_again(found, wanted) == truth(log, wanted)
    assert (log.opened["t"], log.given["t"]) == (2, 170)


class Value(bytes):
    """Be a value, and count how many are held."""

    alive = 0

    def __init__(self, value: bytes) -> None:
        Value.alive += 1

    def __del__(self) -> None:
        Value.alive -= 1


def test_no_more_is_held_than_one_block() -> None:
    log = filled([0] * 2_000)

    class Fresh(list[bytes]):
        def __getitem__(self, places: slice) -> list[Value]:  # type: ignore[override]
            return [Value(value) for value in list.__getitem__(self, places)]

    log.topics["t"][0].values = Fresh(log.topics["t"][0].values)
    found = opened(log)
    assert found.first(Range(0, 0, 2_000)) == 0
    for start in range(0, 2_000, 7):
        found.read([Range(0, start, start + 1)])
        assert 0 < Value.alive <= 100


def test_an_end_of_long_ago_is_not_the_end() -> None:
    log = filled([0] * 10)
    found = opened(log)
    log.topics["t"][0].end = 11
    assert found.first(Range(0, 10, 11)) == 11  # and the end is noted
    offset = log.topics["t"][0].append(b"later", skip=1)
    log.late = 3
    wanted = [Range(0, 11, offset + 1)]
    assert given_again(found, wanted) == [(0, 12, b"later")]


def test_what_has_not_come_is_told() -> None:
    found = opened(filled([0] * 10))
    with pytest.raises(HistoryError, match=r"offset 11 is needed and not there: .* ends at 10"):
        found.read([Range(0, 5, 12)])


def test_what_was_deleted_is_told() -> None:
    log = filled([0] * 100)
    log.topics["t"][0].begin = 20
    found = opened(log)
    with pytest.raises(HistoryError, match="offsets 10 to 19 are needed again and were deleted"):
        found.read([Range(0, 10, 30)])
    found.close()


def test_a_reader_that_rested_is_overtaken_by_retention() -> None:
    """What is asked for counts, not where it rested; and what is deleted is told as such."""
    log = filled([0] * 100)
    log.block = lambda: 10
    partition = log.topics["t"][0]
    found = opened(log)
    assert given_again(found, [Range(0, 0, 10)]) == truth(log, [Range(0, 0, 10)])
    partition.begin = 40
    assert given_again(found, [Range(0, 50, 70)]) == truth(log, [Range(0, 50, 70)])
    partition.begin = 80
    with pytest.raises(HistoryError, match="offsets 70 to 79 are needed again and were deleted"):
        found.read([Range(0, 65, 90)])
    found.close()


def test_other_errors_are_told_as_they_are() -> None:
    log = filled([0] * 100)
    log.block = lambda: 10
    found = opened(log)
    found.read([Range(0, 0, 10)])

    def refuse() -> int:
        raise BrokerError("t: not authorised")

    log.block = refuse
    with pytest.raises(BrokerError, match="not authorised"):
        found.read([Range(0, 10, 20)])


def test_ends_are_asked_for_only_beyond_what_is_known() -> None:
    log = filled([0] * 10, [0] * 3)
    found = opened(log)
    for partition, offset, there in ((0, 9, True), (1, 2, True), (0, 0, True), (7, 0, False)):
        assert found.reaches(partition, offset) == there
    assert (log.opened["t"], log.asked["t"]) == (2, 2)
    found.first(Range(0, 0, 10))
    for _ in range(5):
        assert not found.reaches(0, 10)
    log.topics["t"][0].append(b"")
    assert all(found.reaches(0, 10) for _ in range(5))
    assert (log.opened["t"], log.asked["t"]) == (3, 8)
