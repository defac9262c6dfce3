"""The Faust normaliser against a real Kafka, in processes of its own as users run it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from headrace.stream.engines.faust import run
from headrace.stream.errors import TopicError
from headrace.stream.events import DeadLetter, Feature, Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, load
from tests.support.normaliser import Record, owner, read, read_until

MakeTopic = Callable[..., str]

TASK = """
name = "{name}"
[input]
topic = "{topic}"
max_bytes = 2000
[target]
field = "y"
kind = "regress"
[features]
x = {{ kind = "number" }}
word = {{ kind = "{kind}" }}
[topics]
partitions = {partitions}
"""


@pytest.fixture
def make_task(
    kafka: KafkaConnection, topic: MakeTopic, tmp_path: Path
) -> Iterator[Callable[..., Path]]:
    """Yield a function that writes a task file, and creates its topics on first use."""
    from kafka import KafkaAdminClient

    from headrace.stream.kafka.topics import ensure

    made: list[str] = []

    def make(name: str, source: str, *, partitions: int = 1, kind: str = "category") -> Path:
        path = tmp_path / f"{name}.toml"
        name = f"{name}-{source.rsplit('.', 1)[1]}"
        path.write_text(TASK.format(name=name, topic=source, partitions=partitions, kind=kind))
        outputs = [spec for spec in topic_specs(load(path)) if spec.name != source]
        ensure(kafka, outputs)
        made.extend(spec.name for spec in outputs)
        return path

    yield make
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_topics(made)


def coordinates(records: list[Record]) -> list[tuple[int, int]]:
    """Return the raw coordinates of features records, in order, repeats included."""
    decode = msgspec.msgpack.Decoder(Feature).decode
    rows = [decode(record.value or b"") for record in records]
    assert [row.partition for row in rows] == [record.partition for record in records]
    return [(row.partition, row.offset) for row in rows]


def direct(task: Task, raw: list[Record]) -> tuple[list[Feature], list[DeadLetter]]:
    """Normalise what was read, without Faust."""
    columns = list(zip(*raw, strict=True))
    partitions, offsets, timestamps_ms, keys, values = map(list, columns)
    records = Records(task.input.topic, values, keys, partitions, offsets, timestamps_ms)
    return Normalizer(task).features(records)


def event(number: int) -> bytes:
    return json.dumps(
        {"id": f"e{number}", "x": number / 7, "word": f"w{number % 11}", "y": number % 3}
    ).encode()


POISON = (
    b"",
    b"{",
    b"\xff\xfe",
    b"[1, 2]",
    b'{"id": "no target or number", "x": "text"}',
    b'{"id": "twice", "id": "twice", "y": 1}',
    b'{"id": "deep", "y": 1, "z": ' + b"[" * 40 + b"]" * 40 + b"}",
    b'{"id": "large", "y": 1, "word": "' + b"a" * 2000 + b'"}',
    b'{"id": "", "y": 1}',
    b'{"id": "far", "y": 1e300}',
    b'{"id": "null", "x": null, "word": null, "y": null}',
)


def test_faust_makes_the_same_bytes_as_the_normaliser_itself(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    source = topic("raw", partitions=3)
    paths = [
        make_task("words", source, partitions=3),
        make_task("texts", source, partitions=3, kind="text"),
    ]
    from kafka import KafkaProducer

    with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
        for number in range(3_000):
            key = b"k%d" % (number % 5) if number % 7 else None
            producer.send(source, event(number), key, partition=number % 3)
            if number % 100 == 0:
                poison = POISON[number // 100 % len(POISON)]
                producer.send(source, poison, key, partition=number % 2)
                producer.send(source, None, b"tombstone", partition=2)
    raw = read(kafka, source)
    assert len(raw) == 3_060
    with owner(kafka, paths):
        for path in paths:
            task = load(path)
            wanted, letters = direct(task, raw)
            assert len(letters) >= 50
            found = read_until(kafka, task.output("features"), lambda found: len(found) >= len(raw))
            assert [record.value for record in found] == list(map(msgspec.msgpack.encode, wanted))
            assert [(r.partition, r.key) for r in found] == [(r.partition, r.key) for r in raw]
            dead = read(kafka, task.output("dead-letter"))
            assert [record.value for record in dead] == list(map(msgspec.json.encode, letters))
            assert [(r.partition, r.key) for r in dead] == [(d.partition, d.key) for d in letters]
            by_place = {(record.partition, record.offset): record.value for record in raw}
            for record in dead:
                letter = msgspec.json.decode(record.value or b"", type=DeadLetter)
                assert letter.raw == by_place[letter.partition, letter.offset]


def test_workers_find_the_encoder_of_an_installed_package(
    kafka: KafkaConnection,
    topic: MakeTopic,
    make_task: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registries: None,
) -> None:
    folder = tmp_path / "odd_sizes-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-sizes\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[headrace.encoders]\nsizes = odd_sizes:encode\n")
    (tmp_path / "odd_sizes.py").write_text(
        "def encode(values):\n    return [[len(value), value.count('1')] for value in values]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    source = topic("raw")
    path = make_task("sizes", source, kind='encoded", encoder = "sizes", width = 2, field = "word')
    odd = [b'{"id": %d, "y": 1, "word": %s}' % (at, b'[7, {"a": 1}]') for at in range(3)]
    sink = kafka.sink()
    sink.send(source, [*map(event, range(50)), *odd, b'{"id": 9, "y": 1, "word": 7}'])
    sink.flush()
    raw, task = read(kafka, source), load(path)
    with owner(kafka, [path]):
        found = read_until(kafka, task.output("features"), lambda found: len(found) >= len(raw))
    wanted, letters = direct(task, raw)
    assert [record.value for record in found] == list(map(msgspec.msgpack.encode, wanted))
    assert [letter.offset for letter in letters] == [53]
    assert np.frombuffer(wanted[11].numeric).tolist() == [11 / 7, 2, 0]
    assert np.frombuffer(wanted[50].numeric)[1:].tolist() == [2, 0]


def test_a_restart_goes_on_where_it_was(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    source = topic("raw")
    path = make_task("again", source)
    features, sink = load(path).output("features"), kafka.sink()
    for turn in range(2):
        sink.send(source, [event(number) for number in range(500)])
        sink.flush()
        with owner(kafka, [path]):
            read_until(kafka, features, lambda found, n=500 * (turn + 1): len(found) >= n)  # type: ignore[misc]
    assert coordinates(read(kafka, features)) == [(0, offset) for offset in range(1_000)]


def test_events_come_in_any_compression(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    from confluent_kafka import Producer

    source = topic("raw")
    path = make_task("compressed", source)
    codecs = ("gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        producer = Producer({"bootstrap.servers": kafka.servers, "compression.type": codec})
        for number in range(50):
            producer.produce(source, event(number))
        producer.flush()
    features = load(path).output("features")
    with owner(kafka, [path]):
        read_until(kafka, features, lambda found: len(found) >= 50 * len(codecs))


def test_only_committed_events_become_rows(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    """What is aborted never was; what is undecided waits, and all that comes after it."""
    from confluent_kafka import Producer

    source = topic("raw")
    path = make_task("committed", source)
    features = load(path).output("features")
    producer, late = (
        Producer(
            {
                "bootstrap.servers": kafka.servers,
                "transactional.id": f"{source}.{number}",
                "log_level": 0,
            }
        )
        for number in range(2)
    )
    for each in (producer, late):
        each.init_transactions()

    def send(number: int, *, commit: bool) -> None:
        producer.begin_transaction()
        producer.produce(source, event(number))
        producer.flush()
        (producer.commit_transaction if commit else producer.abort_transaction)()

    for number in range(20):
        send(number, commit=number % 3 != 1)
    late.begin_transaction()
    late.produce(source, event(20))
    late.flush()
    send(21, commit=True)
    committed = [(0, 2 * number) for number in range(20) if number % 3 != 1]
    with owner(kafka, [path]):
        read_until(kafka, features, lambda found: len(found) >= len(committed))
        time.sleep(1)
        assert coordinates(read(kafka, features)) == committed
        late.commit_transaction()
        read_until(kafka, features, lambda found: len(found) >= len(committed) + 2)
    send(22, commit=False)
    send(23, commit=True)
    with owner(kafka, [path]):
        found = read_until(kafka, features, lambda found: (0, 46) in coordinates(found))
    assert sorted(set(coordinates(found))) == [*committed, (0, 40), (0, 41), (0, 46)]


@pytest.mark.long
def test_no_row_is_lost_when_a_worker_is_killed(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    source = topic("raw", partitions=4)
    path = make_task("killed", source, partitions=4)
    features, sink = load(path).output("features"), kafka.sink()
    events, partitions = [event(number) for number in range(20_000)], [0, 1, 2, 3] * 5_000
    with owner(kafka, [path], workers=2) as process:
        first, second = psutil.Process(process.pid).children()
        for start in range(0, 20_000, 500):
            sink.send(source, events[start : start + 500], partitions=partitions[:500])
            sink.flush()
            if start == 8_000:
                read_until(kafka, features, lambda found: len(found) > 1_000)
                first.kill()
            time.sleep(0.02)
        found = read_until(kafka, features, lambda found: len(set(coordinates(found))) == 20_000)
        assert second.is_running()
        assert len(psutil.Process(process.pid).children()) == 2, "the killed one was not replaced"
    seen: dict[int, int] = {}
    for partition, offset in coordinates(found):
        expected = seen.get(partition, 0)
        assert offset <= expected, "a row came before one that a learner would then take as seen"
        seen[partition] = max(expected, offset + 1)
    assert seen == dict.fromkeys(range(4), 5_000)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL],
)
def test_nothing_outlives_its_owner(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path], number: signal.Signals
) -> None:
    source = topic("raw", partitions=2)
    path = make_task("ended", source, partitions=2)
    with owner(kafka, [path], workers=2) as process:
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        process.send_signal(number)
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive
        assert process.wait(20) == (-number if number == signal.SIGKILL else 0)


def test_what_a_user_has_to_do_first_is_said(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    source = topic("raw", partitions=2)
    path = make_task("narrow", source, partitions=1)
    path.write_text(path.read_text().replace(source, "nowhere-to-be-seen"))
    with pytest.raises(TopicError, match=r"no topic nowhere-to-be-seen at .*headrace topics"):
        run([path], kafka)


def test_partitions_that_are_added_are_normalised(
    kafka: KafkaConnection, topic: MakeTopic, make_task: Callable[..., Path]
) -> None:
    """Before the start, and while it runs: rows stay in the partition of their event."""
    from kafka import KafkaAdminClient, KafkaProducer

    source = topic("raw")
    path = make_task("grown", source)
    task = load(path)

    def grow(partitions: int) -> None:
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.create_partitions({source: partitions})
        with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
            for number in range(40):
                place = partitions - 1 - number % 2
                producer.send(source, event(number), partition=place).get(30)

    grow(2)
    with owner(kafka, [path]):
        read_until(kafka, task.output("features"), lambda found: len(found) == 40)
        grow(4)
        found = read_until(kafka, task.output("features"), lambda found: len(found) == 80)
    assert coordinates(found) == [(p, n) for p in range(4) for n in range(20)]
