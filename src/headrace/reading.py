"""Events of a program as rows, numbered where they bring no ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import EventError
from headrace.stream.events import DeadLetter, Records
from headrace.stream.formats import files
from headrace.stream.formats.numbering import Numbering
from headrace.stream.rows import late, outside
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.field_path import pointer

Event = Mapping[str, Any]


class Reader:
    """Read events by the task's normaliser; find out whether they bring ids, until that is decided.

    Args:
        number: the field of the ids that events lack; "" if they bring them; None: not decided.
    """

    def __init__(self, task: Task, number: str | None = None) -> None:
        self._task, self.number = task, number
        self._last: tuple[str, Normalizer] | None = None  # by which was read, with its field

    def read(self, raws: list[bytes], first: int) -> tuple[Rows, list[DeadLetter]]:
        """Return a row for each good event and a letter for each other, offsets from `first`."""
        normalizer, records = self._prepared(raws, first)
        return normalizer.normalize(records)

    def read_numbers(
        self, raws: list[bytes], first: int
    ) -> tuple[Rows, NDArray[np.float64], list[DeadLetter]]:
        """Return what `read` does, and the numbers of each row's event as they came, f64[n, N]."""
        normalizer, records = self._prepared(raws, first)
        rows, letters = normalizer.normalize(records)
        return rows, normalizer.numbers(records, [at - first for at in rows.offset]), letters

    def _prepared(self, raws: list[bytes], first: int) -> tuple[Normalizer, Records]:
        number = self._lacking(raws) if self.number is None else self.number
        if self._last is None or self._last[0] != number:
            self._last = number, Normalizer(self._numbered(number))
        if number:
            raws = list(Numbering(number, first).put(raws))
        return self._last[1], outside.records(self._task, "", raws, first)

    def decide(self) -> None:
        """Hold fast how the last events were read, as one of them is learned."""
        if self.number is None and self._last:
            self.number = self._last[0]

    def _lacking(self, raws: list[bytes]) -> str:
        """Name a field for numbers, as `evaluate` does, or "" if one of the first brings an id."""
        sample = [*files.objects(raws[: files.SAMPLE_ROWS])]
        if any(files.has(event, pointer(self._task.input.id)) for event in sample):
            return ""
        return outside.number_field({name for event in sample for name in event})

    def _numbered(self, number: str) -> Task:
        if not number:
            return self._task
        source = self._task.input.model_copy(update={"id": number})
        return self._task.model_copy(update={"input": source})


def refuse(letters: Iterable[DeadLetter]) -> None:
    """Raise an EventError for the first letter, if there is one."""
    for letter in letters:
        raise EventError(letter.code, letter.detail)


def with_value(event: Event, place: tuple[str, ...], value: Any) -> Event:
    """Return an event with another value at the end of some keys."""
    key, *rest = place
    inner = event.get(key)
    if rest:
        value = with_value(inner if isinstance(inner, Mapping) else {}, tuple(rest), value)
    return {**event, key: value}


def unlabelled(task: Task, rows: Rows) -> Rows:
    """Take the labels out of rows, where they are their own."""
    return rows if task.target.horizon else late.unlabelled(rows)
