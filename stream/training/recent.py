"""The ids that came a short while ago, by which a repeated event is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class RecentIds:
    """Remember the last `size` distinct ids; an answer never depends on how they are batched."""

    def __init__(self, size: int, ids: Iterable[str | int] = ()) -> None:
        self.size = size
        self._order = deque(ids)
        self._known = set(self._order)

    def repeated(self, ids: list[str | int]) -> list[int]:
        """Return the places of ids that are remembered, and remember the others."""
        if not self.size:
            return []
        known, order = self._known, self._order
        fresh = set(ids)
        places: list[int] = []
        if len(fresh) == len(ids) and known.isdisjoint(fresh):
            known |= fresh
            order.extend(ids)
            over = max(len(order) - self.size, 0)
            known.difference_update([order.popleft() for _ in range(over)])
            return places
        for place, value in enumerate(ids):
            if value in known:
                places.append(place)
                continue
            known.add(value)
            order.append(value)
            if len(order) > self.size:
                known.remove(order.popleft())
        return places

    def __contains__(self, id: str | int) -> bool:
        """Return whether an id is remembered."""
        return id in self._known

    def as_list(self) -> list[str | int]:
        """Return the ids, oldest first."""
        return list(self._order)
