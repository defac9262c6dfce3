"""The classes of a task: how labels name them, and which index each has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import repeat
from types import NoneType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headrace.stream.formats.scalars import Scalar, number_text, scalar_text
from headrace.stream.task import Task
from headrace.stream.task.target import LONGEST_CLASS

NEW_CLASS = -1.0  # the index of a class that the task file does not name, before it is taken up


class ClassIndex:
    """Find the index of a class by its label, however that is written: `true`, 3 and 3.0, "3"."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._by_name = {name: float(place) for place, name in enumerate(classes)}
        numbers = {_number_name(name): place for name, place in self._by_name.items()}
        self._by_label = numbers | self._by_name  # a name that is the number's own text wins

    def find_all(self, labels: Sequence[Scalar | None]) -> list[float]:
        """Return each label's index; NaN for none, NEW_CLASS for what is no class of these."""
        kinds = set(map(type, labels))
        if kinds == {NoneType}:
            return [math.nan] * len(labels)
        if kinds == {str}:
            return [*map(cast(Any, self._by_name.get), labels, repeat(NEW_CLASS))]
        return [
            math.nan
            if label is None
            else self._by_name.get(label, NEW_CLASS)
            if type(label) is str
            else self._by_label.get(scalar_text(label), NEW_CLASS)
            for label in labels
        ]


_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def _number_name(name: str) -> str:
    """Return the text of the number that a name spells; the name itself if it spells none."""
    match = _JSON_NUMBER.fullmatch(name)
    if match is None:
        return name
    value = float(name) if match[1] or match[2] else int(name)
    return number_text(value) if math.isfinite(value) else name


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

    @property
    def is_open(self) -> bool:
        """Return whether there may be others than those that the task file names."""
        return bool(self._task.spec.open_classes)

    def copy(self) -> Classes:
        """Return others that are the same."""
        other = copy(self)
        other._names, other._index = [*self._names], {**self._index}
        return other

    def find(self, name: str) -> int | None:
        """Return the index of a class that there is."""
        return self._index.get(name)

    def indices(
        self, label: NDArray[np.float64], new_class: Sequence[str | None]
    ) -> NDArray[np.float64]:
        """Return labels, each that names a class by its index; NaN for one that never came."""
        found = label.copy()
        for at in np.flatnonzero(label == NEW_CLASS).tolist():
            index = self.find(new_class[at] or "")
            found[at] = math.nan if index is None else index
        return found

    def known(self, label: float, new_class: str | None) -> float | None:
        """Return a label as it is learned; None if it names a class that never came."""
        if label != NEW_CLASS or not self.is_open:
            return label
        return self.find(new_class or "")

    def value(self, label: float, new_class: str | None) -> float | None:
        """Return a label as it is learned; None if there is no room for the class it names."""
        if label != NEW_CLASS:
            return label
        known = self.known(label, new_class)
        return self.take_up(new_class) if known is None and new_class else known

    def no_room(self, name: str | None) -> str:
        """Say that there is no room for a class."""
        return f"{(name or '')[:40]!r}: expected one of the {len(self)} that there is room for"

    def take_up(self, name: str) -> int | None:
        """Return the index of a class, a new one perhaps; None if there is no room for another."""
        at = self._index.get(name)
        if at is None and len(self) < self._task.target.room:
            at = self._index[name] = len(self)
            self._names.append(name)
        return at

    def as_array(self) -> NDArray[np.uint8]:
        """Return the names of those that came, in the shape of `came_shape`."""
        found = np.zeros(came_shape(self._task), np.uint8)
        came = self._names[len(self._task.target.classes) :]
        for row, name in zip(found, came, strict=False):
            text = name.encode()
            row[: len(text) + 1] = np.frombuffer(bytes([len(text)]) + text, np.uint8)
        return found


def came_shape(task: Task) -> tuple[int, int]:
    """Return the shape of the names that came: one line for each, its length and then UTF-8."""
    return task.spec.open_classes, LONGEST_CLASS + 1
