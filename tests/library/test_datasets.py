"""Rows for other frameworks, of a topic and of its archive; that of PyTorch's and TensorFlow's own
loaders is in `tests/examples/test_frameworks.py`."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from headrace.datasets import (
    BLOCK,
    UNKNOWN,
    ArchivedEvents,
    Columns,
    RowReader,
    TopicEvents,
    _share,
    regrouped,
)
from headrace.stream.archive.writer import archive
from headrace.stream.errors import HistoryError, TopicError, UsageError
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range
from headrace.stream.task import Task, parse
from tests.support.archives import Record, write_segment
from tests.support.events import IMAGE_TASK, POISON, coded, good, picture

FIRST_MS = 1_772_668_800_000
Shown = dict[str, Any]


class Made:
    """Hold a topic of three partitions with events, in and out of transactions, and poison."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self.kafka, self.topic = kafka, topic
        self.task = task_of(topic)
        self.open: Any = None  # the producer of a transaction without an end
        self.number = 0
        self.good: list[tuple[int, int]] = []  # number and partition of committed events
        self.bad = 0

    def write(self, count: int, *, end: str = "commit", poison: int = 0) -> Producer:
        """Write events in one transaction; their timestamps are in the order of their numbers."""
        settings = {"transactional.id": uuid.uuid4().hex, "log_level": 0}
        producer = Producer({"bootstrap.servers": self.kafka.servers} | settings)
        producer.init_transactions()
        producer.begin_transaction()
        for number in range(self.number, self.number + count):
            place = number % 7 % 3
            time_ms = FIRST_MS + number
            producer.produce(self.topic, event_of(number), partition=place, timestamp=time_ms)
            if end == "commit":
                self.good.append((number, place))
        for value, _ in list(POISON.values())[:poison]:
            producer.produce(self.topic, value, partition=1, timestamp=FIRST_MS)
        self.number += count
        if end == "commit":
            self.bad += poison
            producer.commit_transaction()
        elif end == "abort":
            producer.flush()
            producer.abort_transaction()
        else:
            producer.flush()
        return producer

    @property
    def reader(self) -> Callable[..., RowReader]:
        return partial(RowReader, self.task, partial(TopicEvents, self.kafka))


def kept_in(place: Path) -> Callable[[str], ArchivedEvents]:
    return partial(ArchivedEvents, str(place))


def event_of(number: int) -> bytes:
    return good(number, label=label_of(number), time=FIRST_MS + number)


def label_of(number: int) -> str | None:
    return None if number % 5 == 0 else "yes" if number % 2 else "no"


def task_of(topic: str, text: str = IMAGE_TASK) -> Task:
    text = text.replace(IMAGE_TASK.splitlines()[-1], "").replace("events.poisoned", topic)
    return parse(text, "t")


@pytest.fixture
def made(kafka: KafkaConnection, topic: Callable[..., str]) -> Iterator[Made]:
    found = Made(kafka, topic("events", partitions=3, retention_ms=-1))
    found.write(900)
    found.write(200, end="abort")
    found.write(700, poison=20)
    with closing(found.write(50, end="open")) as found.open:
        yield found


def shown(batches: Iterator[Columns]) -> list[Shown]:
    """Return rows, one by one, as Python's values."""
    found = []
    for batch in batches:
        for values in zip(*(column.tolist() for column in batch.values()), strict=True):
            found.append(dict(zip(batch, values, strict=True)))
    return found


def numbers(rows: list[Shown]) -> list[int]:
    """Tell by their contents which events rows are of."""
    return [row["time_ms"] - FIRST_MS for row in rows]


