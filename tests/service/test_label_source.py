"""Where late labels come from: none ahead of the events that it came behind, and each of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.stream.events import Records
from headrace.stream.kafka.history import Range, TopicHistory
from headrace.stream.ledger.ledger import Consumed, Record
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import LateLabel, placed
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.service import label_source
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.service.label_source import LabelBatch, LabelSource
from headrace.stream.task import parse
from tests.support.memory_kafka import MemoryKafka, Partition

TASK = parse(
    """
name = "t"
[input]
topic = "t.events"
[features]
x = { kind = "number" }
[target]
field = "label"
kind = "regress"
[labels]
topic = "t.labels"
""",
    "t",
)
TOPIC = "t.labels"
START_MS = 1_714_564_800_000


class Sent(NamedTuple):
    """Say what a label is: after how many offsets that hold none, and Kafka's timestamp."""

    skip: int
    at_ms: int
    broken: bool = False


def kafka_of(partitions: Sequence[Sequence[Sent]], block: int = 100) -> MemoryKafka:
    """Write labels, each with an id of its own: partition and place."""
    topic = {at: Partition() for at in range(len(partitions))}
    for at, labels in enumerate(partitions):
        for place, each in enumerate(labels):
            value = b"none" if each.broken else told(f"{at}/{place}", place)
            topic[at].append(value, each.skip, time_ms=START_MS + each.at_ms)
    return MemoryKafka({TOPIC: topic}, block=lambda: block)


def told(id: str | int, label: float) -> bytes:
    return msgspec.json.encode({"id": id, "label": label})


def source_of(kafka: MemoryKafka, **positions: Any) -> LabelSource:
    return LabelSource(TASK, kafka, positions.get("positions", {}), positions.get("starts", {}))


def ids(batch: LabelBatch | None) -> list[str | int]:
    return [each.id for each in batch.labels] if batch else []


def take(source: LabelSource, newest_ms: int, **more: bool) -> list[str | int]:
    complete_ms: float = max(START_MS + newest_ms, source._newest_ms)  # of one partition
    complete_ms = math.inf if more.pop("at_end", False) else complete_ms
    return ids(source.take(START_MS + newest_ms, complete_ms, 100, **more))


LABELS = st.builds(Sent, st.sampled_from([0, 0, 0, 2]), st.integers(0, 50), st.booleans())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(LABELS, max_size=8), min_size=1, max_size=3),
    st.lists(st.integers(0, 60), max_size=8),
    st.integers(1, 9),
    st.booleans(),
)
def test_each_label_is_taken_once_and_none_ahead_of_the_events(
    partitions: list[list[Sent]], newest: list[int], block: int, history: bool
) -> None:
    """Timestamps go up and down, within a partition, too: as clocks of producers do."""
    kafka = kafka_of(partitions, block)
    source, found = source_of(kafka), list[LabelBatch]()
    seen_ms = 0
    for newest_ms in newest:
        seen_ms = max(seen_ms, START_MS + newest_ms)
        batch = source.take(START_MS + newest_ms, START_MS + newest_ms, 5, history=history)
        assert all(arrived_ms <= seen_ms for arrived_ms in (batch.arrived_ms if batch else ()))
        found += [batch] if batch else []
    ends = source.ends()
    for _ in range(sum(map(len, partitions)) + 3 * len(partitions)):
        batch = source.take(0, math.inf, 5)
        found += [batch] if batch else []
    assert source.reached(ends)
    assert source.lag() == 0
    for at, labels in enumerate(partitions):
        good = [f"{at}/{place}" for place, each in enumerate(labels) if not each.broken]
        assert [e.id for b in found for e in b.labels if e.partition == at] == good
        letters = [e.offset for b in found for e in b.letters if e.partition == at]
        of = kafka.topics[TOPIC][at]
        assert letters == [of.offsets[p] for p, each in enumerate(labels) if each.broken]
        ranges = [each for b in found for each in b.ranges if each.partition == at]
        assert [0, *(each.stop for each in ranges)] == [*(each.start for each in ranges), of.end]
    reader, again = LabelReader(TASK), TopicHistory(kafka, TOPIC)
    for batch in found:  # what the ledger says gives the same again
        assert reader.read(again.read(batch.ranges)) == batch[1:]
    again.close()


def test_a_label_waits_for_the_event_that_it_came_behind() -> None:
    source = source_of(kafka_of([[Sent(0, 10), Sent(0, 20), Sent(0, 30)]]))
    assert take(source, 9) == []
    assert take(source, 10) == ["0/0"]
    assert take(source, 19) == []
    assert take(source, 0) == []  # no event came
    assert take(source, 25) == ["0/1"]
    assert take(source, 3) == []  # the newest was before
    assert source.lag() == 1
    assert take(source, 0, at_end=True) == ["0/2"]
    assert source.lag() == 0


def test_a_label_that_arrives_behind_its_time_waits_for_no_further_event() -> None:
    kafka = kafka_of([[Sent(0, 10)]])
    source = source_of(kafka)
    assert take(source, 30) == ["0/0"]
    kafka.topics[TOPIC][0].append(told("new", 1), time_ms=START_MS + 20)
    assert take(source, 5) == ["new"]  # another partition's clock is behind


