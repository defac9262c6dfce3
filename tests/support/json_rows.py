"""Events as Python has them, normalised and learned as one micro-batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from headrace.stream.events import DeadLetter, Records
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer

TWO_NUMBERS = """
        features.a = { kind = "number" }
        features.b = { kind = "number" }
        model.neighbours = 50
        drift.detectors = []
"""  # what a small task sees, and how it learns


def normalised(
    task: Task, events: Sequence[dict[str, Any] | bytes]
) -> tuple[Rows, list[DeadLetter]]:
    """Return the rows of events, those in bytes as they are, and what was refused."""
    return Normalizer(task).normalize(records_of(events))


def records_of(events: Sequence[dict[str, Any] | bytes]) -> Records:
    """Return events as records of a topic."""
    values: list[bytes | None] = [
        event if isinstance(event, bytes) else json.dumps(event).encode() for event in events
    ]
    n = len(values)
    return Records("t", values, [None] * n, [0] * n, list(range(n)), [0] * n)


def rows_of(task: Task, events: Sequence[dict[str, Any]]) -> Rows:
    """Return the rows of good events."""
    rows, refused = normalised(task, events)
    assert not refused
    return rows


def learn(task: Task, events: Sequence[dict[str, Any]]) -> tuple[Trainer, Learned]:
    """Learn good events in one go; give who did, and what was said."""
    trainer = Trainer(task, len(events))
    return trainer, trainer.collect(trainer.submit(rows_of(task, events)))
