"""How predictions are scored, the same for every peer; standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .rows import Row, Rows

Predict = Callable[[Row], Any]
Learn = Callable[[Row, Any], Any]


def test_then_train(rows: Rows, predict: Predict, learn: Learn) -> list[Any]:
    """Predict each row, then learn it if its label is known."""
    said = []
    for x, y in zip(rows.x, rows.y, strict=True):
        said.append(predict(x))
        if y is not None:
            learn(x, y)
    return said


def score(classes: Sequence[str], truth: Sequence[Any], said: Sequence[Any]) -> dict[str, float]:
    """Score what was said where the truth is known.

    No prediction counts as a wrong class, or as 0. `f1` is that of the last class, the rarer one
    in a stream that is scored by it.

    Raises:
        ValueError: not one prediction for each row.
    """
    pairs = [(t, s) for t, s in zip(truth, said, strict=True) if t is not None]
    if not pairs:
        raise ValueError("no row has a label")
    if not classes:
        errors = [abs(t - _finite(s)) for t, s in pairs]
        return {"mae": sum(errors) / len(errors), "rmse": math.hypot(*errors) / len(errors) ** 0.5}
    hits = sum(t == s for t, s in pairs)
    positive = classes[-1]
    both = sum(t == s == positive for t, s in pairs)
    either = sum(t == positive for t, _ in pairs) + sum(s == positive for _, s in pairs)
    return {"accuracy": hits / len(pairs), "f1": 2 * both / either if either else 0.0}


def _finite(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(value) else 0.0
