"""The classes of a task: how labels name them, and which index each has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.tables import LONGEST_CLASS
from stream.task import Task

NEW_CLASS = -1.0  # the index of a class that the task file does not name, before it is taken up


def class_index(classes: Sequence[str]) -> dict[Any, float]:
    """Map every way of writing a class (text, number, boolean, null) to its index, null to NaN."""
    index: dict[Any, float] = {}
    for place, name in enumerate(classes):
        index[name] = float(place)
        if name in ("true", "false"):
            index[name == "true"] = float(place)
    for place, name in enumerate(classes):
        try:
            index.setdefault(float(name), float(place))
        except ValueError:
            continue
    return {**index, None: math.nan}


def class_name(label: str | float | bool) -> str:
    """Name a class by its label, however that is written: true, 3 and 3.0 are "true" and "3"."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


class Classes:
    """Name each class by its index: those of the file, then those that came, in their order.

    Args:
        came: `as_array` of earlier ones.
    """

    def __init__(self, task: Task, came: NDArray[np.uint8] | None = None) -> None:
        self._task = task
        self._names = list(task.target.classes)
        for length, *text in [] if came is None else came.tolist():
            if length:
                self._names.append(bytes(text[:length]).decode())
        self._index = {name: at for at, name in enumerate(self._names)}

    def __getitem__(self, at: int) -> str:
        return self._names[at]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def take_up(self, name: str) -> int | None:
        """Give the index of a class, a new one perhaps; None if there is no room for another."""
        at = self._index.get(name)
        if at is None and len(self) < self._task.target.room:
            at = self._index[name] = len(self)
            self._names.append(name)
        return at

    def as_array(self) -> NDArray[np.uint8]:
        """Give the names of those that came, in the shape of `came_shape`."""
        found = np.zeros(came_shape(self._task), np.uint8)
        came = self._names[len(self._task.target.classes) :]
        for row, name in zip(found, came, strict=False):
            text = name.encode()
            row[: len(text) + 1] = np.frombuffer(bytes([len(text)]) + text, np.uint8)
        return found


def came_shape(task: Task) -> tuple[int, int]:
    """Give the shape of the names that came: one line for each, its length and then UTF-8."""
    return task.spec.unmet, LONGEST_CLASS + 1
