"""Which row an event answers, with a horizon: that of its entity so many events before it."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

TURN_BYTES = 160  # of each of the newest rows of an entity
NOBODY, GONE = -1, -2  # an entity's first events answer no row; a row whose slot another took
_Rows = list[tuple[int, list[tuple[int, int]]]]


class Turns:
    """Remember the newest rows of each entity, by their slots.

    Args:
        horizon: events of the same entity between a row and what answers it, at least 1.
        slots: of rows.
        entities: to remember; the one that was seen longest ago is forgotten.
    """

    def __init__(self, horizon: int, slots: int, entities: int) -> None:
        self._horizon, self._entities = horizon, entities
        self._newest: dict[int, deque[tuple[int, int]]] = {}  # slot and number of each
        self._count = 0
        zeros = bytes(8 * slots)
        self._number = array("q", zeros)  # of the row in a slot
        self._answers, self._answers_number = array("i", bytes(4 * slots)), array("q", zeros)
        self._entity = array("Q", zeros)

    def copy(self) -> Turns:
        """Return one that goes on by itself."""
        found = copy(self)
        vars(found).update({name: copy(each) for name, each in vars(self).items()})
        found._newest = {entity: rows.copy() for entity, rows in self._newest.items()}
        return found

    def next(self, entity: int) -> int:
        """Return the slot of the row that the entity's next event answers; NOBODY or GONE."""
        return self._standing(*self._first(entity))

    def put(self, entity: int, slot: int) -> None:
        """Take in the entity's next event, whose row is in a slot now."""
        self._answers[slot], self._answers_number[slot] = self._first(entity)
        self._number[slot], self._entity[slot] = self._count, entity
        newest = self._newest.pop(entity, None)
        if newest is None:
            newest = deque(maxlen=self._horizon)
            if len(self._newest) >= self._entities:
                del self._newest[next(iter(self._newest))]
        newest.append((slot, self._count))
        self._newest[entity] = newest
        self._count += 1

    def answered(self, slot: int) -> int:
        """Return the slot of the row that the event in a slot answers; NOBODY or GONE."""
        return self._standing(self._answers[slot], self._answers_number[slot])

    def entity(self, slot: int) -> int:
        """Return the entity of the row in a slot."""
        return self._entity[slot]

    def _first(self, entity: int) -> tuple[int, int]:
        newest = self._newest.get(entity)
        return newest[0] if newest and len(newest) == self._horizon else (NOBODY, 0)

    def _standing(self, slot: int, number: int) -> int:
        return slot if slot == NOBODY or self._number[slot] == number else GONE

    def copied(self) -> dict[str, Any]:
        """Copy what `restore` takes, to be made arrays by `arrays`."""
        newest = [(entity, [*rows]) for entity, rows in self._newest.items()]
        columns = {name: np.array(column) for name, column in self._columns().items()}
        return columns | {"newest": (newest, self._count)}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the arrays of a copy."""
        for name, column in self._columns().items():
            column[:] = array(column.typecode, tensors[f"turns_{name}"].tobytes())
        packed = tensors["turns_newest"].tobytes()
        newest, self._count = msgspec.msgpack.decode(packed, type=tuple[_Rows, int])
        self._newest = {entity: deque(rows, self._horizon) for entity, rows in newest}

    def _columns(self) -> dict[str, Any]:
        return {
            "number": self._number,
            "answers": self._answers,
            "answers_number": self._answers_number,
            "entity": self._entity,
        }


def arrays(copied: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a copy by their names in a snapshot."""
    found = {f"turns_{name}": each for name, each in copied.items()}
    packed = msgspec.msgpack.encode(found["turns_newest"])
    return found | {"turns_newest": np.frombuffer(packed, np.uint8)}


def shapes(slots: int) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    """Yield the names of `arrays`, their types and shapes; (-1,) is any length."""
    for name, column in Turns(1, 0, 0)._columns().items():
        yield f"turns_{name}", (np.dtype(column.typecode).name, (slots,))
    yield "turns_newest", ("uint8", (-1,))
