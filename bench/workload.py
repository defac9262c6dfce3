"""The stream that everybody is measured on: small JSON events, eight numbers, a binary label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.events import Records
from headrace.stream.task import Task, load
from headrace.stream.task.schema import Lags, Model

Array = NDArray[np.float64]

FEATURES = tuple(f"f{i}" for i in range(8))
MICRO_BATCH = 4096
PEERS = "peers"  # the stage that peers write to, beside our own

_START_S = 1_732_190_000.1
_NOISE = 0.05
_BLOCK = 10_000


def events(count: int, *, seed: int = 0) -> list[bytes]:
    """Draw `count` events of about 170 bytes, a tenth of a second of event time apart.

    Label 1 on the upper side of a plane through the origin of eight standard normals, rounded to
    four decimals; 5 % of the labels are flipped.
    """
    rng, encode = np.random.default_rng(seed), msgspec.json.Encoder().encode
    weights = rng.normal(size=len(FEATURES))
    found: list[bytes] = []
    for start in range(0, count, _BLOCK):
        points = rng.normal(size=(_BLOCK, len(FEATURES))).round(4)
        labels = (points @ weights > 0) ^ (rng.random(_BLOCK) < _NOISE)
        rows = zip(points.tolist(), labels.astype(int).tolist(), strict=True)
        for number, (row, label) in enumerate(rows, start):
            event = {
                "id": f"s-{number}",
                "ts": round(_START_S + number / 10, 1),
                "features": dict(zip(FEATURES, row, strict=True)),
                "label": label,
            }
            found.append(encode(event))
    return found[:count]


def write_task(folder: Path, name: str) -> Task:
    """Write the task file `<folder>/<name>.toml`: the fields, and one small network for a model."""
    return save_task(
        folder,
        name,
        "[lags]",
        "traces = []",
        "[model]",
        "learning_rate = 0.003",
        "neighbours = 0",
        "[features]",
        *(f'{name} = {{ kind = "number", field = "/features/{name}" }}' for name in FEATURES),
    )


def write_pool_task(folder: Path, name: str) -> Task:
    """Write the same fields, learned by default: lags, the whole pool."""
    features = (f'{name} = {{ kind = "number", field = "/features/{name}" }}' for name in FEATURES)
    return save_task(folder, name, "[features]", *features)


def write_late_task(folder: Path, name: str) -> Task:
    """Write the same task, but that labels come in a topic of their own."""
    write_task(folder, name)
    path = task_path(folder, name)
    path.write_text(path.read_text("utf-8") + f'[labels]\ntopic = "{name}.labels"\n', "utf-8")
    return load(path)


def save_task(folder: Path, name: str, *lines: str, entity: str | None = None) -> Task:
    """Write a task file that reads `<name>.events`, times in `ts`, labels 0 and 1; then `lines`."""
    head = (
        f'name = "{name}"',
        "[input]",
        f'topic = "{name}.events"',
        'time = "ts"',
        *([f'entity = "{entity}"'] if entity else []),
        "[target]",
        'field = "label"',
        'kind = "classify"',
        'classes = ["0", "1"]',
    )
    path = task_path(folder, name)
    path.write_text("\n".join([*head, *lines, ""]), "utf-8")
    return load(path)


def with_model(task: Task, **settings: Any) -> Task:
    """Return the task with some settings of its model changed."""
    return task.model_copy(update={"model": task.model.model_copy(update=settings)})


def with_pool(task: Task) -> Task:
    """Return the task as it is learned by default."""
    return task.model_copy(update={"model": Model(), "lags": Lags()})


def task_path(folder: Path, name: str) -> Path:
    """Return where the task file is."""
    return folder / f"{name}.toml"


def in_memory(task: Task, values: Sequence[bytes]) -> Iterator[Records]:
    """Cut values into micro-batches, as if they had been polled from partition 0."""
    for start in range(0, len(values), MICRO_BATCH):
        part = list(values[start : start + MICRO_BATCH])
        yield Records(
            topic=task.input.topic,
            values=[*part],
            keys=[None] * len(part),
            partitions=[0] * len(part),
            offsets=list(range(start, start + len(part))),
            timestamps_ms=[],
        )
