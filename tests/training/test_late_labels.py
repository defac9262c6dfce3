"""Late labels in the compiled loop: the size of micro-batches decides nothing."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from headrace.stream.events import Records
from headrace.stream.rows.late import labels_of, unlabelled
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import take
from headrace.stream.task import Task, validate
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer

EVENTS, DELAY = 400, 30
TASK = validate(
    {
        "name": "t",
        "input": {"topic": "events.t"},
        "target": {"field": "y", "kind": "regress"},
        "features": {
            "x": {"kind": "number"},
            "z": {"kind": "number"},
            "wind": {"kind": "category"},
        },
        "labels": {"topic": "labels.t", "max_pending": 100},
        "model": {"neighbours": 100},
    },
    "test",
)


def with_rows_outside(in_memory: int) -> Task:
    assert TASK.labels
    labels = TASK.labels.model_copy(update={"in_memory": in_memory})
    return TASK.model_copy(update={"labels": labels})


def learned(
    capacity: int,
    batch: int,
    task: Task = TASK,
    *,
    again: bool = False,
    delay: int = DELAY,
    jump: float = 0.0,
) -> tuple[str, str, Trainer]:
    """Learn the stream in batches; digest the state and what was said, beside the trainer.

    Args:
        again: whether another trainer goes on after each batch, from what is kept of the one before
            while its last batch is under way.
        delay: of labels, in events.
        jump: of some early labels, from the others.
    """
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(2, EVENTS)).round(3)
    base = [50 + jump * (30 <= n < 60) for n in range(EVENTS)]
    values: list[bytes | None] = [
        b'{"id":%d,"x":%f,"z":%f,"wind":"%s","y":%f}'
        % (n, x[n], z[n], b"nesw"[n % 4 : n % 4 + 1], base[n] + 20 * x[n] + 3 * (n % 4))
        for n in range(EVENTS)
    ]
    count = len(values)
    records = Records("events.t", values, [None] * count, [0] * count, [*range(count)], [1] * count)
    rows, refused = Normalizer(task).normalize(records)
    assert not refused
    trainer, labels, said = Trainer(task, capacity), labels_of(rows), sha256()
    rows = unlabelled(rows)
    for first in range(0, EVENTS + delay, batch):
        last = min(first + batch, EVENTS + delay)
        events = [n for n in range(first, last) if n < EVENTS]
        due = [
            (min(n - first, len(events)), label)
            for n in range(first, last)
            if n >= delay and (label := labels[n - delay])
        ]
        admitted, _ = trainer.admit(take(rows, events), "events.t")
        pending = trainer.submit(admitted, due)
        kept = trainer.snapshot()
        said.update(trainer.collect(pending).published.tobytes())
        if again:
            trainer, tensors = Trainer(task, capacity), kept.tensors()
            trainer.restore(tensors, kept.learned)
            assert digest(trainer.snapshot().tensors()) == digest(tensors)
    return digest(trainer.snapshot().tensors()), said.hexdigest(), trainer


@pytest.mark.parametrize(("capacity", "batch"), [(8, 8), (32, 20), (4096, 150), (9000, 430)])
def test_micro_batches_of_any_size_come_to_the_same_bits(capacity: int, batch: int) -> None:
    assert learned(capacity, batch)[:2] == learned(1024, 64)[:2]


def test_micro_batches_of_any_size_come_to_the_same_bits_of_wide_rows() -> None:
    wide = {
        "input": {"topic": "events.t", "entity": "wind"},
        "lags": {"labels": 3, "rows": 2, "entities": 5},
        "calendar": ["hour"],
    }
    task = validate(TASK.model_dump(exclude_unset=True) | wide, "test")
    assert learned(8, 8, task)[:2] == learned(16384, 400, task)[:2]


@pytest.mark.parametrize("in_memory", [2, 7, 20, 60])
def test_rows_that_wait_outside_are_learned_to_the_same_bits(in_memory: int) -> None:
    task = with_rows_outside(in_memory)
    state, said, trainer = learned(64, 50, task)
    _, known, whole = learned(64, 50)
    assert said == known and trainer.report() == whole.report()
    assert trainer.state_bytes < whole.state_bytes
    assert learned(8, 33, task, again=True)[:2] == (state, said)


def test_rows_that_wait_outside_are_rounded_where_others_are() -> None:
    """Labels jump and come back, so each row that waits is counted from elsewhere meanwhile."""
    assert TASK.labels
    labels = TASK.labels.model_copy(update={"max_pending": 200})
    whole = TASK.model_copy(update={"labels": labels})
    some = TASK.model_copy(update={"labels": labels.model_copy(update={"in_memory": 20})})
    _, known, _ = learned(64, 50, whole, delay=180, jump=1e9)
    assert learned(64, 50, some, delay=180, jump=1e9)[1] == known
    assert learned(64, 50, some, delay=180, jump=1e9, again=True)[1] == known
