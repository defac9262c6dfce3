"""A service follows a learner through a real Kafka: its answers are what is published."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.errors import TopicError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.ledger.release import MANIFEST_KEY
from headrace.stream.serve.follower import Follower
from headrace.stream.serve.following import Following
from headrace.stream.serve.predictor import Answer, NotReleasedError, Predictor
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import Task
from tests.support.events import good
from tests.support.running import Running
from tests.support.serving import small_task
from tests.support.topics import read, read_raw, send

pytestmark = pytest.mark.kafka


@pytest.fixture
def task(kafka: KafkaConnection, request: pytest.FixtureRequest) -> Iterator[Task]:
    made = small_task(f"serve-{os.getpid()}-{time.time_ns()}")
    ensure(kafka, topic_specs(made))
    yield made
    delete(kafka, [spec.name for spec in topic_specs(made)])


def learned(task: Task, kafka: KafkaConnection, **safety: Any) -> None:
    """Learn what is there, and release where that ends."""
    place = Safety(os.environ["HEADRACE_STATE"], **safety)
    learn(task, kafka, origin="events", safety=place, micro_batch=64, release_s=60.0, drain=True)


@contextmanager
def following(
    task: Task, kafka: KafkaConnection, key: bytes | None = None
) -> Iterator[tuple[Predictor, Following, list[str]]]:
    notes: list[str] = []
    predictor = Predictor(task)
    by = Following(predictor, kafka, key, notes.append)
    by.start()
    yield predictor, by, notes
    by.stop()


def wait(until: Callable[[], object], what: object = "") -> None:
    give_up_s = time.monotonic() + 30
    while not until():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.02)


def stands(predictor: Predictor) -> int:
    """Return how many offsets the state knows that is answered by."""
    return predictor.release.manifest.positions[0] if predictor.release else 0


def test_answers_are_what_the_learner_publishes_next(kafka: KafkaConnection, task: Task) -> None:
    with following(task, kafka) as (predictor, by, _):
        with pytest.raises(NotReleasedError):
            predictor.answer([good(0)])
        answers = []
        for number in range(0, 200, 20):
            send(kafka, task.input.topic, [good(at) for at in range(number, number + 20)])
            learned(task, kafka)
            wait(lambda: stands(predictor) == number + 20)  # noqa: B023
            (answer,) = predictor.answer([good(number + 20)])
            assert isinstance(answer, Answer)
            answers.append(answer)
            wait(lambda: by.behind_events == 0)
            assert by.behind_s == 0.0
    lines = read(kafka, task.output("predictions"))
    for answer in answers[:-1]:
        (line,) = [line for line in lines if line["id"] == answer.id]
        assert (answer.prediction, answer.step) == (line["prediction"], line["step"])
        assert answer.probabilities == line["probabilities"]
    assert by.refused == 0


def test_a_service_that_begins_later_answers_by_the_newest_state(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(at) for at in range(100)])
    learned(task, kafka)
    send(kafka, task.input.topic, [good(at) for at in range(100, 200)])
    learned(task, kafka)
    follower = Follower(task, kafka)
    found = follower.poll(0.0)
    assert found is not None
    assert found.manifest.positions == {0: 200}
    assert follower.poll(0.2) is None
    follower.close()


def test_it_follows_while_events_come_and_knows_how_far_it_is_behind(
    kafka: KafkaConnection, task: Task
) -> None:
    with following(task, kafka) as (predictor, by, _):
        behind: list[int] = []
        answered: list[Any] = []
        with Running(task, kafka, release_s=0.1) as running:
            for number in range(0, 3000, 50):
                send(kafka, task.input.topic, [good(at) for at in range(number, number + 50)])
                if predictor.release:
                    answered += predictor.answer([good(0), b"{}"])
                    behind.append(by.behind_events or 0)
                time.sleep(0.05)
            running.wait(lambda progress: progress.events == 3000)
            wait(lambda: stands(predictor) == 3000)
        assert by.releases >= 3
        assert len(answered) >= 10
        assert {type(each).__name__ for each in answered} == {"Answer", "Reject"}
        versions = [each.version for each in answered if hasattr(each, "version")]
        seqs = [int(version.rpartition("-")[2]) for version in versions]
        assert seqs == sorted(seqs)
        assert by.refused == 0


def test_what_is_not_this_learners_is_never_served(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    send(kafka, task.input.topic, [good(at) for at in range(50)])
    learned(task, kafka)
    models = task.output("models")
    with following(task, kafka) as (predictor, by, notes):
        wait(lambda: predictor.release)
        first = predictor.release
        for key, value in read_raw(kafka, models):  # a stranger's, changed
            changed = bytearray(value)
            changed[len(value) // 2] ^= 1
            send(kafka, models, [bytes(changed)], keys=[key])
        send(kafka, models, [b"{}", b"x" * 9000], keys=[MANIFEST_KEY, MANIFEST_KEY])
        send(kafka, models, [b"", b"anything"], keys=[b"what", b""])
        wait(lambda: by.refused >= 2, notes)
        assert predictor.release is first
        assert notes
        learned(task, kafka, from_scratch=True)
        wait(lambda: predictor.release is not first, notes)
    other = task.model_copy(update={"hash_key_file": None, "name": task.name})
    other = other.model_copy(update={"input": other.input.model_copy(update={"max_bytes": 5000})})
    stranger = Follower(other, kafka)
    assert stranger.poll(0.5) is None
    assert "another task" in stranger.problems[-1]
    stranger.close()
    sealed = Follower(task, kafka, b"a key of 16 bytes")
    assert sealed.poll(0.5) is None
    assert "HMAC" in sealed.problems[-1]
    sealed.close()


def test_a_topic_that_is_not_there_is_told_and_waited_for(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(at) for at in range(50)])
    delete(kafka, [task.output("models")])
    with pytest.raises(TopicError, match="models"):
        Follower(task, kafka)
    with following(task, kafka) as (predictor, _, notes):
        wait(lambda: notes)
        assert "models" in notes[0]
        ensure(kafka, [spec for spec in topic_specs(task) if spec.role == "models"])
        learned(task, kafka)
        wait(lambda: predictor.release, notes)


def test_the_topic_is_compacted_and_another_kind_is_refused(kafka: KafkaConnection) -> None:
    made = small_task(f"kind-{time.time_ns()}")
    models = made.output("models")
    ensure(kafka, [TopicSpec(models)])
    with pytest.raises(TopicError, match=r"cleanup.policy=delete.*has to be compact"):
        ensure(kafka, topic_specs(made))
    delete(kafka, [models])
