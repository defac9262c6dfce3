"""Rows as the peers' authors recommend them: running scales, one-hot or ordinal categories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .rows import Row, Rows

_LEAST = 1e-12


class Scaler:
    """Bring numbers to mean 0 and deviation 1 by what was seen so far, as River's does."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: dict[str, tuple[float, float]] = {}  # mean, sum of squared deviations

    def __call__(self, numbers: Row) -> Row:
        """Take a row in, and give it scaled."""
        self._n += 1
        scaled = {}
        for name, value in numbers.items():
            mean, spread = self._sums.get(name, (0.0, 0.0))
            moved = mean + (value - mean) / self._n
            spread += (value - mean) * (value - moved)
            self._sums[name] = moved, spread
            deviation = (spread / self._n) ** 0.5
            scaled[name] = (value - moved) / deviation if deviation > _LEAST else 0.0
        return scaled


class TargetScaler:
    """Learn a number scaled as inputs are, and say it unscaled."""

    def __init__(self) -> None:
        self._n, self._mean, self._spread = 0, 0.0, 0.0

    def learn(self, y: float) -> float:
        """Take a label in, and give it scaled."""
        self._n += 1
        moved = self._mean + (y - self._mean) / self._n
        self._spread += (y - self._mean) * (y - moved)
        self._mean = moved
        return (y - moved) / self._deviation()

    def restore(self, said: float) -> float:
        """Return a prediction in the label's own unit."""
        return said * self._deviation() + self._mean

    def _deviation(self) -> float:
        deviation = (self._spread / self._n) ** 0.5 if self._n else 0.0
        return deviation if deviation > _LEAST else 1.0


def ordinal() -> Callable[[str, str], float]:
    """Number the values of each category in the order of their first appearance."""
    known: dict[tuple[str, str], float] = {}
    counts: dict[str, int] = {}

    def place(column: str, value: str) -> float:
        if (column, value) not in known:
            known[column, value] = float(counts.setdefault(column, 0))
            counts[column] += 1
        return known[column, value]

    return place


def inputs(rows: Rows, *, scale: bool, categories: str) -> Callable[[Row], Row]:
    """Return what turns a row's numbers and categories into inputs, each row once, in order.

    Args:
        scale: bring the numbers, not the one-hot columns, to mean 0 and deviation 1.
        categories: "nominal" leaves strings, "one-hot" makes a 1 for the value that is there (the
            zeros are left out, which is the same to a linear model), "dense" has the zeros of all
            values seen so far, "ordinal" numbers values.

    Raises:
        ValueError: there is no such way.
    """
    scaler, place = Scaler(), ordinal()
    zeros: Row = {}
    if categories not in ("nominal", "one-hot", "dense", "ordinal"):
        raise ValueError(f"categories {categories!r}: expected nominal, one-hot, dense or ordinal")

    def encoded(x: Row) -> Iterator[tuple[str, Any]]:
        for name in rows.categories:
            if categories in ("one-hot", "dense"):
                if categories == "dense":
                    zeros[f"{name}={x[name]}"] = 0.0
                yield f"{name}={x[name]}", 1.0
            else:
                yield name, x[name] if categories == "nominal" else place(name, x[name])

    def change(x: Row) -> Row:
        numbers = {name: x[name] for name in rows.numbers}
        values = dict(encoded(x))
        return {**(scaler(numbers) if scale else numbers), **zeros, **values}

    return change
