"""Which rows are in the learner's slots: the newest, where there is no room for all that wait."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stream.training.waiting import LABELLED, PENDING

NEWEST_BYTES = 8  # of each row that may wait
LOADED = -1  # in place of a slot: the label brings its row


class NewestRows:
    """Count events, and give each of their rows the learner's slot of the one `size` before it.

    A row is taken out as soon as half as many came behind it, if it may still be asked for then:
    whatever needs it from outside stands in a later micro-batch of half that size.

    Args:
        size: how many there are, at least 2.
        places: of rows that may wait at a time, by which they are asked for here.
        again: whether a row that was labelled may be asked for.
    """

    def __init__(self, size: int, places: int, *, again: bool) -> None:
        self.size, self._again = size, again
        self._count = 0
        self._number = array("q", np.full(places, -1, np.int64).tobytes())
        self._place = array("i", bytes(4 * size))  # of the newest, by their slots

    def copy(self) -> NewestRows:
        """Return one that goes on by itself."""
        found = copy(self)
        found._number, found._place = self._number[:], self._place[:]
        return found

    @property
    def half(self) -> int:
        """Return how many events come behind a row before it is taken out."""
        return self.size // 2

    def put(self, place: int, status: Callable[[int], int]) -> tuple[int, int | None]:
        """Return the slot of a row that comes now; and the number of one to be taken out, if any.

        Args:
            status: what became of the row in a place.
        """
        slot, leaves = self._count % self.size, self._count - self.half
        self._number[place], self._place[slot] = self._count, place
        self._count += 1
        other = self._place[leaves % self.size]
        if self._number[other] != leaves or not self.is_asked_for(status(other)):
            return slot, None
        return slot, leaves

    def find(self, place: int) -> tuple[int, int]:
        """Return the slot of the row in a place, or LOADED; and its number."""
        number = self._number[place]
        return (number % self.size if number >= self._count - self.size else LOADED), number

    def is_asked_for(self, status: Any) -> Any:
        """Return whether rows that this became of may be asked for."""
        return (status == PENDING) | (self._again & (status == LABELLED))

    def outside(self, status: NDArray[np.int8]) -> NDArray[np.int64]:
        """Return the numbers of the rows that must be found outside.

        Args:
            status: what became of the row in each place.
        """
        number = np.frombuffer(self._number, np.int64)
        chosen = self.is_asked_for(status) & (number < self._count - self.half) & (number >= 0)
        return np.sort(number[chosen], kind="stable")  # quick, as they nearly are

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` takes."""
        counted = np.array([self._count])
        return {"newest_number": np.array(self._number), "newest_count": counted}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from those arrays."""
        number = tensors["newest_number"]
        self._number = array("q", number.tobytes())
        self._count = int(tensors["newest_count"][0])
        newest = np.flatnonzero(number >= max(self._count - self.size, 0))
        place = np.zeros(self.size, np.int32)
        place[number[newest] % self.size] = newest
        self._place = array("i", place.tobytes())


def shapes(places: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each of `NewestRows.arrays`, by name."""
    return {"newest_number": ("int64", (places,)), "newest_count": ("int64", (1,))}
