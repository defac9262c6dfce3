"""Learners of tests, and what their ledgers say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import ledger
from headrace.stream.service.learn import learn
from headrace.stream.service.progress import Progress
from headrace.stream.service.start import Safety
from headrace.stream.task import Task


def drained(
    task: Task,
    kafka: KafkaConnection,
    origin: Any = "events",
    from_scratch: bool = False,
    **options: Any,
) -> Progress:
    safety = Safety(os.environ["HEADRACE_STATE"], from_scratch=from_scratch)
    return learn(task, kafka, origin=origin, safety=safety, drain=True, **options)


def life(
    task: Task,
    kafka: KafkaConnection,
    state: str | None = None,
    origin: Any = "events",
    **options: Any,
) -> Progress:
    """Run a learner to the end of its topic."""
    micro_batch = options.pop("micro_batch", 64)
    safety = Safety(state or os.environ["HEADRACE_STATE"], **options)
    return learn(task, kafka, origin=origin, safety=safety, micro_batch=micro_batch, drain=True)


def records_of(task: Task, kafka: KafkaConnection) -> list[ledger.Record]:
    return [entry.record for entry in ledger.read(kafka, task.output("ledger"))]


def last_state(task: Task, kafka: KafkaConnection) -> str:
    return [r.saved.state for r in records_of(task, kafka) if r.saved][-1]


def checkpoints(state: Path, task: Task) -> list[Path]:
    return sorted((state / task.name).glob("*/*.json"))
