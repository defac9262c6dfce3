"""Labels of a recorded stream come late: when each of them comes.

Each event is predicted, and its label comes a number of events or a time later. Those that are
still to come at the end are learned then, so that delays are compared over the same events (as
River's delayed progressive validation does: Grzenda, Gomes & Bifet 2020, "Delayed labelling
evaluation for data streams").
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import UsageError

T = TypeVar("T")
MOST_WAITING = 100_000  # rows, where a delay does not say how many
MOST_BYTES = 1 << 30  # of what they take
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DELAY = re.compile(r"(exp\()?\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)\s*(\))?")
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class LabelDelay(NamedTuple):
    """Say how long a label takes.

    Attributes:
        mean: events, or ms of event time.
        timed: whether it is a time.
        drawn: whether it is the mean of an exponential distribution, drawn by the row's number; or
            always the same.
    """

    mean: float
    timed: bool = False
    drawn: bool = False

    @property
    def waiting(self) -> int:
        """Return for how many rows at a time there has to be room."""
        return MOST_WAITING if self.timed or self.drawn else max(int(self.mean), 1)

    @property
    def words(self) -> str:
        """Say it to a person."""
        how = f"{self.mean / 1000:g} s" if self.timed else f"{self.mean:g} events"
        return f"{how} late on average" if self.drawn else f"{how} late"

    def of(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the delays of rows by their numbers, float64[n]: events, or ms."""
        if not self.drawn:
            return np.full(len(numbers), self.mean)
        shares = _uniform(np.array(numbers, np.uint64))
        found: NDArray[np.float64] = -self.mean * np.log1p(-shares)
        return found if self.timed else np.floor(found)


def parse(text: str) -> LabelDelay:
    """Read a delay: `500` events, `10m` of event time, `exp(1d)` on average.

    Raises:
        UsageError: it is none.
    """
    found = _DELAY.fullmatch(text.strip())
    if found is None or bool(found[1]) != bool(found[4]):
        raise UsageError(
            f"--label-delay {text[:40]}: expected events (500), a time (10m, with s, m, h or d), "
            "or the mean of delays that are drawn: exp(500), exp(1d)"
        )
    drawn, number, unit, _ = found.groups()
    mean = float(number) * (1000 * _SECONDS[unit] if unit else 1)
    if not unit and not drawn and not mean.is_integer():
        raise UsageError(f"--label-delay {text}: expected a whole number of events")
    if mean > 1e15 or (not unit and mean >= 1e7):
        raise UsageError(f"--label-delay {text}: expected fewer than 10,000,000 events")
    return LabelDelay(mean, bool(unit), bool(drawn))


class DelayedLabels(Generic[T]):
    """Hold labels until they are due; events come in the order of the file."""

    def __init__(self, delay: LabelDelay) -> None:
        self._delay = delay
        self._due: list[tuple[float, int, T]] = []

    def pass_by(
        self, labels: Sequence[T | None], numbers: Sequence[int], times_ms: Sequence[int]
    ) -> list[tuple[int, T]]:
        """Take in the labels of the next events, None of those that have none.

        A label comes before the first event that its delay has passed by, or at once.

        Args:
            numbers: of the events, from 0 on; they go up.

        Returns:
            the labels that come meanwhile, each with how many of these events come before it.
        """
        found: list[tuple[int, T]] = []
        delays = self._delay.of(numbers).tolist()
        nows = times_ms if self._delay.timed else numbers
        for at, (number, now, delay, label) in enumerate(
            zip(numbers, nows, delays, labels, strict=True)
        ):
            self._move(now, at, found)
            if label is not None:
                heappush(self._due, (now + delay, number, label))
                self._move(now, at + 1, found)
        return found

    def rest(self) -> list[tuple[int, T]]:
        """Return those that are still to come, as of the end."""
        found: list[tuple[int, T]] = []
        self._move(math.inf, 0, found)
        return found

    def _move(self, now: float, before: int, found: list[tuple[int, T]]) -> None:
        while self._due and self._due[0][0] <= now:
            found.append((before, heappop(self._due)[2]))


def _uniform(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), drawn by others: SplitMix64 (Steele, Lea & Flood 2014)."""
    step, first, second = (np.uint64(each) for each in _MIX)
    with np.errstate(over="ignore"):
        mixed = (numbers + np.uint64(1)) * step
        mixed = (mixed ^ (mixed >> np.uint64(30))) * first
        mixed = (mixed ^ (mixed >> np.uint64(27))) * second
        mixed = mixed ^ (mixed >> np.uint64(31))
    shares: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return shares
