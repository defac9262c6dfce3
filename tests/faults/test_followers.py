"""Followers of releases hold a whole state, and the newest, whatever is killed or made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.ledger.release import CHUNK_BYTES, Release
from headrace.stream.serve.follower import Follower
from headrace.stream.serve.following import Following
from headrace.stream.serve.predictor import Predictor
from headrace.stream.storage.tensors import most_bytes
from headrace.stream.task import Task, parse
from headrace.stream.training.snapshot import digest, released_shapes
from tests.faults.nodes import make_nodes
from tests.faults.test_kills import RELEASING
from tests.support.events import good, task_text
from tests.support.releases import release, releaser
from tests.support.topics import send

AMID, EVENTS = 3, 120  # the release in which the learner is killed, and what is sent in all
SMALL = '\n[model]\nnetwork = "linear"\nneighbours = 0\n'


@pytest.fixture
def task(kafka: KafkaConnection) -> Iterator[Task]:
    """Make a task whose state takes many chunks."""
    made = parse(task_text(f"followed-{os.getpid()}-{time.time_ns()}"), "test")
    assert most_bytes(released_shapes(made)) > 5 * CHUNK_BYTES
    ensure(kafka, topic_specs(made))
    yield made
    delete(kafka, [spec.name for spec in topic_specs(made)])


@contextmanager
def learner(
    task: Task, kafka: KafkaConnection, path: Path, **env: str
) -> Iterator[Callable[[], int | None]]:
    """Start `headrace learn`, which releases often; yield what tells its exit code."""
    path.write_text(task_text(task.name))
    command = [*(sys.executable, "-P", "-m", "headrace", "learn", str(path)), "-b", kafka.servers]
    with subprocess.Popen(
        [*command, "--release", "0.05", "--micro-batch", "16", "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | env,
    ) as process:
        try:
            yield process.poll
        finally:
            process.send_signal(signal.SIGTERM)


def whole(found: Release) -> int:
    """Return how many events a release has learned from; it is the state that it says it is."""
    assert digest(found.tensors) == found.manifest.state
    assert found.manifest.counts["events"] == found.manifest.positions[0]
    return found.manifest.positions[0]


@pytest.mark.parametrize("point", RELEASING)
def test_a_learner_killed_amid_a_release_leaves_the_one_before(
    kafka: KafkaConnection, task: Task, tmp_path: Path, point: str
) -> None:
    follower, seen, sent = Follower(task, kafka), [0], 0

    def go_on(until: Callable[[], bool], **env: str) -> None:
        nonlocal sent
        give_up_s = time.monotonic() + 90
        with learner(task, kafka, tmp_path / "task.toml", **env) as ended:
            while not until():
                assert time.monotonic() < give_up_s, (point, seen, follower.problems)
                if "HEADRACE_FAILPOINT" not in env:
                    assert ended() is None
                elif ended() is not None:
                    assert ended() == -signal.SIGKILL
                    return
                if seen[-1] == sent < EVENTS:  # so that there is a release of each
                    send(kafka, task.input.topic, [good(at) for at in range(sent, sent + 20)])
                    sent += 20
                if found := follower.poll(0.05):
                    seen.append(whole(found))

    go_on(lambda: False, HEADRACE_FAILPOINT=f"{point}:{AMID}")
    beside = Follower(task, kafka)  # one that begins while the broken transaction may hang
    newest = beside.poll(0.0)
    beside.close()
    assert newest is not None
    give_up_s = time.monotonic() + 30
    while seen[-1] < whole(newest):
        assert time.monotonic() < give_up_s, (point, seen, follower.problems)
        if found := follower.poll(0.5):
            seen.append(whole(found))
    assert seen[-1] == whole(newest) > 0
    go_on(lambda: seen[-1] == EVENTS)
    assert seen == sorted({*seen})
    assert follower.problems == beside.problems == []
    follower.close()


def test_a_topic_made_again_is_followed_from_its_beginning(
    kafka: KafkaConnection, task: Task
) -> None:
    notes: list[str] = []
    predictor = Predictor(task)
    by = Following(predictor, kafka, None, notes.append)
    models = [spec for spec in topic_specs(task) if spec.role == "models"]
    by.start()
    try:
        first = releaser(task, kafka)
        for seq in (1, 2, 3):
            release(first, task, seq)
        wait(lambda: seq_of(predictor) == 3, notes)
        first.close()
        delete(kafka, [models[0].name])
        give_up_s = time.monotonic() + 30
        while kafka.describe_existing([models[0].name]):
            assert time.monotonic() < give_up_s
        ensure(kafka, models)
        again = releaser(task, kafka)
        release(again, task, 4)  # a shorter topic than before
        wait(lambda: seq_of(predictor) == 4, notes)
        again.close()
    finally:
        by.stop()
    assert by.refused == 0


def test_a_broker_that_dies_is_waited_for(tmp_path: Path) -> None:
    made = parse(task_text("down") + SMALL, "test")
    (node,) = make_nodes(tmp_path / "kafka", 1)
    kafka = KafkaConnection(f"127.0.0.1:{node.port}")
    notes: list[str] = []
    try:
        ensure(kafka, topic_specs(made))
        predictor = Predictor(made)
        by = Following(predictor, kafka, None, notes.append)
        writer = releaser(made, kafka)
        release(writer, made, 1)
        by.start()
        wait(lambda: seq_of(predictor) == 1, notes)
        node.kill()
        time.sleep(3.0)
        assert seq_of(predictor) == 1  # it goes on to answer
        node.start()
        node.wait_started()
        give_up_s, seq = time.monotonic() + 90, 1
        while seq_of(predictor) in (None, 1):
            seq += 1
            release(writer, made, seq)  # may fail at first
            assert time.monotonic() < give_up_s, notes
            time.sleep(0.5)
        by.stop()
        writer.close()
    finally:
        node.close()
    assert by.refused == 0


def seq_of(predictor: Predictor) -> int | None:
    return predictor.release.manifest.seq if predictor.release else None


def wait(until: Callable[[], bool], what: object) -> None:
    give_up_s = time.monotonic() + 60
    while not until():
        assert time.monotonic() < give_up_s, what
        time.sleep(0.02)
