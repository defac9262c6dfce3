"""Notice that no event has a field that the task reads: a name that is misspelt, most likely."""

from __future__ import annotations

import numpy as np

from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Category, Number, Text

MOST_NAMED = 20


class Absent:
    """Watch rows for the label, and for the features that are read as they are.

    What an encoder makes numbers of, and images, is not watched.
    """

    def __init__(self, task: Task) -> None:
        read = {n: each for n, each in task.features.items() if not isinstance(each, Aggregate)}
        self._fields = {name: each.field or name for name, each in read.items()}
        self._target = task.target.field
        self._numbers = dict(enumerate(task.of_kind(Number)))
        self._ids = id_columns(task)
        self._no_label, self._rows = True, 0

    def add(self, rows: Rows) -> None:
        """Take the next rows, those without a label too."""
        self._rows += len(rows.id)
        self._no_label &= bool(np.isnan(rows.label).all())
        if self._numbers:
            places = [*self._numbers]
            there = ~np.isnan(rows.numeric[:, places]).all(axis=0)
            for at in np.flatnonzero(there):
                del self._numbers[places[at]]
        for name, (start, width) in [*self._ids.items()]:
            if rows.ids[:, start : start + width].any():
                del self._ids[name]

    def lines(self) -> list[str]:
        """Return a line for the label, and for each feature, that no row has."""
        if not self._rows:
            return []
        names = [*self._numbers.values(), *self._ids]
        fields = [("target", self._target)] if self._no_label else []
        fields += [(f"features.{name}", self._fields[name]) for name in names[:MOST_NAMED]]
        none = f"none of {self._rows:,} events has" if self._rows > 1 else "the event does not have"
        lines = [f"{key}: {none} a value in {field!r}; check its name" for key, field in fields]
        if len(names) > MOST_NAMED:
            lines.append(f"{len(names) - MOST_NAMED:,} more features without any value")
        return lines


def id_columns(task: Task) -> dict[str, tuple[int, int]]:
    """Return where the hashed ids of each category, list and text stand in a row: start, width."""
    found = {name: (at, 1) for at, name in enumerate(task.single)}
    start = task.spec.single_ids
    lists = {name: each.tokens for name, each in task.of_kind(Category).items() if each.tokens}
    texts = {name: each.max_tokens for name, each in task.of_kind(Text).items()}
    for name, width in (lists | texts).items():
        found[name] = (start, width)
        start += width
    return found
