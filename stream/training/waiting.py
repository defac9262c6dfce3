"""Which rows wait for their label, and in which of the learner's slots."""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class WaitingRows:
    """Give each row a slot until its label comes; where there is none left, the oldest leaves.

    Which slot it is depends on what came before alone, and not on where it was cut.
    """

    def __init__(self, slots: int) -> None:
        self._slots: dict[int, int] = {}  # by offset, the oldest first
        self._free = list(range(slots))
        heapify(self._free)
        self.missed = 0
        """How many labels came for a row that did not wait any more."""

    def put(self, offset: int) -> int:
        """Return the slot of a row that came."""
        if not self._free:
            oldest = next(iter(self._slots))
            heappush(self._free, self._slots.pop(oldest))
        slot = self._slots[offset] = heappop(self._free)
        return slot

    def take(self, offset: int) -> int | None:
        """Return the slot of the row that a label belongs to, None if it does not wait."""
        slot = self._slots.pop(offset, None)
        if slot is None:
            self.missed += 1
        else:
            heappush(self._free, slot)
        return slot
