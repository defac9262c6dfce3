"""`replay` of late labels: as they came, otherwise delayed, and by a changed task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from headrace.stream.audit.replay import replay
from headrace.stream.evaluation.compare import changed_task
from headrace.stream.events import Records
from headrace.stream.rows.label_delay import LabelDelay, parse
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.training.trainer import Trainer
from tests.service.test_exactly_once_in_memory import LATE, RAW, TASK, Life, World, world
from tests.support.events import good

EVENTS = 200
DELAY = 7


@pytest.fixture(scope="module")
def lived() -> Iterator[World]:
    """Let a learner see each label DELAY events later, but that of every tenth event."""
    with live(task()) as made:
        yield made


@contextmanager
def live(task: Task, *robots: str) -> Iterator[World]:
    """Let a learner of this task live; sources of these names give wrong labels, and first."""
    with world(1, task=task) as made:
        for number in range(EVENTS + DELAY):
            if number < EVENTS:
                event = good(number, label=None)
                made.kafka.topics[RAW][0].append(event, time_ms=10 * number + 10)
            if (due := number - DELAY) >= 0 and due % 10:
                records = [told(due, 1 - label(due), who=robot) for robot in robots if due % 3]
                for record in [*records, told(due, label(due), who="ann")]:
                    made.kafka.topics["t.labels"][0].append(record, time_ms=10 * number + 5)
        made.live(Life(0))
        yield made


def task(**changes: object) -> Task:
    assert LATE.labels
    labels = LATE.labels.model_copy(update={"max_pending": 50, "policy": "ignore"} | changes)
    return LATE.model_copy(update={"labels": labels})


def told(number: int, label: int, who: str) -> bytes:
    words = {"id": f"e-{number}", "label": ("no", "yes")[label], "who": who}
    return msgspec.json.encode(words)


def label(number: int) -> int:
    return int(number % 7 > 3)


def scores(found: Any) -> dict[str, Any]:
    return {name: found.metrics["all"][name] for name in ("events", "accuracy", "log_loss")}


def learned_at_once() -> dict[str, Any]:
    """Learn the same events with their labels within them, without Kafka."""
    words = [("no", "yes")[label(n)] if n % 10 else None for n in range(EVENTS)]
    values: list[bytes | None] = [good(n, label=words[n]) for n in range(EVENTS)]
    records = Records(RAW, values, [b""] * EVENTS, [0] * EVENTS, [*range(EVENTS)], [1] * EVENTS)
    trainer = Trainer(TASK, EVENTS)
    rows, _ = Normalizer(TASK).normalize(records)
    trainer.collect(trainer.submit(trainer.admit(rows, RAW)[0]))
    found: dict[str, Any] = trainer.report()["all"]
    return found


def test_what_a_source_said_is_unlearned(lived: World) -> None:
    """A state without its labels is that of a history that never had them, bit for bit."""
    never = replay(lived.task, lived.kafka)
    with live(task(source="who"), "robot") as believed:
        as_it_was = replay(believed.task, believed.kafka)
        assert as_it_was.state != never.state
        without = changed_task(believed.task, ['labels.exclude=["robot"]'])
        found = replay(believed.task, believed.kafka, changed=without)
        assert found.comparison
        assert scores(found.comparison) == scores(never)
    with live(task(source="who", exclude=("robot",)), "robot", "robot") as unlearned:
        assert replay(unlearned.task, unlearned.kafka).state == never.state
        letters = map(msgspec.json.decode, unlearned.visible("dead-letter")[0])
        assert {each["code"] for each in letters} == {"excluded"}


def test_history_with_late_labels_comes_out_the_same(lived: World) -> None:
    found = replay(lived.task, lived.kafka)
    assert found.equal == found.batches > 1
    assert found.events == EVENTS
    assert scores(found)["events"] == EVENTS * 9 // 10


def test_labels_at_once_are_worth_what_they_are_within_their_events(lived: World) -> None:
    found = replay(lived.task, lived.kafka, label_delay=parse("0"))
    assert found.comparison
    assert found.comparison.metrics["all"] == learned_at_once()
    assert found.comparison.pairs == EVENTS * 9 // 10
    assert found.comparison.alone == 0
    assert found.comparison.changes == ["labels: 0 events late"]


def test_labels_that_come_as_they_came_change_nothing(lived: World) -> None:
    found = replay(lived.task, lived.kafka, label_delay=LabelDelay(DELAY))
    assert found.comparison
    assert found.comparison.gain == 0
    assert scores(found.comparison) == scores(found)


def test_a_changed_task_gets_the_labels_when_they_came(lived: World) -> None:
    same = replay(
        lived.task, lived.kafka, changed=changed_task(lived.task, ["topics.partitions=2"])
    )
    assert same.comparison
    assert scores(same.comparison) == scores(same)
    other = replay(
        lived.task, lived.kafka, changed=changed_task(lived.task, ["model.neighbours=0"])
    )
    assert other.comparison
    assert scores(other.comparison)["events"] == scores(other)["events"]
    assert scores(other.comparison) != scores(other)
    assert other.comparison.pairs == EVENTS * 9 // 10