def test_history_waits_for_the_labels_that_came_before() -> None:
    """Few come at a time, and now and then none although some are there."""
    labels = [[Sent(0, at) for at in range(0, 40, step)] for step in (1, 3)]
    kafka = kafka_of(labels, block=2)
    kafka.late = 3
    first = take(source_of(kafka), 20, history=True)
    assert sorted(first) == sorted(
        [*(f"0/{at}" for at in range(21)), *(f"1/{at}" for at in range(7))]
    )
    kafka = kafka_of(labels, block=2)
    assert take(source_of(kafka), 20) == ["0/0", "0/1"]  # what is there now need not wait


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_source, "PATIENCE_S", 0.02)
    kafka = kafka_of([[Sent(0, 1)]])
    kafka.late = 1 << 40
    began_s = time.monotonic()
    assert take(source_of(kafka), 20, history=True) == []
    assert 0.02 <= time.monotonic() - began_s < 5


def test_at_the_end_of_its_topic_there_is_nothing_to_wait_for() -> None:
    kafka = kafka_of([[Sent(0, 1)], []])
    began_s = time.monotonic()
    source = source_of(kafka)
    assert take(source, 20, history=True) == ["0/0"]
    assert take(source, 30, history=True) == []
    assert time.monotonic() - began_s < label_source.PATIENCE_S / 2


def test_labels_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_source, "MOST_HELD", 5)
    kafka = kafka_of([[Sent(0, 100 + at) for at in range(50)]], block=2)
    source = source_of(kafka)
    for _ in range(20):
        assert take(source, 1, history=True) == []
    assert 5 <= kafka.given[TOPIC] <= 6
    assert source.lag() == 50
    found = []
    for newest_ms in range(100, 150):
        found += take(source, newest_ms, history=True)
    assert found == [f"0/{at}" for at in range(50)]


def test_a_source_goes_on_where_one_was_and_behind_what_was_deleted() -> None:
    kafka = kafka_of([[Sent(0, at) for at in range(6)]])
    first = source_of(kafka)
    batch = first.take(START_MS + 1, START_MS + 1, 100)
    assert batch
    assert batch.ranges == [Range(0, 0, 2)]
    kafka.topics[TOPIC][0].begin = 4
    batch = source_of(kafka, positions={0: 2}, starts={0: 4}).take(0, math.inf, 100)
    assert batch
    assert ids(batch) == ["0/4", "0/5"]
    assert batch.ranges == [Range(0, 2, 6)]


def test_offsets_that_hold_no_label_are_passed_over_once_none_waits() -> None:
    kafka = kafka_of([[Sent(0, 1), Sent(0, 50)], []])
    kafka.topics[TOPIC][0].end += 3  # markers of transactions
    kafka.topics[TOPIC][1].end += 2
    source = source_of(kafka)
    assert source.pass_over() == []  # nothing is known yet
    assert take(source, 1, history=True) == ["0/0"]
    assert take(source, 1) == []
    assert source.pass_over() == [Range(1, 0, 2)]  # a label of partition 0 waits
    assert source.reached(source.ends())  # but for what waits for its event
    assert take(source, 60) == ["0/1"]
    assert source.pass_over() == [Range(0, 2, 5)]
    assert source.pass_over() == []
    assert source.reached(source.ends())
    kafka.topics[TOPIC][0].append(told("new", 1), time_ms=START_MS)
    assert not source.reached(source.ends())
    batch = source.take(0, math.inf, 100)
    assert batch
    assert (ids(batch), batch.ranges) == (["new"], [Range(0, 5, 6)])


def test_nan_is_counted() -> None:
    kafka = MemoryKafka({TOPIC: {0: Partition()}})
    kafka.topics[TOPIC][0].append(b'{"id":1,"label":2,"z":NaN}', time_ms=START_MS)
    lenient = TASK.input.model_copy(update={"non_finite": "missing"})
    source = LabelSource(TASK.model_copy(update={"input": lenient}), kafka, {}, {})
    assert ids(source.take(START_MS, START_MS, 10)) == [1]
    assert source.non_finite == 1


def rows_of(arrived_ms: Sequence[int], places: Sequence[tuple[int, int]] = ()) -> Rows:
    """Make rows by when Kafka got them, and by partition and offset."""
    where = [*places] or [(0, at) for at in range(len(arrived_ms))]
    values: list[bytes | None] = [b'{"id":%d,"x":1}' % at for at in range(len(where))]
    rows, letters = Normalizer(TASK).normalize(
        records_of(values, [p for p, _ in where], [o for _, o in where], arrived_ms)
    )
    assert not letters
    return rows


def records_of(
    values: Sequence[bytes | None],
    partitions: Sequence[int],
    offsets: Sequence[int],
    times_ms: Sequence[int],
) -> Records:
    stamps = [START_MS + each for each in times_ms]
    keys: list[bytes | None] = [None] * len(values)
    return Records("t.events", [*values], keys, [*partitions], [*offsets], stamps)


