"""Which rows wait for their label, and in which of the learner's slots."""

from __future__ import annotations

from heapq import heapify, heappop, heappush


class WaitingRows:
    """Give each id a slot until its label comes; where there is none left, the oldest leaves.

    Which slot it is depends on what came before alone, and not on where it was cut.
    """

    def __init__(self, slots: int) -> None:
        self._slots: dict[str | int, int] = {}  # the oldest first
        self._free = list(range(slots))
        heapify(self._free)
        self.expired = 0
        """How many left before their label came."""
        self.unknown = 0
        """How many labels came for a row that did not wait."""

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, id: str | int) -> int:
        """Return the slot of an event that came; one that waits by the same id leaves."""
        if id in self._slots:
            self._leave(id)
        elif not self._free:
            self._leave(next(iter(self._slots)))
        slot = self._slots[id] = heappop(self._free)
        return slot

    def take(self, id: str | int) -> int | None:
        """Return the slot of the event that a label belongs to, None if it does not wait."""
        slot = self._slots.pop(id, None)
        if slot is None:
            self.unknown += 1
        else:
            heappush(self._free, slot)
        return slot

    def _leave(self, id: str | int) -> None:
        heappush(self._free, self._slots.pop(id))
        self.expired += 1
