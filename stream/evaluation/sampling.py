"""Take rows from all over a file, and their fields as columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from headrace.stream.formats import files
from headrace.stream.formats.codec import MAX_DEPTH
from headrace.stream.formats.quantities import without_literals
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.task.field_path import pointer, to_pointer, value_at

FIRST = 1000  # rows that are all taken
LATER = 1000  # rows at most of those that follow
READ = 200_000  # rows, from the first on

_Seen = TypeVar("_Seen")


class Sample(NamedTuple):
    """Hold events as they would stand in a topic, and what they hold.

    Attributes:
        raws: of all, those that are no JSON objects too.
        rows: what the others hold; NaN and Infinity, which are no JSON, as None.
        literals: how many of those there were.
    """

    raws: list[bytes]
    rows: list[dict[str, Any]]
    literals: int = 0


def of_events(raws: Iterable[bytes]) -> Sample:
    """Decode events, leaving out of the rows what is no JSON object."""
    raws, literals = [*raws], 0
    for raw in raws:
        if b"NaN" in raw or b"Infinity" in raw:
            literals += without_literals(raw)[1]
    return Sample(raws, [*files.objects(raws)], literals)


def of_file(path: files.Given) -> Sample:
    """Return the first FIRST rows of a file, and LATER at most of those to row READ, evenly.

    Of a longer one some of its middle and its end follow, where it can be read from there.

    Raises:
        UsageError: the file cannot be read.
    """
    return _of_file(path, lambda passing: deque(passing, maxlen=0))[0]


def with_labels(path: files.Given, target: str, most: int) -> tuple[Sample, list[Any]]:
    """Return the same, and the distinct labels of the rows to row READ: `distinct_labels`.

    Both come of one reading.
    """
    return _of_file(path, lambda passing: distinct_labels(passing, target, most))


def _of_file(path: files.Given, watch: Callable[[Iterator[bytes]], _Seen]) -> tuple[Sample, _Seen]:
    """Take a sample; also return what `watch` makes of the rows to row READ, if it reads them."""
    rows, taken = files.read(path), _Taken()
    passing = taken.passing(islice(rows, READ))
    seen = watch(passing)
    deque(passing, maxlen=0)
    later = files.later(path, LATER // 2) if next(rows, None) is not None else ()
    return of_events([*taken.first, *taken.later, *later]), seen


class _Taken:
    """Take FIRST rows, and LATER at most of those that follow, evenly, as rows pass by."""

    def __init__(self) -> None:
        self.first: list[bytes] = []
        self.later: list[bytes] = []

    def passing(self, rows: Iterable[bytes]) -> Iterator[bytes]:
        """Yield rows, and take some of them."""
        step = 1
        for at, raw in enumerate(rows):
            if at < FIRST:
                self.first.append(raw)
            elif (at - FIRST) % step == 0:
                self.later.append(raw)
                if len(self.later) == LATER:
                    self.later, step = self.later[::2], 2 * step
            yield raw


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn events into columns, None where an event lacks the field."""
    flat = [dict(_leaves(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    return {name: [row.get(name) for row in flat] for name in names}


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[str, Any]]:
    for key, inner in value.items():
        here = (*path, key)
        if isinstance(inner, dict) and inner and len(here) < MAX_DEPTH:  # deeper ones are refused
            yield from _leaves(inner, here)
        else:
            plain = len(here) == 1 and key and not key.startswith("/")
            yield key if plain else to_pointer(here), inner


def objects_elsewhere(columns: Iterable[str]) -> list[str]:
    """Return columns that are objects in other rows: `a` beside `/a/b`."""
    paths = {column: pointer(column) for column in columns}
    within = {path[:end] for path in paths.values() for end in range(1, len(path))}
    return [column for column, path in paths.items() if path in within]


def distinct_labels(events: Iterable[bytes], target: str, most: int) -> list[Any]:
    """Collect the distinct labels of events in the order in which they come; `most` and one."""
    path = pointer(target)
    seen: dict[str, Any] = {}
    for event in files.objects(events):
        value = value_at(event, path)
        if value is not None and not isinstance(value, dict | list):
            seen.setdefault(scalar_text(value), value)
            if len(seen) > most:
                break
    return list(seen.values())