def places_of(record: Record) -> set[tuple[int, int]]:
    return {(e.partition, at) for e in record.consumed for at in range(e.start, e.stop)}


def in_order(
    places: Sequence[tuple[int, int]], times: dict[tuple[int, int], int]
) -> list[tuple[int, int]]:
    """Sort by time, but each partition in its own order."""
    newest, keys = dict[int, int](), list[int]()
    for partition, offset in places:
        newest[partition] = max(newest.get(partition, 0), times[partition, offset])
        keys.append(newest[partition])
    return [places[at] for at in sorted(range(len(places)), key=keys.__getitem__)]


def naively(arrived_ms: Sequence[int], labels_ms: Sequence[int]) -> list[tuple[int, int]]:
    """Put each label behind the last row that came no later, by looking at all of them."""
    behind = [
        max([at + 1 for at, row_ms in enumerate(arrived_ms) if row_ms <= label_ms], default=0)
        for label_ms in labels_ms
    ]
    return [
        (place, at)
        for place in range(len(arrived_ms) + 1)
        for at, each in enumerate(behind)
        if each == place
    ]


def late(id: int) -> LateLabel:
    return LateLabel(id, None, 0, id, 0, 1.0, None)


TIMES = st.lists(st.integers(0, 12), max_size=12)


@settings(deadline=None, max_examples=100)
@given(TIMES, TIMES)
def test_a_label_is_put_behind_the_last_event_that_came_no_later(
    arrived_ms: list[int], labels_ms: list[int]
) -> None:
    labels = [late(at) for at in range(len(labels_ms))]
    found = placed(rows_of(arrived_ms), labels, [START_MS + each for each in labels_ms])
    assert [(place, label.id) for place, label in found] == naively(arrived_ms, labels_ms)


def steps_of(rng: random.Random) -> Iterator[tuple[list[Range], list[Range]]]:
    """Cut two topics of two partitions of 20 offsets, one event or label in each, at random."""
    taken = [[0, 0], [0, 0]]
    while min(map(min, taken)) < 20:
        step: list[list[Range]] = [[], []]
        for ranges, stood in zip(step, taken, strict=True):
            for partition in range(2):
                stop = min(stood[partition] + rng.choice((0, 0, 1, 2, 5)), 20)
                if stop > stood[partition]:
                    ranges.append(Range(partition, stood[partition], stop))
                stood[partition] = stop
        yield step[0], step[1]


@pytest.mark.parametrize("seed", range(12))
def test_history_puts_labels_where_the_learner_did_however_records_are_put_together(
    seed: int,
) -> None:
    """The learner placed the labels of each record between that record's events."""
    rng = random.Random(seed)
    times = {(p, o): rng.randrange(60) for p in range(2) for o in range(20)}
    kafka = kafka_of([[Sent(0, rng.randrange(60), o % 7 == 4) for o in range(20)]] * 2)
    refused = {where for where in times if rng.random() < 0.2}
    records, events, expected = list[Record](), list[tuple[int, int]](), list[tuple[int, Any]]()
    for seq, (ranges, labels) in enumerate(steps_of(rng)):
        own = [(p, o) for p, start, stop in ranges for o in range(start, stop)]
        own = [where for where in own if where not in refused]
        consumed = tuple(Consumed(*each, 0) for each in ranges)
        records.append(
            Record(seq=seq, run="r", epoch=1, time_ms=0, consumed=consumed, labels=tuple(labels))
        )
        came = [(p, o) for p, start, stop in labels for o in range(start, stop) if o % 7 != 4]
        of = kafka.topics[TOPIC]
        stamps = [of[p].times_ms[o] - START_MS for p, o in came]
        order = naively([times[where] for where in in_order(own, times)], stamps)
        expected += [(len(events) + place, "{}/{}".format(*came[at])) for place, at in order]
        events += own
    history = TopicHistory(kafka, TOPIC)
    reader = LabelHistory(TASK, history)
    found, letters, before = list[tuple[int, Any]](), list[Any](), 0
    while records:
        some = [records.pop(0) for _ in range(min(rng.randint(1, 9), len(records)))]
        names = {(e.partition, o) for r in some for e in r.consumed for o in range(e.start, e.stop)}
        own = [where for where in events if where in names]
        rows, between, unread = reader.between(rows_of([times[w] for w in own], own), some)
        wanted = [in_order([w for w in own if w in places_of(record)], times) for record in some]
        assert [*zip(rows.partition, rows.offset, strict=True)] == [*chain(*wanted)]
        found += [(before + place, label.id) for place, label in between]
        letters += [(each.partition, each.offset) for each in unread]
        before += len(own)
    history.close()
    assert found == expected
    assert sorted(letters) == [(p, o) for p in range(2) for o in range(20) if o % 7 == 4]


def test_placed_takes_timestamps_of_any_size() -> None:
    rows = rows_of([0, 5])
    far = np.iinfo(np.int64).max
    assert placed(rows, [late(0), late(1)], [int(far), 0]) == [(0, late(1)), (2, late(0))]