def test_the_rows_are_those_of_committed_events_in_order(made: Made) -> None:
    """What stands in JSON is what a row holds, whichever way the normaliser goes."""
    letters: list[Any] = []
    reader = made.reader()
    rows = shown(reader.batches(on_rejected=letters.extend))
    assert numbers(rows) == [number for number, _ in made.good]
    assert [row["partition"] for row in rows] == [place for _, place in made.good]
    assert len(letters) == made.bad == 20
    assert Counter(letter.code for letter in letters) == Counter(
        code for _, code in list(POISON.values())[:20]
    )
    for (number, _), row in zip(made.good, rows, strict=True):
        event = json.loads(event_of(number))
        assert row["numeric"] == [event["x"], event["y"]]
        assert row["label"] == {"no": 0, "yes": 1, None: UNKNOWN}[event["label"]]
        assert (row["ids"][0] == 0) == (event["color"] is None)
    by_entity = {
        row["entity"]: number % 3 for (number, _), row in zip(made.good, rows, strict=True)
    }
    assert sorted(by_entity.values()) == [0, 1, 2]  # one for each, and the same at each event
    places = [(row["partition"], row["offset"]) for row in rows]
    assert len({*places}) == len(places)
    assert {name: field.shape for name, field in reader.fields.items()} == {
        "numeric": (2,), "ids": (17,), "entity": (), "label": (), "time_ms": (), "partition": (),
        "offset": (),
    }  # fmt: skip
    assert shown(reader.batches()) == rows  # once more


def test_they_are_the_rows_that_a_learner_is_given(made: Made) -> None:
    from headrace.stream.service.row_source import EventSource

    source = EventSource(made.task, made.kafka, {}, {})
    truth: dict[tuple[int, int], tuple[Any, ...]] = {}
    with closing(source):
        while not source.reached(source.ends()):
            if taken := source.take(500, 0.5):
                rows = taken.rows
                for at, place in enumerate(zip(rows.partition, rows.offset, strict=True)):
                    truth[place] = (rows.numeric[at].tolist(), rows.ids[at].tolist())
    found = {
        (row["partition"], row["offset"]): (row["numeric"], row["ids"])
        for row in shown(made.reader().batches())
    }
    assert found == truth


