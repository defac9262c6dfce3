"""`replay` of late labels: as they came, otherwise delayed, and by a changed task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.stream.audit.replay import replay
from headrace.stream.evaluation.compare import changed_task
from headrace.stream.events import Records
from headrace.stream.rows.label_delay import LabelDelay, parse
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.training.trainer import Trainer
from tests.service.test_exactly_once_in_memory import LATE, RAW, TASK, Life, World, told, world
from tests.support.events import good

EVENTS = 200
DELAY = 7


@pytest.fixture(scope="module")
def lived() -> Iterator[World]:
    """Let a learner see each label DELAY events later, but that of every tenth event."""
    with world(1, task=LATE.model_copy(update={"labels": labels()})) as made:
        for number in range(EVENTS + DELAY):
            if number < EVENTS:
                event = good(number, label=None)
                made.kafka.topics[RAW][0].append(event, time_ms=10 * number + 10)
            if (due := number - DELAY) >= 0 and due % 10:
                record = told(due, label(due))
                made.kafka.topics["t.labels"][0].append(record, time_ms=10 * number + 5)
        made.live(Life(0))
        yield made


def labels() -> Any:
    assert LATE.labels
    return LATE.labels.model_copy(update={"max_pending": 50})


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
    return trainer.report()["all"]


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
