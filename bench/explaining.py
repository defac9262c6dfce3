"""What explanations cost a learner, by the share of events that is explained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import headrace
from bench.learning.table import markdown

SHARES: tuple[float | None, ...] = (None, 0.0, 0.01, 1.0)
INPUTS = 8
MOST_EXPLAINED = 2_000  # events of a turn
ROUNDS = 3
_TASK = """name = "explained"
[input]
topic = "explained"
[target]
field = "y"
kind = "classify"
classes = ["0", "1"]
"""


def explaining(
    events: int, on_progress: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """Learn the same drawn events with each share, in turns; no Kafka.

    Returns:
        by share the events a second of each turn, of wall time, and how many were explained.
    """
    found: dict[str, Any] = {}
    learners = {share: headrace.Learner(_task(share)) for share in SHARES}
    for turn in range(ROUNDS + 1):
        for share, learner in learners.items():
            count = events if share in (None, 0.0) else min(events, int(MOST_EXPLAINED / share))
            rows = _rows(count, turn)
            begun_s = time.perf_counter()
            learner.predict_then_learn(rows)
            rate = count / (time.perf_counter() - begun_s)
            if turn:  # the first one warms all up
                name = "not set" if share is None else f"{share:g}"
                found.setdefault(name, []).append(rate)
                on_progress(f"explain {name}: {rate:,.0f} events/s")
    return found


def table(found: dict[str, Any]) -> str:
    """Write what was found as Markdown."""
    plain = statistics.median(found["not set"])
    lines = []
    for name, rates in found.items():
        rate = statistics.median(rates)
        lines.append([name, f"{rate:,.0f}", f"{rate / plain:.2f}"])
    return markdown(["model.explain", "events/s", "of plain"], lines)


def _task(share: float | None) -> headrace.Task:
    from headrace.stream.task import parse

    features = "".join(f'[features.x{at}]\nkind = "number"\n' for at in range(INPUTS))
    told = "" if share is None else f"[model]\nexplain = {share}\n"
    return parse(_TASK + features + told, "bench")


def _rows(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, INPUTS))
    label = inputs[:, 0] * inputs[:, 1] + inputs[:, 2] > rng.normal(size=count) / 2
    rows: dict[str, Any] = {f"x{at}": inputs[:, at] for at in range(INPUTS)}
    first = seed * 10_000_000
    return rows | {"id": np.arange(first, first + count), "y": label.astype(int).astype(str)}