def test_an_archive_gives_the_same_rows(made: Made, tmp_path: Path) -> None:
    archive(made.kafka, made.topic, str(tmp_path), rows_per_file=170)
    kept = RowReader(made.task, partial(ArchivedEvents, str(tmp_path)))
    assert shown(kept.batches()) == shown(made.reader().batches())
    assert kept.stop == made.reader().stop


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_shares_are_all_of_it_each_once(made: Made, tmp_path: Path, shares: int) -> None:
    archive(made.kafka, made.topic, str(tmp_path), rows_per_file=170)
    for reader in (
        RowReader(made.task, partial(ArchivedEvents, str(tmp_path))),
        made.reader(),
    ):
        letters: list[Any] = []
        parts = [
            shown(reader.batches(at, shares, on_rejected=letters.extend)) for at in range(shares)
        ]
        found = sorted(number for part in parts for number in numbers(part))
        assert found == [number for number, _ in made.good]
        assert len(letters) == made.bad
        assert max(map(len, parts)) < 2 * len(found) / shares  # none does most of the work


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 40)), max_size=6), st.integers(1, 9))
def test_any_offsets_are_shared_out(sizes: list[tuple[int, int]], shares: int) -> None:
    ranges = [Range(p, start, start + size) for p, (start, size) in enumerate(sizes)]
    parts = [
        [(p, at) for p, start, stop in _share(ranges, share, shares) for at in range(start, stop)]
        for share in range(shares)
    ]
    assert [*chain(*parts)] == [(p, at) for p, start, stop in ranges for at in range(start, stop)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_reader_goes_on_where_another_stopped(made: Made) -> None:
    first = made.reader(stop={0: 100, 1: 0, 2: 57})
    assert {p: at for p, at in first.stop.items() if p < 3} == {0: 100, 1: 0, 2: 57}
    second = made.reader(start=first.stop)
    found = numbers(shown(first.batches())) + numbers(shown(second.batches()))
    assert sorted(found) == [number for number, _ in made.good]
    assert shown(made.reader(start=second.stop).batches()) == []


def test_times_are_those_of_kafka_s_timestamps(made: Made, tmp_path: Path) -> None:
    """From a time on, and before another; of the topic and of its archive."""
    archive(made.kafka, made.topic, str(tmp_path))
    low, high = 417, 1480
    text = [str(np.datetime64(FIRST_MS + at, "ms")) for at in (low, high)]
    for reader in (made.reader, partial(RowReader, made.task, kept_in(tmp_path))):
        within = reader(start=f"{text[0]}Z", stop=f"{text[1]}+00:00")
        wanted = [number for number, _ in made.good if low <= number < high]
        assert sorted(numbers(shown(within.batches()))) == wanted
        assert shown(reader(start=within.stop, stop=text[1]).batches()) == []
        late = reader(start="2999-01-01T00:00:00Z")
        assert (late.start, shown(late.batches())) == (late.stop, [])
        early = reader(start="1969-01-01T00:00:00Z", stop={0: 3})
        assert early.start == reader().start
        assert shown(reader(start=text[1], stop=text[0]).batches()) == []
        for wrong in ("yesterday", "12", ""):
            with pytest.raises(UsageError, match=f"stop = '{wrong}': expected a time such as 2026"):
                reader(stop=wrong)


def test_a_late_record_in_an_archive_of_days_is_found(tmp_path: Path) -> None:
    """As in Kafka, a time is that of the first record that is not before it."""
    day = 86_400_000
    times = [[10 * day, 9 * day], [10 * day + 5], [11 * day, 8 * day, 11 * day + 7]]
    at = 0
    for file, date in zip(times, ("1970-01-11", "1970-01-11", "1970-01-12"), strict=True):
        records = [Record(0, at + n, ms, None, good(n)) for n, ms in enumerate(file)]
        at += len(file)
        write_segment(tmp_path, "events", records, at, date)
    flat = [ms for file in times for ms in file]
    for ms in [0, 9 * day, 10 * day, 10 * day + 1, 10 * day + 6, 11 * day, 11 * day + 1, 12 * day]:
        first = next((n for n, found in enumerate(flat) if found >= ms), len(flat))
        reader = RowReader(task_of("events"), kept_in(tmp_path), start=f"{np.datetime64(ms, 'ms')}")
        assert reader.start == {0: first}


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 12))
def test_rows_are_regrouped_in_their_order(sizes: list[int], size: int) -> None:
    borders = np.cumsum([0, *sizes])
    blocks = [{"offset": np.arange(*pair)} for pair in pairwise(borders)]
    found = [each["offset"].tolist() for each in regrouped(blocks, size)]
    assert [*chain(*found)] == [*range(sum(sizes))]
    assert {*map(len, found[:-1])} <= {size}
    assert all(0 < len(each) <= size for each in found[-1:])


def test_what_comes_is_followed(made: Made) -> None:
    """All that there is, in order, then what was open, or did not exist, when it began."""
    followers = [made.reader(follow=True).batches(share, 2) for share in range(2)]
    rows = [shown(iter([next(follower)])) for follower in followers]
    made.open.commit_transaction()
    made.good += [(number, number % 7 % 3) for number in range(made.number - 50, made.number)]
    made.write(30)
    for share, follower in enumerate(followers):
        wanted = [number for number, place in made.good if place % 2 == share]
        with closing(follower):
            while len(rows[share]) < len(wanted):
                rows[share] += shown(iter([next(follower)]))
        assert sorted(numbers(rows[share])) == wanted


def test_more_than_a_block_of_one_partition(
    kafka: KafkaConnection, topic: Callable[..., str]
) -> None:
    name, count = topic("long", retention_ms=-1), 2 * BLOCK + 100
    with closing(Producer({"bootstrap.servers": kafka.servers})) as producer:
        for number in range(count):
            producer.produce(name, good(number), timestamp=FIRST_MS - number)  # times run back
            producer.poll(0)
        producer.flush()
    reader = RowReader(task_of(name), partial(TopicEvents, kafka))
    assert [row["offset"] for row in shown(reader.batches())] == [*range(count)]


