"""What a million rows take that wait for their label, in memory and outside of it."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from headrace.stream.events import Records
from headrace.stream.rows.late import LateLabel, Placed
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.storage import tensors
from headrace.stream.task import Task, validate
from headrace.stream.training.trainer import Trainer

ROWS, COLUMNS, BATCH = 1_000_000, 16, 4096
FEW = 1_000  # rows that wait where nothing is measured but the rest
LEARNED = 40  # micro-batches whose labels come
CASES = {"none": FEW, "all in memory": ROWS, "100,000 in memory": 100_000}


class Waited(NamedTuple):
    """Say what a process took: MB resident when all wait, beside a checkpoint; events/s learned."""

    resident_mb: float
    checkpoint_mb: float
    rate: float


def waiting(rows: int = ROWS) -> dict[str, Any]:
    """Let so many rows wait, each case in a process of its own; labels come `rows` events later.

    Returns:
        for each case the memory above that of `none`, where but FEW rows wait, also while a
        checkpoint is laid out; and events with their labels in a second.
    """
    found: dict[str, Waited] = {}
    for name, in_memory in CASES.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            most = FEW if name == "none" else rows
            found[name] = pool.submit(measure, most, min(in_memory, most)).result()
    nothing = found.pop("none")
    return {
        "rows": rows,
        "cases": {
            name: {
                "resident_mb": round(each.resident_mb - nothing.resident_mb),
                "checkpoint_mb": round(each.checkpoint_mb - nothing.resident_mb),
                "events_per_second": round(each.rate),
            }
            for name, each in found.items()
        },
    }


def measure(rows: int, in_memory: int) -> Waited:
    """Let so many rows wait at a time, in this process."""
    task = task_of(rows, in_memory)
    drawn = np.random.default_rng(0).normal(size=(BATCH, COLUMNS)).round(4).tolist()
    values: list[bytes | None] = [
        msgspec.json.encode({"id": at} | {f"x{n}": value for n, value in enumerate(row)})
        for at, row in enumerate(drawn)
    ]
    none: list[Any] = [None] * BATCH
    records = Records(task.input.topic, values, none, [0] * BATCH, [*range(BATCH)], [1] * BATCH)
    came, refused = Normalizer(task).normalize(records)
    assert not refused
    trainer, process = Trainer(task, BATCH), psutil.Process()
    pending, first, began_s, resident = None, 0, 0.0, 0
    last = -(-rows // BATCH) + LEARNED
    for turn in range(last):
        ids = [*range(first, first + BATCH)]
        due: list[Placed] = [(0, _label(at - rows)) for at in ids if at >= rows]
        following = trainer.submit(came._replace(id=[*ids], offset=ids), due)
        if pending:
            trainer.collect(pending)
        pending, first = following, first + BATCH
        if turn == last - LEARNED:
            began_s = time.perf_counter()
        if turn >= last - LEARNED:
            resident = max(resident, process.memory_info().rss)
    assert pending
    trainer.collect(pending)
    seconds = time.perf_counter() - began_s
    kept = trainer.snapshot().tensors()
    packed = tensors.pack(kept)  # as it is written
    most = process.memory_info().rss
    assert packed
    return Waited(resident / 1e6, most / 1e6, (LEARNED - 1) * BATCH / seconds)


def task_of(rows: int, in_memory: int) -> Task:
    """Return a task of COLUMNS numbers, with one small network."""
    labels = {"topic": "waiting.labels", "max_pending": rows, "in_memory": in_memory}
    return validate(
        {
            "name": "waiting",
            "input": {"topic": "waiting.events"},
            "target": {"field": "label", "kind": "classify", "classes": ["no", "yes"]},
            "features": {f"x{n}": {"kind": "number"} for n in range(COLUMNS)},
            "labels": labels,
            "model": {"hidden": [8], "learning_rate": 0.01},
        },
        "bench",
    )


def _label(number: int) -> LateLabel:
    return LateLabel(number, None, 0, number, 0, float(number % 2), None)


def table(found: dict[str, Any]) -> str:
    """Tell a person."""
    lines = [
        f"{found['rows']:,} rows of {COLUMNS} numbers that wait for their label",
        f"{'':<20}{'memory':>10}{'checkpoint':>14}{'events/s':>12}",
    ]
    lines += [
        f"{name:<20}{each['resident_mb']:>7,} MB{each['checkpoint_mb']:>11,} MB"
        f"{each['events_per_second']:>12,}"
        for name, each in found["cases"].items()
    ]
    return "\n".join(lines)
