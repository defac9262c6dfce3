"""Rows of a topic or its archive as arrays, for other frameworks: what `torch`, `tensorflow` share.

A row is what the service's normaliser makes of an event. What a learner adds from its state (lags,
aggregates, scaling) is not in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.errors import UsageError
from headrace.stream.events import DeadLetter, Records
from headrace.stream.formats.times import time_ms
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, Range, TopicHistory
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate

UNKNOWN = -100  # the class of an event without one, which PyTorch's losses leave out by default
BLOCK = 4096  # offsets that are read of a partition at a time
WAIT_S = 0.2

Offsets = dict[int, int]
Point = Mapping[int, int] | str
Columns = dict[str, NDArray[Any]]
Record = tuple[
    int, int, int, bytes | None, bytes | None
]  # timestamp, partition, offset, key, value


class Field(NamedTuple):
    """Say what a row holds under one name."""

    dtype: DTypeLike
    shape: tuple[int, ...]


class TopicEvents(NamedTuple):
    """Read events from Kafka."""

    kafka: KafkaConnection
    topic: str

    def bounds(self) -> tuple[Offsets, Offsets]:
        """Return the first offset of each partition, and the one after its last committed record.

        Raises:
            TopicError, BrokerError: there is no such topic; the broker does not answer.
        """
        with closing(self.kafka.source(self.topic)) as source:
            return dict(source.begins), source.ends()

    def offsets_for_time(self, time_ms: int) -> Offsets:
        """Return offsets before which no record has this timestamp or a later one, of each
        partition that may have any.

        Raises:
            TopicError, BrokerError: there is no such topic; the broker does not answer.
        """
        with closing(self.kafka.source(self.topic)) as source:
            return source.offsets_for_time(time_ms)

    def history(self) -> History:
        """Open the topic; aborted transactions are not read."""
        return TopicHistory(self.kafka, self.topic)

    def to_come(self, starts: Offsets) -> Generator[Records | None, None, None]:
        """Yield what comes to these partitions from these offsets on, for ever; None: not yet."""
        partitions = sorted(starts)
        source = self.kafka.source(
            self.topic, offsets=starts, partitions=partitions, timestamps=True
        )
        with closing(source):
            while True:
                yield source.poll(BLOCK, WAIT_S)


class ArchivedEvents(NamedTuple):
    """Read events from where `headrace archive` wrote."""

    place: str
    topic: str

    def bounds(self) -> tuple[Offsets, Offsets]:
        """Return the first offset of each partition that is kept, and the one after its last.

        Raises:
            HistoryError: there is no archive of the topic, or it is damaged.
        """
        history = ArchiveHistory(self.place, self.topic)
        return history.begins(), history.ends()

    def offsets_for_time(self, time_ms: int) -> Offsets:
        """Return offsets before which no record has this timestamp or a later one, of each
        partition that may have any.

        Raises:
            HistoryError: there is no archive of the topic, or it is damaged.
        """
        return ArchiveHistory(self.place, self.topic).offsets_for_time(time_ms)

    def history(self) -> History:
        """Open the archive."""
        return ArchiveHistory(self.place, self.topic)


class RowReader:
    """Read the rows of a task's events, as often as wanted: always those of the same offsets.

    Events of one partition come in their order; of several, the one with the earliest timestamp of
    Kafka's comes next.

    Args:
        task: a task, or the path of its file.
        events: where they are; made of the name of the task's topic.
        start: where to begin: the first offset, by partition, or a time (RFC 3339; UTC unless it
            says otherwise): each partition's first record with that timestamp of Kafka's or a
            later one; default: the first there is.
        stop: where to end: the offset after the last one, by partition, or a time: before what
            would begin there; default: the end as it is now.
        follow: whether to go on after `stop` with what comes, for ever. Kafka only.

    Attributes:
        task: as given, or read.
        start, stop: offsets by partition, as given or found. A reader that starts where another
            one stopped goes on where that one ends.
        fields: what a row holds, by name.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, a time is none, or the task names no classes.
        TopicError, BrokerError, HistoryError: there is no such topic, no broker, or no archive.
    """

    def __init__(
        self,
        task: Task | str | Path,
        events: Callable[[str], TopicEvents | ArchivedEvents],
        *,
        start: Point | None = None,
        stop: Point | None = None,
        follow: bool = False,
    ) -> None:
        self.task = task if isinstance(task, Task) else Task.load(task)
        if self.task.target.kind == "classify" and not self.task.target.classes:
            raise UsageError(
                "target.classes = []: expected the names of the classes, whose places are the "
                "labels of rows; name them in the task"
            )
        self._events, self._follow = events(self.task.input.topic), follow
        begins, ends = self._events.bounds()
        self.start = self._offsets("start", {} if start is None else start, begins, ends, begins)
        self.stop = self._offsets("stop", {} if stop is None else stop, self.start, ends, ends)
        self.fields = _fields(self.task)

    def batches(
        self,
        share: int = 0,
        shares: int = 1,
        *,
        on_rejected: Callable[[list[DeadLetter]], None] = lambda letters: None,
    ) -> Generator[Columns, None, None]:
        """Yield the rows, some at a time: an array of `fields` by name, the first axis being rows.

        Args:
            share, shares: which of so many equal shares of the offsets to read; together they are
                all, each once. With `follow` a share is of partitions.
            on_rejected: called with the dead letters of events that the normaliser refuses: these
                have no row.

        Raises:
            HistoryError: events are gone, or the archive is damaged.
            BrokerError: the broker does not answer.
        """
        normalizer = Normalizer(self.task)
        for records in self._records(share, shares):
            rows, letters = normalizer.normalize(records)
            if letters:
                on_rejected(letters)
            if rows.id:
                yield self._columns(rows)

    def _offsets(
        self, name: str, given: Point, low: Offsets, high: Offsets, default: Offsets
    ) -> Offsets:
        """Return an offset of each partition: what is given where it is, else the default."""
        if not isinstance(given, str):
            return _within(name, given, low, high, default)
        if isnan(moment := time_ms(given)):
            raise UsageError(
                f"{name} = {given!r}: expected a time such as 2026-01-31T12:00:00Z, or offsets by "
                "partition such as {0: 1234}"
            )
        near, found = self._events.offsets_for_time(int(moment)), Offsets()
        with closing(self._events.history()) as history:
            for p in default:
                after = _of_range(history, Range(p, max(near.get(p, high[p]), low[p]), high[p]))
                found[p] = next((at for ms, _, at, *_ in after if ms >= moment), high[p])
        return found

    def _records(self, share: int, shares: int) -> Iterator[Records]:
        ranges = [Range(p, self.start[p], self.stop[p]) for p in sorted(self.stop)]
        mine = ranges[share::shares] if self._follow else _share(ranges, share, shares)
        with closing(self._events.history()) as history:
            merged = heapq.merge(*(_of_range(history, each) for each in mine))
            while block := list(islice(merged, BLOCK)):
                times, partitions, offsets, keys, values = map(list, zip(*block, strict=True))
                topic = self._events.topic
                yield Records(topic, values, keys, partitions, offsets, times)
        if self._follow and mine and isinstance(self._events, TopicEvents):
            with closing(self._events.to_come({each.partition: each.stop for each in mine})) as new:
                yield from filter(None, new)

    def _columns(self, rows: Rows) -> Columns:
        """Return rows in the types of `fields`; a number beyond float32 is missing."""
        numeric = rows.numeric[:, : self.fields["numeric"].shape[0]]
        label = _in_float32(rows.label)
        if self.task.target.kind == "classify":
            label = np.where(rows.label >= 0, rows.label, UNKNOWN).astype(np.int64)
        found = {
            "numeric": _in_float32(numeric),
            "ids": rows.ids.astype(np.int64),
            "entity": np.ascontiguousarray(rows.entity).view("<i8")[:, 0],
            "image": rows.image,
            "label": label,
            "weight": rows.weight[:, :1].reshape(-1).astype(np.float32),
            "time_ms": rows.time_ms,
            "partition": np.array(rows.partition, np.int64),
            "offset": np.array(rows.offset, np.int64),
        }
        return {name: np.array(found[name]) for name in self.fields}


def regrouped(blocks: Iterable[Columns], size: int) -> Iterator[Columns]:
    """Yield the rows of blocks again, `size` at a time; of the last ones there may be fewer."""
    rest: Columns = {}
    for block in blocks:
        joined = (
            {n: np.concatenate([rest[n], each]) for n, each in block.items()} if rest else block
        )
        rows = len(joined["offset"])
        for at in range(0, rows - size + 1, size):
            yield {name: column[at : at + size] for name, column in joined.items()}
        rest = {name: column[rows - rows % size :] for name, column in joined.items()}
    if rest and len(rest["offset"]):
        yield rest


def _fields(task: Task) -> dict[str, Field]:
    spec = task.spec
    numeric = len(task.columns) - len(task.of_kind(Aggregate))
    fields = {"numeric": Field(np.float32, (numeric,)), "ids": Field(np.int64, (spec.ids,))}
    if task.input.entity:
        fields["entity"] = Field(np.int64, ())
    if spec.pixels:
        fields["image"] = Field(np.uint8, spec.image)
    fields["label"] = Field(np.int64 if task.target.kind == "classify" else np.float32, ())
    if spec.weighted:
        fields["weight"] = Field(np.float32, ())
    return fields | dict.fromkeys(("time_ms", "partition", "offset"), Field(np.int64, ()))


def _in_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    limit = np.finfo(np.float32).max
    return np.where(np.abs(values) <= limit, values, np.nan).astype(np.float32)


def _within(
    name: str, given: Mapping[int, int], low: Offsets, high: Offsets, default: Offsets
) -> Offsets:
    """Return an offset of each partition, those that are given where they are.

    Raises:
        UsageError: there is no such partition, or its offset is not within `low` and `high`.
    """
    for partition, at in given.items():
        if partition not in default:
            known = ", ".join(map(str, sorted(default)))
            raise UsageError(f"{name}: there is no partition {partition}; expected {known}")
        if not low[partition] <= at <= high[partition]:
            raise UsageError(
                f"{name} of partition {partition} = {at}: expected an offset from "
                f"{low[partition]} to {high[partition]}"
            )
    return {**default, **given}


def _share(ranges: Sequence[Range], share: int, shares: int) -> list[Range]:
    """Return one of so many equal shares of the offsets: those of adjacent ones, as they come."""
    total = sum(each.stop - each.start for each in ranges)
    low, high = total * share // shares, total * (share + 1) // shares
    found, before = list[Range](), 0
    for partition, start, stop in ranges:
        first, last = start + max(low - before, 0), start + min(high - before, stop - start)
        if first < last:
            found.append(Range(partition, first, last))
        before += stop - start
    return found


def _of_range(history: History, wanted: Range) -> Iterator[Record]:
    for at in range(wanted.start, wanted.stop, BLOCK):
        read = history.read([Range(wanted.partition, at, min(at + BLOCK, wanted.stop))])
        yield from zip(
            read.timestamps_ms, read.partitions, read.offsets, read.keys, read.values, strict=True
        )
