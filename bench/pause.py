"""How long the learner's loop stands still while a checkpoint of a large state is taken."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import workload
from headrace.stream.errors import HeadraceError
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.ledger.position import Position
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service.checkpointer import Checkpointer
from headrace.stream.task import Task, parse
from headrace.stream.training.trainer import Trainer

ROWS = 256
CHECKPOINTS, EVERY = 9, 50  # turns
WORDS = """
word = { kind = "category" }
"""


class Pause(NamedTuple):
    """Say what a checkpoint's slowest turn took beyond a usual one, and for how large a state."""

    pause_ms: float
    turn_ms: float
    state_mb: float


def pause(folder: Path) -> Pause:
    """Turn the loop with a table of half a million vectors, a checkpoint now and then.

    A turn is the submission of one micro-batch and the collection of the one before. The slowest
    turn from one checkpoint's taking to the next is compared with the median of all turns; of the
    checkpoints the median counts.

    Raises:
        HeadraceError: a checkpoint was not written.
    """
    task = _task(folder)
    trainer, troubles = Trainer(task, ROWS), list[str]()
    checkpoints = Checkpoints(str(folder / "state"), run="0")
    checkpointer = Checkpointer(checkpoints, task, {}, None, troubles.append)
    normalizer = Normalizer(task)
    records = next(workload.in_memory(task, workload.events(ROWS)))
    rows, _ = normalizer.normalize(records)
    turns: list[float] = []
    pending = trainer.submit(rows)
    for turn in range(CHECKPOINTS * EVERY):
        if turn % EVERY == 0:
            checkpointer.finish()  # as the service does: one writer at a time
        began_s = time.perf_counter()
        following = trainer.submit(rows)
        if turn % EVERY == 0:
            checkpointer.stage(turn, trainer.snapshot(), Position({0: turn}))
        trainer.collect(pending)
        record = Record(seq=turn, run="0", epoch=0, time_ms=0)
        checkpointer.on_confirmed(Entry(turn, record))
        pending = following
        turns.append(time.perf_counter() - began_s)
    trainer.collect(pending)
    checkpointer.finish()
    if troubles:
        raise HeadraceError(f"bench: {troubles[0]}")
    usual_s = median(turns)
    slowest_s = [max(turns[at : at + EVERY]) for at in range(0, len(turns), EVERY)]
    size = sum(array.nbytes for array in trainer.snapshot().tensors().values())
    return Pause(
        round(1e3 * (median(slowest_s) - usual_s), 1), round(1e3 * usual_s, 2), round(size / 1e6, 1)
    )


def _task(folder: Path) -> Task:
    name = "pause"
    workload.write_task(folder, name)
    path = workload.task_path(folder, name)
    task = parse(path.read_text("utf-8") + WORDS, str(path))
    return workload.with_model(task, table_bits=19, embedding=10)
