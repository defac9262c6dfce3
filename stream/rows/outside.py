"""Rows from outside Kafka, of a file or a program, as records of a topic."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from headrace.stream.events import Records
from headrace.stream.formats import files
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate
from headrace.stream.task.field_path import pointer


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


def numbering(task: Task, sample: Sequence[Mapping[str, Any]]) -> tuple[Task, str]:
    """Return the task that reads rows, and the field for their numbers if they bring no ids.

    Args:
        sample: what some of the rows hold.

    Returns:
        with "" for the field, and the task as it is, if one of the sample brings an id.
    """
    if any(files.has(row, pointer(task.input.id)) for row in sample):
        return task, ""
    key = number_field({name for row in sample for name in row})
    return task.model_copy(update={"input": task.input.model_copy(update={"id": key})}), key


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
