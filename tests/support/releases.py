"""States to be released, without a learner, and the releaser that writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from headrace.model import frame
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.ledger.position import Position
from headrace.stream.rows.classes import came_shape
from headrace.stream.service.releaser import Releaser
from headrace.stream.task import Task
from headrace.stream.training.plugins import learner_of
from headrace.stream.training.snapshot import Snapshot

RUN = "5f3a"


def snapshot(task: Task, seq: int) -> Snapshot:
    """Return a state that no other `seq` has."""
    state: Any = jax.tree.map(
        lambda leaf: np.full_like(leaf, seq % 2 if leaf.dtype == bool else seq),
        learner_of(task).init(),
    )
    came, blank = np.zeros(came_shape(task), np.uint8), frame.blank(task.spec)
    return Snapshot(state, [f"id-{seq}"], came, np.zeros_like(blank), 10 * seq)


def entry(seq: int, run: str = RUN) -> Entry:
    return Entry(2 * seq, Record(seq=seq, run=run, epoch=1, time_ms=0, chain=f"{seq:064x}"))


def releaser(
    task: Task,
    kafka: KafkaConnection,
    *,
    key: bytes | None = None,
    every_s: float = 1.0,
    on_trouble: Callable[[str], None] = lambda line: None,
) -> Releaser:
    return Releaser(task, kafka, key, {"raw": "id"}, every_s, on_trouble)


def release(by: Releaser, task: Task, seq: int, run: str = RUN) -> None:
    """Release a state, and wait until it is written."""
    by.stage(seq, snapshot(task, seq), Position({0: seq}))
    by.on_confirmed(entry(seq, run))
    by.finish()
