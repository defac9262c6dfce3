"""What a service says and does while Kafka is away, and of states that no learner wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from headrace.stream.errors import no_broker
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.watch import other_topic
from headrace.stream.ledger.position import Position
from headrace.stream.ledger.release import Release
from headrace.stream.serve import following
from headrace.stream.serve.follower import Follower
from headrace.stream.serve.following import Following
from headrace.stream.serve.predictor import Predictor
from headrace.stream.task import Task, parse
from tests.support.events import task_text
from tests.support.memory_kafka import MemoryKafka
from tests.support.releases import entry, release, releaser, snapshot
from tests.support.serving import SMALL, small_task


class Away(MemoryKafka):
    """Say nothing of ends while it is `away`."""

    away = False

    def ends(self, topics: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
        if self.away:
            raise no_broker(cast(Any, "memory"), "away")
        return super().ends(topics, committed=committed)


def made(task: Task) -> Away:
    kafka = Away()
    kafka.make(topic_specs(task), partitions=1)
    return kafka


def wait(until: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 60
    while not until():
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


def test_how_far_it_is_behind_is_not_told_while_kafka_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "STALE_S", 3.0)
    task = small_task()
    kafka, predictor = made(task), Predictor(task)
    release(releaser(task, cast(Any, kafka)), task, 1)
    by = Following(predictor, cast(Any, kafka), None, lambda _: None)
    assert by.behind_events is None
    by.start()
    wait(lambda: by.behind_events == 0)
    assert by.behind_s == 0.0
    kafka.away = True
    wait(lambda: by.behind_events is None)
    assert by.behind_s
    assert by.behind_s > 0
    kafka.away = False
    wait(lambda: by.behind_events == 0)
    by.stop()
    assert kafka.asked[task.input.topic] >= 3
    assert kafka.opened["ends"] == 1


def test_a_topic_that_was_made_again_is_told_without_advice_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "AGAIN_S", 0.01)
    task, notes = small_task(), list[str]()
    kafka, predictor = made(task), Predictor(task)
    release(releaser(task, cast(Any, kafka)), task, 1)
    poll, models = Follower.poll, task.output("models")

    def once(self: Follower, timeout_s: float) -> Release | None:
        monkeypatch.setattr(Follower, "poll", poll)
        raise other_topic(models)

    monkeypatch.setattr(Follower, "poll", once)
    by = Following(predictor, cast(Any, kafka), None, notes.append)
    by.start()
    wait(lambda: by.releases == 1)
    by.stop()
    (note,) = notes
    assert f"{models} or {task.output('metrics')} was deleted and made again" in note
    assert "--" not in note


def test_a_state_that_no_learner_wrote_is_left_out_and_the_next_is_taken() -> None:
    text = task_text("open").replace('classes = ["no", "yes"]', "max_classes = 4")
    task = parse(text + SMALL, "test")
    kafka, predictor, notes = made(task), Predictor(task), list[str]()
    by, writer = (
        Following(predictor, cast(Any, kafka), None, notes.append),
        releaser(task, cast(Any, kafka)),
    )
    release(writer, task, 1)
    by.start()
    wait(lambda: by.releases == 1)
    forged = snapshot(task, 2)
    forged.came[:] = 255  # which is no UTF-8
    writer.stage(2, forged, Position({0: 2}))
    writer.on_confirmed(entry(2))
    writer.finish()
    wait(lambda: by.refused == 1)
    assert "no state of this task" in notes[-1]
    assert predictor.release
    assert predictor.release.manifest.seq == 1
    release(writer, task, 3)
    wait(lambda: by.releases == 2)
    assert predictor.release.manifest.seq == 3
    by.stop()
