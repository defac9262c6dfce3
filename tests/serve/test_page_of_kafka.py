"""The page on a real Kafka shows what a learner's topics hold, also when they are gone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.archive.writer import archive
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.serve.viewing import Viewing
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from tests.support.events import POISON, good, task_text
from tests.support.page_topics import wait
from tests.support.serving import SMALL
from tests.support.topics import forget, read, send

pytestmark = pytest.mark.kafka

EVENTS = 300
BAD = POISON["number as text"][0]


@pytest.fixture
def task(kafka: KafkaConnection) -> Iterator[Task]:
    """Return a task whose predictions are all explained, after its learner has learned."""
    text = task_text(f"page-{os.getpid()}-{time.time_ns()}") + f"{SMALL}explain = 1.0\n"
    made = parse(f"{text}[topics]\npartitions = 3\n", "test")
    ensure(kafka, topic_specs(made))
    send(kafka, made.input.topic, [*map(good, range(EVENTS)), BAD, BAD])
    place = Safety(os.environ["HEADRACE_STATE"])
    learn(made, kafka, origin="events", safety=place, micro_batch=64, release_s=0.0, drain=True)
    yield made
    delete(kafka, [spec.name for spec in topic_specs(made)])


@contextmanager
def viewed(task: Task, kafka: KafkaConnection, place: str | None = None) -> Iterator[Viewing]:
    viewing = Viewing(task, kafka, place)
    viewing.start()
    viewing.look()
    wait(lambda: viewing.fresh, 30)
    yield viewing
    viewing.stop()


def test_it_shows_what_the_topics_hold_and_did_hold(
    task: Task, kafka: KafkaConnection, tmp_path: Path
) -> None:
    metrics, predictions = (read(kafka, task.output(of)) for of in ("metrics", "predictions"))
    labels = {each["id"]: each["label"] for each in map(_decoded, range(EVENTS))}
    with viewed(task, kafka) as viewing:
        found = viewing.as_json()
        assert found["trouble"] is None
        assert [each["t"] for each in found["points"]] == [each["time_ms"] for each in metrics]
        assert found["points"][-1]["model_all"] == metrics[-1]["all"]["accuracy"]
        assert found["latest"]["importance"].keys() <= metrics[-1]["importance"].keys()
        by_id = {each["id"]: each for each in predictions}
        assert len(found["predictions"]) == 50
        for shown in found["predictions"]:
            told = by_id[shown["id"]]
            assert shown["prediction"] == told["prediction"]
            assert shown["probability"] == max(told["probabilities"])
            assert shown["truth"] == labels[shown["id"]]
        for shown in found["explained"]:
            told = by_id[shown["id"]]["explanation"]
            assert shown["explanation"]["base"] == told["base"]
            assert shown["explanation"]["inputs"] == told["inputs"]
        assert found["refused"]["schema"]["count"] == 2
        assert found["latest"]["rejected"] == 2
        assert 0 < found["latency"]["p50"] <= found["latency"]["p99"]
        now_ms = found["now_ms"]
        before = viewing.at(now_ms)
        for name in ("points", "drift", "refused", "latest"):
            assert before[name] == found[name]
        assert viewing.at(found["first_ms"] - 1)["points"] == []
    topics = [task.output(of) for of in ("metrics", "predictions", "drift", "dead-letter")]
    for topic in (*topics, task.input.topic):
        archive(kafka, topic, str(tmp_path))
        for partition in range(3 if topic in (task.input.topic, *topics[1::2]) else 1):
            forget(kafka, topic, partition)
    with viewed(task, kafka, str(tmp_path)) as viewing:
        assert viewing.as_json()["points"] == []
        again = viewing.at(now_ms)
        for name in ("points", "drift", "refused", "latest"):
            assert again[name] == before[name]
        assert _known(again) == _known(before)


def _decoded(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(good(number))
    return found


def _known(view: dict[str, Any]) -> list[Any]:
    return sorted((each["id"], each["truth"], each["event"]) for each in view["predictions"])
