from __future__ import annotations

import random
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.errors import HistoryError
from headrace.stream.events import Feature, Records
from headrace.stream.kafka.history import Range
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.service.row_source import FeatureSource, MicroBatch
from headrace.stream.task import parse
from tests.support.events import good
from tests.support.memory_kafka import MemoryKafka, Partition

task = parse(
    """
name = "t"
[input]
topic = "t.events"
time = "time"
entity = "entity"
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[features]
x = { kind = "number" }
y = { kind = "number" }
color = { kind = "category" }
""",
    "t",
)
RAW, ROWS = task.input.topic, task.output("features")
PARTITIONS = 2
pack = msgspec.msgpack.Encoder().encode


def written(rng: random.Random, events: int, gaps: tuple[int, ...]) -> MemoryKafka:
    """Write events, each after some offsets that nobody sees; one in ten is refused."""
    raw = {p: Partition() for p in range(PARTITIONS)}
    for number in range(events):
        value = good(number) if rng.random() < 0.9 else b"poison"
        raw[rng.randrange(PARTITIONS)].append(value, rng.choice(gaps))
    for partition in raw.values():
        partition.end += rng.choice(gaps)
    rows = {p: Partition() for p in range(PARTITIONS)}
    return MemoryKafka({RAW: raw, ROWS: rows}, block=lambda: rng.randint(1, 30))


def features(log: MemoryKafka, partition: int) -> list[Feature]:
    """Normalise what a partition holds."""
    of, count = log.topics[RAW][partition], len(log.topics[RAW][partition].offsets)
    values: list[bytes | None] = [*of.values]
    records = Records(RAW, values, [b""] * count, [partition] * count, of.offsets, [1] * count)
    return Normalizer(task).features(records)[0]


def opened(log: MemoryKafka, starts: dict[int, int]) -> FeatureSource:
    return FeatureSource(task, log, starts, starts, {})


def all_of(source: FeatureSource, rng: random.Random) -> list[MicroBatch]:
    found, ends = [], source.ends()
    while not source.reached(ends):
        if taken := source.take(rng.randint(1, 50), 0):
            found.append(taken)
    return found


def told(rows: Rows, at: int) -> list[Any]:
    """Return what is learned of a partition, event by event."""
    places = [place for place, partition in enumerate(rows.partition) if partition == at]
    columns = (rows.id, rows.offset, rows.label, rows.numeric, rows.ids, rows.entity)
    return [[np.asarray(column[place]).tobytes() for column in columns] for place in places]


@settings(deadline=None)
@given(
    st.integers(0, 150),
    st.sampled_from([(0,), (1,), (0, 1, 30)]),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.integers(0, 2**32),
)
def test_every_event_is_taken_once_and_the_raw_topic_is_read_once(
    events: int, gaps: tuple[int, ...], losing: float, seed: int
) -> None:
    rng = random.Random(seed)
    log = written(rng, events, gaps)
    made = {p: features(log, p) for p in range(PARTITIONS)}
    place, done = dict.fromkeys(made, 0), dict.fromkeys(made, -1)
    healed = duplicates = 0
    while left := [p for p in made if place[p] < len(made[p])]:
        at = rng.choice(left)
        if rng.random() < 0.1:  # the normaliser begins again a little earlier
            place[at] = max(0, place[at] - rng.randint(1, 9))
        row = made[at][place[at]]
        place[at] += 1
        if rng.random() < losing:
            continue
        if rng.random() < 0.05:
            beyond = log.topics[RAW][at].end + rng.choice((1, 10**9))
            forged = msgspec.structs.replace(row, offset=beyond)
            foreign = msgspec.structs.replace(row, topic="another")
            for each in (b"garbage", pack(foreign), pack(forged)):
                log.topics[ROWS][at].append(each)
        log.topics[ROWS][at].append(pack(row))
        duplicates += row.offset <= done[at]
        of = log.topics[RAW][at].offsets
        healed += sum(done[at] < offset < row.offset for offset in of)
        done[at] = max(done[at], row.offset)
    source = opened(log, dict.fromkeys(range(PARTITIONS), 0))
    found = all_of(source, rng)
    source.close()

    for at, last in done.items():
        kept = log.topics[RAW][at]
        count = sum(offset <= last for offset in kept.offsets)
        values: list[bytes | None] = [*kept.values[:count]]
        records = Records(RAW, values, [b""] * count, [at] * count, kept.offsets[:count], [])
        rows, _ = Normalizer(task).normalize(records)
        assert list(chain.from_iterable(told(taken.rows, at) for taken in found)) == told(rows, at)
        ranges = [each for taken in found for each in taken.ranges if each.partition == at]
        assert [each.start for each in ranges] == [0, *(each.stop for each in ranges)][:-1]
        assert [each.stop for each in ranges[-1:]] == [last + 1] * bool(ranges)
        assert bool(ranges) == (last >= 0)
    assert sum(taken.healed for taken in found) == healed
    assert sum(taken.duplicates for taken in found) == duplicates
    taken_rows = sum(len(taken.rows.id) + taken.rejected for taken in found)
    assert taken_rows == sum(o <= done[p] for p, of in log.topics[RAW].items() for o in of.offsets)
    assert log.given[RAW] <= events


