"""Tasks of each kind that a learner treats in its own way, and events for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task, validate
from tests.support.json_rows import rows_of

NUMBERS = {name: {"kind": "number"} for name in ("x", "z")}
WORDS: dict[str, Any] = {"wind": {"kind": "category"}, "text": {"kind": "text", "max_tokens": 8}}
CLASSES = {"field": "c", "kind": "classify", "classes": ["a", "b", "c"]}
VALUE = {"field": "y", "kind": "regress"}
SUMS: dict[str, Any] = {
    "mean_x": {"kind": "aggregate", "statistic": "mean", "of": "x", "seconds": 60},
    "since": {"kind": "aggregate", "statistic": "since_last"},
}
MORE: dict[str, dict[str, Any]] = {
    "classes": {"target": CLASSES},
    "values": {"target": VALUE},
    "quantiles": {"target": VALUE, "model": {"loss": "pinball"}},
    "classes that come": {"target": {"field": "c", "kind": "classify", "max_classes": 5}},
    "words": {"target": CLASSES, "features": NUMBERS | WORDS},
    "chunks": {"target": CLASSES, "features": NUMBERS | WORDS, "model": {"chunk": 4}},
    "entities": {
        "target": VALUE,
        "input": {"entity": "who", "time": "t"},
        "features": NUMBERS | SUMS,
        "calendar": ["hour"],
    },
    "horizon": {"target": VALUE | {"horizon": 3}, "input": {"entity": "who"}},
    "horizon of chunks": {"target": CLASSES | {"horizon": 2}, "model": {"chunk": 3}},
    "late labels": {"target": CLASSES, "labels": {"topic": "labels"}},
    "balanced": {"target": CLASSES | {"class_weight": "balanced"}},
    "weights": {"target": VALUE, "input": {"weight": "w"}},
    "plain": {
        "target": CLASSES,
        "model": {"network": "linear", "neighbours": 0, "learning_rate": 0.01},
        "lags": {"traces": []},
    },
}


def task(more: dict[str, Any]) -> Task:
    table = {"name": "t", "features": NUMBERS} | more
    return validate(table | {"input": {"topic": "t"} | more.get("input", {})}, "test")


def events(count: int, level: float = 0.0) -> list[dict[str, Any]]:
    rng, found = np.random.default_rng(7), list[dict[str, Any]]()
    for number in range(count):
        x, z = rng.normal(size=2).round(3) + level
        value = x - z + rng.normal() / 4 + level
        found.append(
            {
                "id": number,
                "t": 1_700_000_000 + 20 * number,
                "who": f"w{rng.integers(5)}",
                "x": float(x) if number % 7 else None,
                "z": float(z),
                "wind": "NESW"[rng.integers(4)],
                "text": " ".join(f"word{at}" for at in rng.integers(0, 60, 6)),
                "y": float(value),
                "c": "abc"[int(np.digitize(value - level, [-0.5, 0.5]))],
                "w": float(rng.integers(1, 4)),
            }
        )
    return found


def rows(of: Task, stream: list[dict[str, Any]]) -> Rows:
    """Return rows with just the fields that the task maps."""
    mapped = {"id", of.target.field, of.input.entity, of.input.time, of.input.weight, *of.features}
    found = [{key: event[key] for key in mapped if key in event} for event in stream]
    return rows_of(of, found)
