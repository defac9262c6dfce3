"""A service whose networks are a Keras model: its history depends on the content of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

import headrace
from headrace.stream.audit.replay import replay, state
from headrace.stream.audit.replay_range import parse_position
from headrace.stream.audit.verify import verify
from headrace.stream.errors import RecoveryError, TaskError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from tests.support.events import TASK, good
from tests.support.keras_models import dense, forget, saved
from tests.support.memory_kafka import MemoryKafka

MODEL = '\n[model]\nnetwork = "keras:models/m.keras"\nneighbours = 10\n'

pytestmark = [
    pytest.mark.usefixtures("registries"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras
]


def model(seed: int = 0) -> Any:
    return dense(6, 2, inputs=2, seed=seed, activation="softmax")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a task, and the model beside it."""
    (tmp_path / "models").mkdir()
    saved(model(), tmp_path / "models/m.keras")
    path = tmp_path / "task.toml"
    path.write_text(TASK + MODEL)
    return path


def kafka_of(task: headrace.Task, first: int, end: int) -> MemoryKafka:
    made = MemoryKafka()
    made.make(topic_specs(task), partitions=1)
    for number in range(first, end):
        made.topics[task.input.topic][0].append(good(number))
    return made


def test_what_a_service_learned_opens_again_and_is_proven(file: Path, tmp_path: Path) -> None:
    task, place = headrace.Task.load(file), str(tmp_path / "state")
    kafka = kafka_of(task, 0, 30)
    assert headrace.Service(file, kafka, state=place).run(drain=True).events == 30
    for number in range(30, 50):
        kafka.topics[task.input.topic][0].append(good(number))
    assert headrace.Service(file, kafka, state=place).run(drain=True).events == 50
    beside = headrace.Learner(file)
    beside.predict_then_learn([json.loads(good(number)) for number in range(50)])
    following = json.loads(good(50))
    assert headrace.Learner.load(place).predict_one(following) == beside.predict_one(following)
    audit = verify(task, kafka, deep=True)
    assert (audit.findings, audit.recomputed) == ([], 50)
    replayed = replay(task, kafka)
    assert (replayed.equal, replayed.state) == (replayed.batches, audit.state)
    kept = str(tmp_path / "kept")
    state(task, kafka, parse_position("#1"), kept)
    assert headrace.Learner.load(kept).events > 0


def test_a_file_with_other_content_is_another_task(file: Path, tmp_path: Path) -> None:
    """Where the file lies, and when it was saved, does not matter."""
    task, place = headrace.Task.load(file), str(tmp_path / "state")
    kafka = kafka_of(task, 0, 30)
    headrace.Service(file, kafka, state=place).run(drain=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    saved(model(), moved / "again.keras")
    (moved / "task.toml").write_text(TASK + MODEL.replace("models/m.keras", "again.keras"))
    plan = headrace.Service(moved / "task.toml", kafka, state=place).plan()
    assert any("checkpoint" in line for line in plan)
    saved(model(seed=1), tmp_path / "models/m.keras")
    changed = headrace.Service(file, kafka, state=place)
    with pytest.raises(RecoveryError, match=r'model\.network: "keras:sha256:.* -> "keras:sha256:'):
        changed.run(drain=True)
    forget()
    with pytest.raises(TaskError, match=r"m\.keras': has changed: now it is sha256:"):
        headrace.Learner.load(place)


def test_a_service_begins_with_a_learner_of_the_same_model(file: Path, tmp_path: Path) -> None:
    """Whether a program gave the model or its file was named."""
    task = headrace.Task.load(file)
    plain = task.model_copy(update={"model": task.model.model_copy(update={"network": None})})
    learner = headrace.Learner(plain, network=model())
    learner.predict_then_learn([json.loads(good(number)) for number in range(20)])
    learner.save(tmp_path / "saved.hr")
    kafka = kafka_of(task, 20, 30)
    service = headrace.Service(file, kafka, state=tmp_path, start_from=tmp_path / "saved.hr")
    assert service.run(drain=True).events == 10
    learner.predict_then_learn([json.loads(good(number)) for number in range(20, 30)])
    following = json.loads(good(30))
    found = headrace.Learner.load(tmp_path / "poisoned").predict_one(following)
    assert found == learner.predict_one(following)
    other = headrace.Learner(plain, network=model(seed=2))
    other.save(tmp_path / "other.hr")
    with pytest.raises(UsageError, match=r"is a learner of another task than poisoned: model.net"):
        headrace.Service(file, kafka, state=tmp_path, start_from=tmp_path / "other.hr")


def test_a_service_goes_on_with_the_model_that_a_program_gives(
    file: Path, tmp_path: Path, kafka: KafkaConnection
) -> None:
    """On a real Kafka; of a task file that names the same model it is the same history."""
    named = headrace.Task.load(file)
    name = f"given-{uuid4().hex[:8]}"
    named = named.model_copy(
        update={"name": name, "input": named.input.model_copy(update={"topic": f"{name}.raw"})}
    )
    plain = named.model_copy(update={"model": named.model.model_copy(update={"network": None})})
    ensure(kafka, topic_specs(named))
    place, producer = tmp_path / "state", Producer(kafka.confluent())
    for end in (15, 30):
        for number in range(end - 15, end):
            producer.produce(named.input.topic, good(number))
        producer.flush()
        forget()  # as another process would
        service = headrace.Service(plain, kafka, state=place, network=model())
        assert service.run(drain=True).events == end
    beside = headrace.Learner(plain, network=model())
    beside.predict_then_learn([json.loads(good(number)) for number in range(30)])
    following = json.loads(good(30))
    assert headrace.Learner.load(place).predict_one(following) == beside.predict_one(following)
    for task in (service.task, named):
        audit = verify(task, kafka, deep=True)
        assert (audit.findings, audit.recomputed) == ([], 30)
    with pytest.raises(RecoveryError, match=r'model\.network: "keras:sha256:.* -> "keras:sha256:'):
        headrace.Service(plain, kafka, state=place, network=model(seed=1)).plan()
    forget()
    with pytest.raises(TaskError, match="a program gave that model, and this one did not: give it"):
        headrace.Learner.load(place)
