"""The rows of a file as a task reads them: records as a topic would give them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice
from typing import NamedTuple

from headrace.stream.errors import UsageError, did_you_mean
from headrace.stream.evaluation.sampling import columns_of
from headrace.stream.events import Records
from headrace.stream.formats import files
from headrace.stream.rows import outside
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Image, Number, Text
from headrace.stream.task.field_path import pointer


class Length(NamedTuple):
    """Say how many rows are to be read: about, unless it is exact; None: only reading tells."""

    rows: int | None
    exact: bool

    def __str__(self) -> str:
        if self.rows is None:
            return ""
        return f" of {'' if self.exact else 'about '}{self.rows:,}"


def length(path: files.Given, limit: int | None = None) -> Length:
    """Return how many rows there are, or `limit` if there are more.

    Raises:
        UsageError: a file cannot be read.
    """
    total = files.total_rows(path)
    about = total or files.about_rows(path)
    rows = min(filter(None, (about, limit)), default=None)
    return Length(rows, total is not None or (limit is not None and limit < (about or 0)))


class FileRows:
    """Cut a file's rows into records as a topic would give them; the offset is the row.

    `task` is the one that reads these rows: see `_events`. Where it maps no time, none is needed:
    a calendar and aggregates, which use it, are refused, and all rows have a time that it allows.
    """

    def __init__(self, task: Task, path: files.Given, limit: int | None) -> None:
        if timed := outside.needs_time(task):
            raise UsageError(
                f"{files.called(path)}: {timed} needs the time of an event, and the rows of a file "
                f"have none: name its column by input.time, or leave {timed} out"
            )
        self._topic, self._next = files.called(path), 0
        self.task, events = _events(task, path)
        self._rows = islice(events, limit)

    def take(self, count: int) -> Records:
        """Return the next `count` rows, or what is left."""
        values = list(islice(self._rows, count))
        first, self._next = self._next, self._next + len(values)
        return outside.records(self.task, self._topic, values, first)


def _events(task: Task, path: files.Given) -> tuple[Task, Iterator[bytes]]:
    """Return the task that reads a file's rows as the service reads its events, and the rows.

    A task of CloudEvents reads rows without an envelope as `produce --cloudevents` would wrap
    them: as the data of events. Rows that carry no id of their own are numbered.
    """
    source, sample = task.input, files.sample(path)
    if source.format == "cloudevents" and not any("specversion" in row for row in sample):
        source = source.model_copy(update={"format": "json"})
    within = ("data",) if source.format == "cloudevents" else ()
    columns = {name for row in sample for name in row}
    _require(task, path, within, sample)
    reads, number = outside.numbering(task.model_copy(update={"input": source}), sample)
    return reads, files.read(path, _kinds(task, columns), number)


def _kinds(task: Task, columns: Container[str]) -> dict[str, files.Kind]:
    """Return which columns of a text file the task reads as numbers, and which as texts."""
    told = (pointer(field) for field in (task.input.weight, task.input.propensity) if field)
    numbers: dict[str, files.Kind] = {
        path[0]: "number" for path in told if len(path) == 1 and path[0] in columns
    }
    label = pointer(task.target.field)
    if len(label) == 1 and label[0] in columns and task.target.reads_texts:
        numbers[label[0]] = "string"
    return numbers | {
        place[0]: "number" if isinstance(feature, Number) and not feature.reads_texts else "string"
        for name, feature in task.features.items()
        if isinstance(feature, Number | Text | Image)
        and len(place := pointer(feature.field or name)) == 1
        and place[0] in columns
    }


def _require(
    task: Task, path: files.Given, within: tuple[str, ...], sample: list[dict[str, object]]
) -> None:
    """Refuse a file without a field that the task names; JSON lines may have it in later rows."""
    read = {name: f for name, f in task.features.items() if not isinstance(f, Aggregate)}
    named: dict[str, tuple[str | None, tuple[str, ...]]] = {
        "target.field": (task.target.field, within),
        "input.time": (task.input.time, ()),
        "input.entity": (task.input.entity, within),
        "input.weight": (task.input.weight, within),
        "input.propensity": (task.input.propensity, within),
    } | {f"features.{name}": (f.field or name, within) for name, f in read.items()}
    places = {key: (*inside, *pointer(field)) for key, (field, inside) in named.items() if field}
    missing = files.lacking(path, places.values())
    for key, place in places.items():
        if place in missing:
            inner = [row.get("data") if within and len(place) > 1 else row for row in sample]
            rows = [row for row in inner if isinstance(row, dict)]
            names = dict.fromkeys(name for row in rows for name in row)
            field = str(named[key][0])
            near = did_you_mean(field, [*names, *columns_of(rows)]) or ";"
            raise UsageError(
                f"{files.called(path)}: no column {field!r} for {key}{near} the file has "
                f"{', '.join(names)}"
            )
