"""Rows from outside Kafka, of a file or a program, as records of a topic."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import starmap
from typing import Any

from headrace.stream.events import Records
from headrace.stream.formats import files
from headrace.stream.formats.codec import pointer
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate


def needs_time(task: Task) -> str | None:
    """Name what goes by the time of events, where the task maps none: rows have no other."""
    timed = ["calendar"] if task.calendar else []
    timed += [f"features.{name}" for name in task.of_kind(Aggregate)]
    return timed[0] if timed and not task.input.time else None


def number_field(taken: Container[str]) -> str:
    """Name a field for the numbers of rows without ids, unlike those that are `taken`.

    Nor is it like one that a later row may bring: a field that comes twice would be refused.
    """
    key = "number of the row, by headrace"
    while key in taken:
        key += "_"
    return key


def with_ids(
    task: Task, sample: Sequence[Mapping[str, Any]], rows: Iterable[bytes]
) -> tuple[Task, Iterator[bytes]]:
    """Number rows that carry no id of their own, and return the task that reads them.

    Args:
        sample: what some of the rows hold.
    """
    if any(files.has(row, pointer(task.input.id)) for row in sample):
        return task, iter(rows)
    key = number_field({name for row in sample for name in row})
    task = task.model_copy(update={"input": task.input.model_copy(update={"id": key})})
    return task, starmap(partial(numbered, key.encode()), enumerate(rows))


def numbered(key: bytes, number: int, row: bytes) -> bytes:
    """Put a number into a row's JSON; what is no event stays, and is refused as it is."""
    if row.startswith(b'{"'):
        return b'{"%s":%d,%s' % (key, number, row[1:])
    if not row.startswith(b"{"):
        return row
    rest = row[1:].lstrip()
    return b'{"%s":%d%s%s' % (key, number, b"" if rest.startswith(b"}") else b",", rest)


def records(task: Task, topic: str, values: Sequence[bytes], first: int) -> Records:
    """Return rows the offsets from `first` on, and a time that the task allows if it maps none."""
    time_ms = round(task.input.earliest.timestamp() * 1000)
    return Records(
        topic=topic,
        values=[*values],
        keys=[None] * len(values),
        partitions=[0] * len(values),
        offsets=[*range(first, first + len(values))],
        timestamps_ms=[time_ms] * len(values),
    )
