"""Late labels in the compiled loop: the size of micro-batches decides nothing."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.stream.events import Records
from headrace.stream.rows.late import labels_of, unlabelled
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import take
from headrace.stream.task import validate
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


def learned(capacity: int, batch: int) -> str:
    """Learn the stream in batches, and digest the state."""
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(2, EVENTS)).round(3)
    values: list[bytes | None] = [
        b'{"id":%d,"x":%f,"z":%f,"wind":"%s","y":%f}'
        % (n, x[n], z[n], b"nesw"[n % 4 : n % 4 + 1], 50 + 20 * x[n] + 3 * (n % 4))
        for n in range(EVENTS)
    ]
    count = len(values)
    records = Records("events.t", values, [None] * count, [0] * count, [*range(count)], [1] * count)
    rows, refused = Normalizer(TASK).normalize(records)
    assert not refused
    trainer, labels = Trainer(TASK, capacity), labels_of(rows)
    rows = unlabelled(rows)
    for first in range(0, EVENTS + DELAY, batch):
        last = min(first + batch, EVENTS + DELAY)
        events = [n for n in range(first, last) if n < EVENTS]
        due = [
            (min(n - first, len(events)), label)
            for n in range(first, last)
            if n >= DELAY and (label := labels[n - DELAY])
        ]
        admitted, _ = trainer.admit(take(rows, events), "events.t")
        trainer.collect(trainer.submit(admitted, due))
    return digest(trainer.snapshot().tensors())


@pytest.mark.parametrize(("capacity", "batch"), [(8, 8), (32, 20), (4096, 150), (1500, 430)])
def test_micro_batches_of_any_size_come_to_the_same_bits(capacity: int, batch: int) -> None:
    assert learned(capacity, batch) == learned(1024, 64)
