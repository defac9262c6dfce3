"""What time it is by the events' own clocks."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

NEWEST = 15  # event times whose median is the time that it is: one clock that is wrong is no matter
_NONE = -(1 << 62)


class EventClock:
    """Tell the time by the newest events.

    Args:
        times: `as_array` of another one, to go on from.
    """

    def __init__(self, times: NDArray[np.int64] | None = None) -> None:
        self._times, self._next = [_NONE] * NEWEST, 0
        if times is not None:
            *self._times, self._next = times.tolist()

    def now(self, time_ms: int) -> int:
        """Return what time it is, now that an event of this time came."""
        self._times[self._next] = time_ms
        self._next = (self._next + 1) % NEWEST
        known = sorted(each for each in self._times if each != _NONE)
        return known[len(known) // 2]

    def copy(self) -> EventClock:
        """Return one that goes on by itself."""
        found = copy(self)
        found._times = self._times.copy()
        return found

    def as_array(self) -> NDArray[np.int64]:
        """Return what is known, int64[NEWEST + 1]."""
        return np.array([*self._times, self._next])
