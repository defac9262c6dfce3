"""Cycles of event time, as inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def calendar(cycles: Iterable[str], times_ms: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return sine and cosine of each cycle of event time, from tables one minute (or day) fine.

    Tables, because a vectorised sine may differ in its last bit with the place in the vector.
    """
    minutes = times_ms // 60_000
    places = {"hour": minutes % 1440, "weekday": (minutes // 1440 + 3) % 7, "year": minutes // 1440}
    columns = [np.empty((len(times_ms), 0), np.float32)]
    for cycle in cycles:
        table = _CYCLES[cycle]
        columns.append(table[places[cycle] % len(table)])
    return np.concatenate(columns, 1)


def _cycle(steps: int, period: float) -> NDArray[np.float32]:
    angles = [2 * math.pi * (step % period) / period for step in range(steps)]
    return np.array([(math.sin(a), math.cos(a)) for a in angles], np.float32)


_CYCLES = {
    "hour": _cycle(1440, 1440),
    "weekday": _cycle(7, 7),
    "year": _cycle(1461, 365.25),
}
