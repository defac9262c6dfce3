"""Events of any size that a broker takes: what is too large is put aside, and nothing else ends."""

from __future__ import annotations

import base64
import json
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from headrace.stream.audit.verify import verify
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good
from tests.support.hostile import Run
from tests.support.learners import drained
from tests.support.normaliser import owner, read_until

LARGEST = 8_000_000
BAD = b'{"id": '
EVENTS: list[tuple[bytes | None, bytes, str | None]] = [  # key, value, and the code if refused
    (b"k", good(0), None),
    (b"k", BAD + b"x" * 200_000, "too_large"),
    (b"k", good(1, text="x" * 5_000_000), "too_large"),
    (b"K" * 180_000, BAD, "json"),
    (b"K" * 180_000, good(2), "too_large"),
    (b"K" * 5_000_000, BAD + b"y" * 2_000_000, "too_large"),
    (b"K" * 65_536, good(3, id="\u0001" * 256), None),
    (None, good(4), None),
    (b"k", good(5, id=json.dumps({"k" * 3000: 1})), "id"),
    (b"k", good(6)[:-1] + b',"%s":1,"%s":2}' % (b"d" * 1_800, b"d" * 1_800), "duplicate_key"),
    (b"k", good(7), None),
]


@pytest.fixture
def task(kafka: KafkaConnection, tmp_path: Path) -> tuple[Task, Path]:
    """Make a task whose raw topic was made by another, who takes large events."""
    name = f"size-{uuid.uuid4().hex[:8]}"
    text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    path = tmp_path / "task.toml"
    path.write_text(text)
    made = parse(text, str(path))
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        limit = {"configs": {"max.message.bytes": str(LARGEST)}}
        admin.create_topics({made.input.topic: {"num_partitions": 1, **limit}})
    ensure(kafka, topic_specs(made))
    with KafkaProducer(bootstrap_servers=kafka.servers, max_request_size=LARGEST) as producer:
        for key, value, _ in EVENTS:
            producer.send(made.input.topic, value, key).get(30)
    return made, path


def records(kafka: KafkaConnection, topic: str) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=kafka.servers, isolation_level="read_committed")
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    (end,) = consumer.end_offsets([place]).values()
    found: list[Any] = []
    while consumer.position(place) < end:
        for batch in consumer.poll(timeout_ms=500).values():
            found += batch
    consumer.close()
    return found


def check(kafka: KafkaConnection, task: Task) -> None:
    """Check letters and predictions, each where it belongs."""
    letters = {}
    for record in records(kafka, task.output("dead-letter")):
        letter = json.loads(record.value)
        letters[letter["offset"]] = letter
    refused = {at: code for at, (_, _, code) in enumerate(EVENTS) if code}
    assert {at: letter["code"] for at, letter in letters.items()} == refused
    for at, letter in letters.items():
        for name, data in (("key", EVENTS[at][0]), ("raw", EVENTS[at][1])):
            held = None if letter[name] is None else base64.b64decode(letter[name])
            if data is not None and held != data:
                assert held == data[: len(held or b"")]
                assert letter[f"{name}_bytes"] == len(data) > 4_096
                assert letter[f"{name}_sha256"] == sha256(data).hexdigest()
    predictions = records(kafka, task.output("predictions"))
    said = [(json.loads(record.value)["offset"], record.key) for record in predictions]
    assert said == [(at, key) for at, (key, _, code) in enumerate(EVENTS) if not code]


def test_no_size_of_an_event_stops_a_learner(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, _ = task
    assert drained(made, kafka, micro_batch=4).events == 4
    check(kafka, made)
    assert verify(made, kafka, deep=True).findings == []


def test_no_size_of_an_event_stops_the_normaliser(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, path = task
    with owner(kafka, [path]):
        read_until(kafka, made.output("features"), lambda found: len(found) >= len(EVENTS))
    assert drained(made, kafka, origin="features", micro_batch=4).healed == 0
    check(kafka, made)


def test_what_was_too_long_for_its_letter_is_sent_again_whole(
    kafka: KafkaConnection, task: tuple[Task, Path], run: Run
) -> None:
    made, path = task
    drained(made, kafka, micro_batch=4)
    found = run("dead-letters", path, "-b", kafka.servers, "--requeue", "--json")
    assert found.code == 0
    refused = [(key, value) for key, value, code in EVENTS if code]
    assert f"{len(refused)} sent again, 0 not" in found.err
    sent = records(kafka, made.input.topic)[len(EVENTS) :]
    assert [(record.key, record.value) for record in sent] == refused
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_records({TopicPartition(made.input.topic, 0): len(EVENTS)})
    again = run("dead-letters", path, "-b", kafka.servers, "--requeue", "--json")
    long = sum(len(value or b"") > 65_536 or len(key or b"") > 4_096 for key, value in refused)
    assert f"{len(refused) - long} sent again, {long} not" in again.err
    assert run("dead-letters", path, "--requeue", "--follow").code == 2
