"""The baselines: what costs nothing to say; standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from .rows import Row, Rows
from .score import test_then_train


def make(peer: str, settings: dict[str, Any], rows: Rows) -> Callable[[], list[Any]]:
    """Return what says it all when it is called."""
    return lambda: {"no-change": no_change, "majority": majority}[peer](rows)


def no_change(rows: Rows) -> list[Any]:
    """Say the newest label that is known."""
    last, said = None, []
    for y, now in zip(rows.y, rows.now, strict=True):
        if rows.horizon and now is not None:
            last = now
        said.append(last)
        if not rows.horizon and y is not None:
            last = y
    return said


def majority(rows: Rows) -> list[Any]:
    """Say the commonest class so far, or the mean of the numbers."""
    counts: Counter[str] = Counter()
    total, n = 0.0, 0

    def predict(_: Row) -> Any:
        if rows.classes:
            return max(counts, key=counts.__getitem__) if counts else None
        return total / n if n else None

    def learn(_: Row, y: Any) -> None:
        nonlocal total, n
        if rows.classes:
            counts[y] += 1
        else:
            total, n = total + y, n + 1

    return test_then_train(rows, predict, learn)
