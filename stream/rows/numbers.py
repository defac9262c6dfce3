"""Numbers of events as float64, and those that say how much an event teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stream.events import Reject

LARGEST = 1e300  # so that differences are finite
MOST_WEIGHT = 1000.0
LEAST_PROPENSITY = 0.05  # smaller ones count as this, so that no event teaches more than 20


def float64(numbers: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers as float64, None as NaN, and whole ones beyond its range as infinite."""
    try:
        return np.array(numbers, np.float64)
    except OverflowError:  # of a field that is also a category or an id, whose digits all count
        return np.array([_float(number) for number in numbers], np.float64)


def weights(numbers: Sequence[Any], bad: dict[int, Reject]) -> NDArray[np.float64]:
    """Return the weights of events, float64[n], None as 1; what is out of range goes into `bad`."""
    told = float64(numbers)
    found = np.where(np.isnan(told), 1.0, told)
    for at in np.flatnonzero((found < 0.0) | (found > MOST_WEIGHT)).tolist():
        expected = f"a number from 0 to {MOST_WEIGHT:g}"
        bad[at] = Reject("number", f"weight {float(found[at])!r}: expected {expected}")
    return found.clip(0.0, MOST_WEIGHT) + 0.0  # -0 is 0


def inverse_propensities(chances: Sequence[Any], bad: dict[int, Reject]) -> NDArray[np.float64]:
    """Return by how much events teach whose label had a chance of becoming known, float64[n].

    The inverse of that chance, truncated (Ionides 2008, "Truncated importance sampling"): so what
    is learned of events that were chosen is as of all. None is 1; what is out of range goes into
    `bad`.
    """
    told = float64(chances)
    found = np.where(np.isnan(told), 1.0, told)
    for at in np.flatnonzero(~((found > 0.0) & (found <= 1.0))).tolist():
        expected = "a number above 0, 1 at most"
        bad[at] = Reject("number", f"propensity {float(found[at])!r}: expected {expected}")
    return 1.0 / found.clip(LEAST_PROPENSITY, 1.0)


def _float(number: float | None) -> float:
    try:
        return math.nan if number is None else float(number)
    except OverflowError:
        return math.inf