def test_images_weights_and_numbers_beyond_float32(
    kafka: KafkaConnection, topic: Callable[..., str]
) -> None:
    name = topic("images", retention_ms=-1)
    text = IMAGE_TASK.replace('entity = "entity"', 'weight = "w"').replace(
        "max = 100", "max = 1e200"
    )
    task = parse(text.replace("events.poisoned", name), "t")
    events = [
        picture(0, x=1e39, w=2.5),
        picture(1, x=None, w=None),
        picture(2, x=3.4e38, photo=coded(bytes(range(24)))),
    ]
    with closing(Producer({"bootstrap.servers": kafka.servers})) as producer:
        for event in events:
            producer.produce(name, event)
        producer.flush()
    reader = RowReader(task, partial(TopicEvents, kafka))
    (batch,) = reader.batches()
    assert {name: (each.dtype, each.shape[1:]) for name, each in batch.items()} == {
        name: (np.dtype(each.dtype), each.shape) for name, each in reader.fields.items()
    }
    assert np.isnan(batch["numeric"][:, 0]).tolist() == [True, True, False]
    assert batch["weight"].tolist() == [2.5, 1.0, 1.0]
    assert batch["image"].shape == (3, 2, 3, 4)
    assert batch["image"][2].ravel().tolist() == [*range(24)]
    assert "entity" not in batch


def test_what_cannot_be_read_is_told(made: Made, tmp_path: Path, kafka: KafkaConnection) -> None:
    with pytest.raises(UsageError, match=r"stop: there is no partition 7; expected 0, 1, 2"):
        made.reader(stop={7: 1})
    with pytest.raises(UsageError, match=r"start of partition 0 = -1: expected an offset from 0"):
        made.reader(start={0: -1})
    with pytest.raises(UsageError, match=r"stop of partition 0 = 9: expected an offset from 10 "):
        made.reader(start={0: 10}, stop={0: 9})
    with pytest.raises(TopicError, match=r"no-such-topic"):
        RowReader(task_of("no-such-topic"), partial(TopicEvents, kafka))
    with pytest.raises(HistoryError, match="holds no archive"):
        RowReader(made.task, partial(ArchivedEvents, str(tmp_path)))
    unnamed = task_of(made.topic, IMAGE_TASK.replace('classes = ["no", "yes"]', ""))
    with pytest.raises(UsageError, match=r"target\.classes = \[\]"):
        RowReader(unnamed, partial(TopicEvents, kafka))


def test_a_damaged_archive_is_told(made: Made, tmp_path: Path) -> None:
    archive(made.kafka, made.topic, str(tmp_path))
    reader = RowReader(made.task, partial(ArchivedEvents, str(tmp_path)))
    file = next(tmp_path.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(HistoryError, match="damaged"):
        shown(reader.batches())


def test_a_reader_can_be_handed_to_other_processes(made: Made) -> None:
    """As a loader's workers that are not forked."""
    copies = [pickle.loads(pickle.dumps(made.reader())) for _ in range(2)]
    found = [numbers(shown(copy.batches(at, 2))) for at, copy in enumerate(copies)]
    assert sorted(chain(*found)) == [number for number, _ in made.good]


def test_neither_jax_nor_a_framework_is_loaded() -> None:
    told = "import sys, headrace.datasets; print({'jax', 'torch', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-P", "-c", told], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_a_framework_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"headrace\.{name} needs .*`pip install {name}`"):
        __import__(f"headrace.{name}")


def test_settings_of_a_connection_come_to_other_processes() -> None:
    told = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}
    told |= {"sasl.username": "u", "sasl.password": "p"}
    kafka = headrace.KafkaConnection("a:1", told)
    again = pickle.loads(pickle.dumps(kafka))
    assert isinstance(again, ClientSettings)
    assert again.confluent() == kafka.confluent()
    assert again.kafka_python() == kafka.kafka_python()
