"""Look up the events of predictions: how they begin, when they came, and what came true."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.errors import HeadraceError, RecoveryError
from headrace.stream.events import Records
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range, TopicHistory
from headrace.stream.serve.excerpts import event
from headrace.stream.serve.past import columns_of
from headrace.stream.serve.view import Place, View
from headrace.stream.task import Task

REACH = 2_000  # events of a partition that are read on for labels that come with later ones
KEPT = 4_000
ENTITIES = 10_000


class Events:
    """Read events again: from their topic or, what that has no more, from an archive of it."""

    def __init__(self, kafka: KafkaConnection, topic: str, archive: str | None) -> None:
        self._topic, self._history = topic, TopicHistory(kafka, topic)
        self._archived: ArchiveHistory | None = None
        if archive:
            with suppress(HeadraceError):  # it holds none of this topic
                self._archived = ArchiveHistory(archive, topic)

    def end(self, partition: int, wanted: int) -> int:
        """Return the end of a partition, asked for anew if an offset that is wanted is beyond."""
        self._history.reaches(partition, wanted)
        return self._history.end(partition)

    def read(self, ranges: Sequence[Range]) -> Records:
        """Return the records of ranges; those that are nowhere to be had are left out."""
        columns: list[list[Any]] = [[], [], [], [], []]
        for each in ranges:
            found: Records | None = None
            with suppress(RecoveryError):
                if self._history.reaches(each.partition, each.stop - 1):
                    found = self._history.read([each])
            if found is None and self._archived:
                with suppress(RecoveryError):
                    found = self._archived.read([each])
            for column, part in zip(columns, columns_of(found), strict=True):
                column += part
        return Records(self._topic, *columns)

    def close(self) -> None:
        """Read no more."""
        self._history.close()
        if self._archived:
            self._archived.close()


class Truths:
    """Tell a view about the events of its predictions.

    A label comes with its event or, with a horizon, with a later event of the same entity. One
    that has a topic of its own is not looked for.
    """

    def __init__(self, task: Task, events: Events) -> None:
        self._task, self._events, self._codec = task, events, Codec(task)
        told_apart = () if task.target.horizon else (task.target.field,)
        self._event = partial(
            event,
            first=[name for name, kind in task.features.items() if kind.kind == "text"],
            hidden=(task.input.id, *told_apart),
        )
        self._next: dict[int, int] = {}
        self._waiting: dict[tuple[int, Any], deque[Place]] = {}  # by partition and entity
        self._seen: dict[Place, tuple[str, int]] = {}
        self._labels: dict[Place, Any] = {}

    def tell(self, view: View) -> None:
        """Tell what can be found now.

        Raises:
            HeadraceError: Kafka does not answer.
        """
        if self._task.target.horizon and not self._task.labels:
            self._read_on(view.lacking("truth"))
            for place in view.lacking("event"):
                if place in self._seen:
                    told, sent_ms = self._seen[place]
                    view.know(place, event=told, sent_ms=sent_ms)
            for place in view.lacking("truth"):
                if place in self._labels:
                    view.solve(place, self._labels[place])
            return
        places = view.lacking("event")
        records = self._events.read([Range(at, offset, offset + 1) for at, offset in places])
        for place, raw, sent_ms, fields in self._decoded(records):
            view.know(place, event=self._event(raw), sent_ms=sent_ms)
            if not self._task.labels:
                view.solve(place, fields and _label(fields[1]))

    def _read_on(self, places: Sequence[Place]) -> None:
        """Read all events from those that are asked about on, as far as their labels may be."""
        wanted: dict[int, list[int]] = {}
        for partition, offset in places:
            wanted.setdefault(partition, []).append(offset)
        for partition, offsets in wanted.items():
            stop = min(self._events.end(partition, offsets[-1] + REACH), offsets[-1] + REACH)
            start = self._next.get(partition, offsets[0])
            if start < offsets[0] - REACH:
                start = offsets[0]
                self._waiting.clear()
            if start < stop:
                self._take(self._events.read([Range(partition, start, stop)]))
                self._next[partition] = stop
        _forget(self._seen)
        _forget(self._labels)

    def _take(self, records: Records) -> None:
        ahead = self._task.target.horizon
        for place, raw, sent_ms, fields in self._decoded(records):
            self._seen[place] = self._event(raw), sent_ms
            if fields is None:
                continue
            if len(self._waiting) > ENTITIES:
                self._waiting.clear()
            entity = fields[2] if self._task.input.entity else None
            places = self._waiting.setdefault((place[0], entity), deque(maxlen=ahead + 1))
            places.append(place)
            if len(places) > ahead:
                self._labels[places[0]] = _label(fields[1])

    def _decoded(
        self, records: Records
    ) -> list[tuple[Place, bytes | None, int, tuple[Any, ...] | None]]:
        """Return place, value and time of records, with their fields; None of what is refused."""
        if not records.values:
            return []
        columns, refused = self._codec.decode_all(records.values)
        told = zip(*columns, strict=True)
        fields = [None if at in refused else next(told) for at in range(len(records.values))]
        places = zip(records.partitions, records.offsets, strict=True)
        return [*zip(places, records.values, records.timestamps_ms, fields, strict=True)]


def _forget(kept: dict[Place, Any]) -> None:
    """Drop what was kept first."""
    while len(kept) > KEPT:
        del kept[next(iter(kept))]


def _label(label: Any) -> Any:
    """Return a label as predictions have it: a class as text."""
    return label if label is None or type(label) is float else scalar_text(label)
