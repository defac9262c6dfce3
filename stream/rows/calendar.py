"""Cycles of event time, as inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def calendar(cycles: Iterable[str], times_ms: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return sine and cosine of each cycle of event time, from tables one minute (or day) fine.

    Tables, because a vectorised sine may differ in its last bit with the place in the vector.
    """
    columns = [np.empty((len(times_ms), 0), np.float32)]
    columns += [TABLES[cycle][place] for cycle, place in places(cycles, times_ms).items()]
    return np.concatenate(columns, 1)


def places(cycles: Iterable[str], times_ms: Any) -> dict[str, Any]:
    """Return the line of its table that each time falls into, by cycle; arrays of any kind."""
    minutes = times_ms // 60_000
    days = minutes // 1440
    found = {"hour": minutes % 1440, "weekday": (days + 3) % 7, "year": days % len(TABLES["year"])}
    return {cycle: found[cycle] for cycle in cycles}


def _cycle(steps: int, period: float) -> NDArray[np.float32]:
    angles = [2 * math.pi * (step % period) / period for step in range(steps)]
    return np.array([(math.sin(a), math.cos(a)) for a in angles], np.float32)


TABLES = {
    "hour": _cycle(1440, 1440),
    "weekday": _cycle(7, 7),
    "year": _cycle(1461, 365.25),
}
"""Sine and cosine of each step of a cycle, f32[steps, 2]."""
