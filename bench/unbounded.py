"""A stream made to fill memory: a million entities, and words and categories without end."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, pi
from pathlib import Path

import msgspec
import numpy as np

from bench.workload import save_task
from headrace.stream.task import Task

ENTITIES = 1_000_000
SHORTEST, LONGEST = 6, 32  # letters of a new word
WAVE = 500_000  # events after which new words are as short again
HUGE = 1_000  # one event in so many has texts of thousands of letters

_START_S = 1_732_190_000.1
_BLOCK = 10_000


def events(count: int, *, seed: int = 0) -> Iterator[bytes]:
    """Draw `count` events of about 200 bytes, a tenth of a second of event time apart.

    Every id is new, and so are half of the four words and nearly each category. New words grow and
    shrink in waves, so that what short ones leave behind is of no use to long ones. Label 1 where
    the two numbers, standard normals, add up to more than 0.
    """
    rng, encode = np.random.default_rng(seed), msgspec.json.Encoder().encode
    for start in range(0, count, _BLOCK):
        points = rng.normal(size=(_BLOCK, 2)).round(4)
        size = round(SHORTEST + (LONGEST - SHORTEST) * (1 - cos(2 * pi * start / WAVE)) / 2)
        columns = zip(
            points.tolist(),
            (points.sum(1) > 0).astype(int).tolist(),
            rng.integers(ENTITIES, size=_BLOCK).tolist(),
            np.minimum(rng.zipf(1.2, (_BLOCK, 2)), 10**6).tolist(),
            rng.integers(1 << 63, size=(_BLOCK, 4)).tolist(),
            strict=True,
        )
        for number, (point, label, entity, known, drawn) in enumerate(columns, start):
            if number == count:
                return
            one, other = f"{drawn[0]:016x}{drawn[1]:016x}", f"{drawn[2]:016x}{drawn[3]:016x}"
            huge = one * 250 if number % HUGE == 0 else ""
            event = {
                "id": f"s-{number}",
                "ts": round(_START_S + number / 10, 1),
                "user": f"u{entity}{huge}",
                "x": point[0],
                "y": point[1],
                "colour": f"{other}{huge}",
                "text": f"{one[:size]} w{known[0]} {other[:size]} w{known[1]} {huge}",
                "label": label,
            }
            yield encode(event)


def write_task(folder: Path, name: str) -> Task:
    """Write the task file `<folder>/<name>.toml`: the fields, and the default pool of learners."""
    return save_task(
        folder,
        name,
        "[lags]",
        f"entities = {ENTITIES}",
        "[features]",
        'x = { kind = "number" }',
        'y = { kind = "number" }',
        'colour = { kind = "category" }',
        'text = { kind = "text", max_tokens = 32 }',
        entity="user",
    )
