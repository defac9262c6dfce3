"""Which rows may still get a label, and in which of the learner's slots each of them is."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

NEVER, PENDING, LABELLED, EXPIRED = range(4)  # what became of the row in a slot
WAITING_BYTES = 150  # of a row beside its arrays: its id, and where it stands
Place = tuple[int, int, int]
"""Partition and offset of an event, and its time in ms."""


class WaitingRows:
    """Give each row a slot, in which it can be found by its id until another row takes that slot.

    The row that was labelled or expired longest ago leaves first; if all wait for their label, the
    oldest of these. Which slot it is depends on what came before alone, not on where it was cut.
    """

    def __init__(self, slots: int) -> None:
        self._of: dict[str | int, int] = {}
        self._ids: list[str | int | None] = [None] * slots
        zeros = bytes(8 * slots)
        self._time, self._since = array("q", zeros), array("q", zeros)
        self._offset, self._partition = array("q", zeros), array("i", bytes(4 * slots))
        self._label, self._status = array("d", zeros), array("b", bytes(slots))
        self._marks = array("b", bytes(slots))
        # Two rings of slots, each from its head on: those that are free, and those that wait.
        self._free, self._wait = slots, slots + 1
        self._next = array("i", [*range(1, slots + 1), 0, slots + 1] if slots else [0, 1])
        self._prev = array("i", [slots, *range(slots), slots + 1] if slots else [0, 1])
        self.pending = 0
        """How many rows wait for their label."""

    def copy(self, asked: Sequence[str | int]) -> WaitingRows:
        """Return rows that go on by themselves, of which none has one of these ids."""
        found = copy(self)
        vars(found).update({name: copy(each) for name, each in vars(self).items()})
        for id in asked:
            if (slot := found._of.pop(id, None)) is not None:
                other: Any = object()  # an id that no event has
                found._ids[slot], found._of[other] = other, slot
        return found

    def put(self, id: str | int, place: Place, now_ms: int, marks: int) -> int:
        """Return the slot of a row that came; make room by `oldest` before.

        Args:
            now_ms: from when on it waits.
            marks: of the row, to be kept with it.
        """
        slot: int = self._next[self._free]
        other = self._ids[slot]
        if other is not None:
            del self._of[other]
        if (same := self._of.get(id)) is not None:
            self._ids[same] = None  # an id names one row, as after `restore`
        self._ids[slot], self._of[id] = id, slot
        self._partition[slot], self._offset[slot], self._time[slot] = place
        self._since[slot] = now_ms
        self._status[slot], self._marks[slot] = PENDING, marks
        self._move(slot, self._wait)
        self.pending += 1
        return slot

    def find(self, id: str | int) -> int | None:
        """Return the slot of a row, whatever became of it."""
        return self._of.get(id)

    def oldest(self, before_ms: int | None = None) -> int | None:
        """Return the slot of the row that has waited longest: if there is no other room.

        Args:
            before_ms: or if it has waited since then, or since before.
        """
        slot: int = self._next[self._wait]
        if slot == self._wait:
            return None
        if self._next[self._free] == self._free:
            return slot
        return slot if before_ms is not None and self._since[slot] <= before_ms else None

    def expire(self, slot: int) -> None:
        """Let a row go that waits."""
        self._status[slot] = EXPIRED
        self._move(slot, self._free)
        self.pending -= 1

    def label(self, slot: int, label: float) -> None:
        """Keep the label of a row that waits, or another one of a row that has one."""
        if self._status[slot] == PENDING:
            self._move(slot, self._free)
            self.pending -= 1
        self._status[slot], self._label[slot] = LABELLED, label

    def label_of(self, slot: int) -> float:
        """Return the label of a row that has one."""
        return self._label[slot]

    def status(self, slot: int) -> int:
        """Return what became of a row: PENDING, LABELLED or EXPIRED."""
        return self._status[slot]

    @property
    def statuses(self) -> NDArray[np.int8]:
        """Return what became of each row, as it is now."""
        return np.frombuffer(self._status, np.int8)

    def marks(self, slot: int) -> int:
        """Return the marks of a row."""
        return self._marks[slot]

    def mark(self, slot: int, marks: int) -> None:
        """Change the marks of a row."""
        self._marks[slot] = marks

    @property
    def has_room(self) -> bool:
        """Return whether there is a slot whose row does not wait any more, or an empty one."""
        return bool(self._next[self._free] != self._free)

    def id_of(self, slot: int) -> str | int:
        """Return the id of the row in a slot."""
        id = self._ids[slot]
        assert id is not None  # noqa: S101
        return id

    def place(self, slot: int) -> Place:
        """Return where a row's event stands."""
        return self._partition[slot], self._offset[slot], self._time[slot]

    def _move(self, slot: int, head: int) -> None:
        """Put a slot at the end of a ring."""
        after, before = self._next, self._prev
        behind, ahead = before[slot], after[slot]
        after[behind], before[ahead] = ahead, behind
        last = before[head]
        after[last], before[slot] = slot, last
        after[slot], before[head] = head, slot

    def _columns(self) -> dict[str, Any]:
        return {
            "time": self._time,
            "since": self._since,
            "offset": self._offset,
            "partition": self._partition,
            "label": self._label,
            "status": self._status,
            "marks": self._marks,
            "next": self._next,
            "prev": self._prev,
        }

    def copied(self) -> dict[str, Any]:
        """Copy what `restore` takes, but the ids, which are a list, in order of slots."""
        found = {name: np.array(column) for name, column in self._columns().items()}
        return found | {"ids": self._ids.copy()}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the arrays of a copy."""
        for name, column in self._columns().items():
            column[:] = array(column.typecode, tensors[f"waiting_{name}"].tobytes())
        packed = tensors["waiting_ids"].tobytes()
        self._ids = msgspec.msgpack.decode(packed, type=list[str | int | None])
        self._of = {id: slot for slot, id in enumerate(self._ids) if id is not None}
        self.pending = int((self.statuses == PENDING).sum())


def shapes(slots: int) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Yield the arrays of a copy: their names, types and shapes."""
    for name, column in WaitingRows(0)._columns().items():
        kind = np.dtype(column.typecode).name
        yield name, (kind, (slots + 2 if name in ("next", "prev") else slots,))
