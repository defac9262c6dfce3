"""The classes of a task: those of its file, and those that came in mid-stream, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stream.tables import LONGEST_CLASS, Target


class Classes(Sequence[str]):
    """Name each class by its index; new ones take the next while there is room."""

    def __init__(self, target: Target) -> None:
        self._declared, self._room = target.classes, target.room
        self._names = list(target.classes)
        self._index = {name: at for at, name in enumerate(self._names)}

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        return self._names[at]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def take_up(self, name: str) -> int | None:
        """Give the index of a class, a new one perhaps; None if there is no room for another."""
        at = self._index.get(name)
        if at is None and len(self) < self._room:
            at = self._index[name] = len(self)
            self._names.append(name)
        return at

    def as_array(self) -> NDArray[np.uint8]:
        """Give the names that the task file does not, u8[R, 256]: a length, then UTF-8."""
        found = np.zeros(came_shape(len(self._declared), self._room), np.uint8)
        for row, name in zip(found, self._names[len(self._declared) :], strict=False):
            text = name.encode()
            row[: len(text) + 1] = np.frombuffer(bytes([len(text)]) + text, np.uint8)
        return found

    def restore(self, came: NDArray[np.uint8]) -> None:
        """Take names over from `as_array`."""
        self._names = list(self._declared)
        self._index = {name: at for at, name in enumerate(self._names)}
        for length, *text in came.tolist():
            if length:
                self.take_up(bytes(text[:length]).decode())


def came_shape(declared: int, room: int) -> tuple[int, int]:
    """Give the shape of the names that came."""
    return room - declared, LONGEST_CLASS + 1
