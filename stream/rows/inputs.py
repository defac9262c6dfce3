"""The inputs of a task by name: where each stands in a row, and rows that are mixed of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.stream.rows.hashing import Hasher, hash_key
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Category, Image, Number, Text


class Columns(Protocol):
    """Hold what inputs of rows are, as `Rows` does."""

    @property
    def numeric(self) -> NDArray[np.float64]: ...

    @property
    def ids(self) -> NDArray[np.uint32]: ...

    @property
    def entity(self) -> NDArray[np.uint32]: ...

    @property
    def image(self) -> NDArray[np.uint8]: ...


class Input(NamedTuple):
    """Say where an input stands in a row."""

    name: str
    numeric: NDArray[np.int64]  # its columns
    ids: NDArray[np.int64]
    image: bool = False
    entity: bool = False


class Inputs:
    """Name the inputs of a task: its features, the parts of its calendar, and the entity.

    An aggregate of a number goes with the number, any other one with the entity, as its history
    does. A cross goes with its categories.
    """

    def __init__(self, task: Task) -> None:
        self._horizon = task.spec.horizon > 0
        self.all = inputs_of(task)
        self._hasher = Hasher(hash_key(task)) if task.cross else None
        self._crosses = [(names, [*map(task.single.index, names)]) for names in task.cross]
        self._first_cross = len(task.single)

    @property
    def names(self) -> list[str]:
        """Return the names, in the order of the task's file."""
        return [each.name for each in self.all]

    def mixed(
        self,
        rows: Rows,
        at: int,
        others: Columns,
        own: NDArray[np.bool_],
        origin: NDArray[np.int64],
    ) -> Rows:
        """Return C rows that have some inputs of a row, and some of others.

        Args:
            at: place of the row.
            own: bool[C, F], which inputs are the row's.
            origin: i64[C], which of the other rows the others are of.
        """
        names = ("numeric", "ids", "entity", "image", "label", "time_ms", "weight")
        columns: dict[str, Any] = {
            name: np.repeat(getattr(rows, name)[at : at + 1], len(own), 0) for name in names
        }
        found = rows._replace(**columns)
        for each, mine in zip(self.all, own.T, strict=True):
            places = np.flatnonzero(~mine)
            of = origin[places]
            found.numeric[places[:, None], each.numeric] = others.numeric[of[:, None], each.numeric]
            found.ids[places[:, None], each.ids] = others.ids[of[:, None], each.ids]
            if each.image:
                found.image[places] = others.image[of]
            if each.entity:
                found.entity[places] = others.entity[of]
                if self._horizon:  # the label belongs to an earlier row of the row's own entity
                    found.label[places] = np.nan
        for place, (crossed, parts) in enumerate(self._crosses, self._first_cross):
            assert self._hasher  # noqa: S101
            found.ids[:, place] = self._hasher.cross(crossed, found.ids[:, parts])
        return found


def inputs_of(task: Task) -> list[Input]:
    """Return the inputs of a task, in the order of its file."""
    return [*_inputs(task)]


def _inputs(task: Task) -> Iterator[Input]:
    numeric: dict[str, list[int]] = {name: [] for name in task.features}
    entity, calendar, first = list[int](), dict[str, Sequence[int]](), 0
    numbers = [*task.of_kind(Number)]
    encoded = [(name, each.numbers) for name, each in task.encoded.items()]
    for name, width in [*((name, 1) for name in numbers), *encoded]:
        numeric[name] += range(first, first + width)
        first += width
    for part in task.calendar:
        calendar[part], first = [first, first + 1], first + 2
    for at, each in enumerate(task.of_kind(Aggregate).values(), first):
        (numeric[each.of] if each.of in numbers else entity).append(at)
    ids: dict[str, list[int]] = {name: [] for name in task.features}
    for at, name in enumerate(task.single):
        ids[name].append(at)
    first = task.spec.single_ids
    texts = task.of_kind(Text)
    widths = [(name, each.tokens) for name, each in task.of_kind(Category).items() if each.tokens]
    widths += [(name, each.max_tokens) for name, each in texts.items()]
    for name, width in [*widths, *zip(texts, task.spec.words, strict=False)]:
        ids[name] += range(first, first + width)
        first += width
    taken = {*task.features}
    for name, feature in task.features.items():
        if not isinstance(feature, Aggregate):
            pixels = isinstance(feature, Image) and not feature.encoder
            yield _input(name, numeric[name], ids[name], image=pixels)
    for cycle, columns in calendar.items():
        yield _input(_free(cycle, taken), columns, [])
    if task.input.entity or entity:
        yield _input(_free("entity", taken), entity, [], entity=task.input.entity is not None)


def _input(name: str, numeric: Sequence[int], ids: Sequence[int], **whole: bool) -> Input:
    return Input(name, np.array(numeric, np.int64), np.array(ids, np.int64), **whole)


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no feature has."""
    while name in taken:
        name += " (of the event)"
    return name
