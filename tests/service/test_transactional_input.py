"""A raw topic written by transactions: every one leaves an offset, or more, without an event."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from headrace.stream.audit.verify import verify
from headrace.stream.events import Feature
from headrace.stream.kafka import history
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.source import Source
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service import progress
from headrace.stream.service.learn import learn
from headrace.stream.service.progress import Progress
from headrace.stream.service.row_source import EventSource, FeatureSource, RowSource
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good
from tests.support.running import Running
from tests.support.topics import read


class Raw(Source):
    """Count who reads the raw topic beside the rows, and what is read."""

    opened = given = 0

    def __init__(self, *args: Any, **settings: Any) -> None:
        Raw.opened += 1
        super().__init__(*args, **settings)

    def messages(self, most: int, timeout_s: float) -> list[Any]:
        messages = super().messages(most, timeout_s)
        Raw.given += len(messages)
        return messages


class Counted(KafkaConnection):
    def source(self, topic: str, **settings: Any) -> Source:
        return Raw(self, topic, **settings)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = history.TopicHistory.__init__

    def counting(self: history.TopicHistory, kafka: KafkaConnection, topic: str) -> None:
        begin(self, Counted(kafka.servers), topic)

    monkeypatch.setattr(history.TopicHistory, "__init__", counting)
    monkeypatch.setattr(Raw, "opened", 0)
    monkeypatch.setattr(Raw, "given", 0)


def made(kafka: KafkaConnection, partitions: int = 1) -> Task:
    name = f"transacted-{uuid.uuid4().hex[:8]}"
    text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    task = parse(f"{text}\n[topics]\npartitions = {partitions}\n", "t")
    ensure(kafka, topic_specs(task))
    return task


@pytest.fixture
def transact(kafka: KafkaConnection) -> Iterator[Callable[..., None]]:
    """Write events, each in a transaction of its own; one in five of these is aborted before."""
    settings = {"transactional.id": uuid.uuid4().hex, "log_level": 0}
    producer = Producer({"bootstrap.servers": kafka.servers} | settings)
    producer.init_transactions()

    def write(task: Task, numbers: Iterable[int], commit: bool = True) -> None:
        for number in numbers:
            for end in (False, commit) if number % 5 == 2 else (commit,):
                producer.begin_transaction()
                value = good(number) if number % 10 else b"poison"
                partition = number % task.topics.partitions
                producer.produce(task.input.topic, value, partition=partition)
                producer.flush()
                (producer.commit_transaction if end else producer.abort_transaction)()

    yield write


def normalise(
    task: Task,
    kafka: KafkaConnection,
    begin: dict[int, int] | None = None,
    lost: Callable[[Feature], bool] = lambda row: False,
) -> list[Feature]:
    """Make the rows of what is committed, and write those that are not to be lost."""
    normalizer, sink, made = Normalizer(task), kafka.sink(), list[Feature]()
    with closing(kafka.source(task.input.topic, offsets=begin, timestamps=True)) as source:
        ends = source.ends()
        while any(source.position[p] < end for p, end in ends.items()):
            if records := source.poll(1000, 0.5):
                made += normalizer.features(records)[0]
    sent = [row for row in made if not lost(row)]
    sink.send(
        task.output("features"),
        list(map(msgspec.msgpack.encode, sent)),
        partitions=[row.partition for row in sent],
    )
    sink.flush()
    return made


def drained(task: Task, kafka: KafkaConnection, origin: Any, **options: Any) -> Progress:
    safety = Safety(os.environ["HEADRACE_STATE"], **options)
    return learn(task, kafka, origin=origin, safety=safety, micro_batch=64, drain=True)


def taken(source: RowSource) -> tuple[dict[int, list[Any]], int]:
    """Return the rows of each partition up to the present end, and how many were healed."""
    found: dict[int, list[Any]] = {}
    healed, ends = 0, source.ends()
    while not source.reached(ends):
        if batch := source.take(50, 0.1):
            rows, healed = batch.rows, healed + batch.healed
            columns = (rows.id, rows.offset, rows.time_ms, rows.label, rows.numeric, rows.ids)
            for place, partition in enumerate(rows.partition):
                row = [np.asarray(column[place]).tobytes() for column in columns]
                found.setdefault(partition, []).append(row)
    return found, healed


def test_rows_of_single_event_transactions_give_the_predictions_of_the_events(
    kafka: KafkaConnection, transact: Callable[..., None]
) -> None:
    task = made(kafka)
    transact(task, range(300))
    assert len(normalise(task, kafka)) == 300
    by_rows = drained(task, kafka, "features")
    assert (by_rows.events, by_rows.rejected, by_rows.healed) == (270, 30, 0)
    assert Raw.opened == 2  # to ask where the topic ends, and to read it beside the rows
    assert Raw.given <= 300
    drained(task, kafka, "events", from_scratch=True)
    predictions = read(kafka, task.output("predictions"))
    assert predictions[:270] == predictions[270:]
    audit = verify(task, kafka, deep=True)
    assert audit.findings == []
    assert audit.absent == 2 * (300 + 2 * 60 - 1)  # markers, and aborted events with theirs


def test_every_partition_is_read_beside_its_rows_and_what_is_lost_is_healed(
    kafka: KafkaConnection, transact: Callable[..., None]
) -> None:
    task = made(kafka, partitions=3)
    transact(task, range(240))
    made_rows = normalise(task, kafka, lost=lambda row: row.offset % 16 < 4)
    starts = dict.fromkeys(range(3), 0)
    source = FeatureSource(task, kafka, starts, starts, {})
    by_rows, healed = taken(source)
    source.close()
    events = EventSource(task, kafka, starts, starts)
    by_events, _ = taken(events)
    events.close()
    lost = 0
    for partition in range(3):
        offsets = [row.offset for row in made_rows if row.partition == partition]
        last = max(offset for offset in offsets if offset % 16 > 3)
        lost += sum(offset % 16 < 4 for offset in offsets if offset < last)
        came = [row for row in made_rows if row.partition == partition and row.offset <= last]
        count = sum(row.reject is None for row in came)
        assert by_rows[partition] == by_events[partition][:count]
    assert healed == lost > 20
    assert Raw.opened == 1 + 3
    assert Raw.given <= 240
    assert drained(task, kafka, "features").healed == lost
    assert verify(task, kafka, deep=True).findings == []


def test_a_learner_at_the_end_of_the_topic_goes_on_with_the_same_reader(
    kafka: KafkaConnection, transact: Callable[..., None]
) -> None:
    task = made(kafka)
    source = FeatureSource(task, kafka, {0: 0}, {0: 0}, {})
    begin, found = 0, []
    for first in range(0, 50, 10):
        transact(task, range(first, first + 10))
        assert len(normalise(task, kafka, {0: begin})) == 10
        with closing(kafka.source(task.input.topic)) as raw:
            begin = raw.ends()[0]
        rows, healed = taken(source)
        assert healed == 0
        found += rows[0]
    source.close()
    assert len(found) == 45
    assert (Raw.opened, Raw.given <= 50) == (2, True)


def test_an_aborted_transaction_at_the_end_makes_nobody_wait(
    kafka: KafkaConnection, transact: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end was noted before, and has moved since without anything to be seen."""
    monkeypatch.setattr(history, "PATIENCE", 4)
    task = made(kafka)
    transact(task, [1, 3])
    with closing(history.TopicHistory(kafka, task.input.topic)) as raw:
        assert raw.read([history.Range(0, 0, 4)]).offsets == [0, 2]
        transact(task, [4, 6], commit=False)
        assert raw.read([history.Range(0, 4, 8)]).offsets == []
        transact(task, [8])
        assert raw.read([history.Range(0, 8, 9)]).offsets == [8]
    assert Raw.opened == 1


def test_a_transaction_that_stays_open_is_named(
    kafka: KafkaConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STALLED_S", 1.0)
    task = made(kafka)
    producer = Producer({"bootstrap.servers": kafka.servers, "transactional.id": task.name})
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(5):
        producer.produce(task.input.topic, good(number))
    producer.flush()
    with Running(task, kafka) as learner:
        learner.wait(lambda _: bool(learner.notes))
        time.sleep(3)
        assert [line for line in learner.notes if "wait" in line] == [
            "5 records wait and cannot be read: a producer's transaction is still open there "
            "(kafka-transactions.sh find-hanging names it)"
        ]
        producer.commit_transaction()
        learner.wait(lambda done: done.events == 5)


def test_a_topic_without_gaps_is_not_read_beside_its_rows(kafka: KafkaConnection) -> None:
    task = made(kafka)
    sink = kafka.sink()
    sink.send(task.input.topic, [good(n) for n in range(100)])
    sink.flush()
    normalise(task, kafka)
    assert drained(task, kafka, "features").events == 100
    assert Raw.opened == 0