def test_a_topic_without_gaps_is_not_even_opened() -> None:
    rng = random.Random(0)
    log = written(rng, 200, (0,))
    for at in range(PARTITIONS):
        for row in [*features(log, at), *features(log, at)[20:]]:
            log.topics[ROWS][at].append(pack(row))
    source = opened(log, dict.fromkeys(range(PARTITIONS), 0))
    assert sum(len(taken.rows.id) + taken.rejected for taken in all_of(source, rng)) == 200
    assert log.opened[RAW] == 0


def test_transactions_of_one_event_cost_one_reading_and_no_batch_is_cut_by_them() -> None:
    rng = random.Random(0)
    log = written(rng, 2_000, (1,))
    log.block = lambda: 500
    for at in range(PARTITIONS):
        for row in features(log, at):
            log.topics[ROWS][at].append(pack(row))
    source = opened(log, dict.fromkeys(range(PARTITIONS), 0))
    found, ends = [], source.ends()
    while not source.reached(ends):
        if taken := source.take(500, 0):
            found.append(taken)
    assert sum(len(taken.rows.id) + taken.rejected for taken in found) == 2_000
    assert sum(taken.healed for taken in found) == 0
    assert log.opened[RAW] == 1 + PARTITIONS  # to ask for the ends, and to read
    assert log.asked[RAW] == 1
    assert log.given[RAW] <= 2_000
    assert len(found) <= 2 * 2_000 / 500 + PARTITIONS
    source.close()


def test_at_the_end_of_the_topic_its_end_is_asked_for_once_by_batch() -> None:
    rng = random.Random(0)
    log = written(rng, 0, (0,))
    source = opened(log, dict.fromkeys(range(PARTITIONS), 0))
    taken = []
    for number in range(0, 100, 5):
        for event in range(number, number + 5):
            log.topics[RAW][0].append(good(event), 1)
        for row in features(log, 0)[number:]:
            log.topics[ROWS][0].append(pack(row))
        taken += all_of(source, rng)
    assert [offset for each in taken for offset in each.rows.offset] == [*range(1, 200, 2)]
    assert (log.opened[RAW], log.given[RAW]) == (2, 100)
    assert log.asked[RAW] <= 20
    source.close()


def test_what_is_in_hand_does_not_wait_for_the_raw_topic() -> None:
    log = written(random.Random(0), 0, (0,))
    log.block = lambda: 100
    for number, skip in enumerate((0, 0, 0, 1, 0)):
        log.topics[RAW][0].append(good(number), skip)
    for row in features(log, 0):
        log.topics[ROWS][0].append(pack(row))
    source = opened(log, {0: 0, 1: 0})
    first = source.take(100, 0)
    assert first
    assert (first.rows.offset, log.given[RAW]) == ([0, 1, 2], 0)
    assert first.reading == {0: 3, 1: 0}
    second = source.take(100, 0)
    assert second
    assert second.rows.offset == [4, 5]
    assert second.ranges == [Range(0, 3, 6)]


def test_a_lost_row_whose_event_was_deleted_ends_the_learner() -> None:
    log = written(random.Random(0), 0, (0,))
    for number in range(50):
        log.topics[RAW][0].append(good(number))
    rows = features(log, 0)
    for row in [*rows[:10], *rows[30:]]:
        log.topics[ROWS][0].append(pack(row))
    log.block = lambda: 10
    log.topics[RAW][0].begin = 20
    source = opened(log, {0: 0, 1: 0})
    assert source.take(100, 0)
    with pytest.raises(HistoryError, match="offsets 10 to 19 are needed again and were deleted"):
        source.take(100, 0)
    source.close()
