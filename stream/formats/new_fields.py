"""Fields that a task does not read, and that appear when its stream is already under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from headrace.stream.formats.codec import pointer
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate

USUAL_EVENTS = 200  # whose fields are no news
LOOK_EVERY = 16  # events of a shape that is known: fields may have changed places
MOST_NAMED = 20
MOST_USUAL = 10_000  # names; where there are more of them, nothing is news
LONGEST_NAME = 100  # characters
RAGGED = {
    "_extra": "cells beyond the columns of the header",
    "_absent": "too few cells for the header's columns",
}  # what reading CSV puts into such rows

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class NewField(NamedTuple):
    """Say where a field came first, from 0, and in how many events it was seen."""

    first: int
    events: int


class NewFields:
    """Watch the top-level fields of events (of CloudEvents: of their data) for new ones.

    What the first USUAL_EVENTS hold is usual, and so is what the task reads. After these only
    events are decoded that have another number of keys, and each LOOK_EVERY-th: a field that takes
    the place of another one is found so many events later at most. What is found depends on the
    events and their order alone, not on how they are batched.
    """

    def __init__(self, task: Task) -> None:
        self._envelope = task.input.format == "cloudevents"
        source, read = task.input, [task.target.field]
        read += [name for name in (source.entity, source.weight) if name]
        read += [] if self._envelope else [name for name in (source.id, source.time) if name]
        read += [
            feature.field or name
            for name, feature in task.features.items()
            if not isinstance(feature, Aggregate)
        ]
        self._usual = {pointer(field)[0] for field in read}
        self._shapes: set[int] = set()
        self._found: dict[str, NewField] = {}
        self._events = 0
        self._more = 0
        self._watching = True

    def add(self, values: Sequence[bytes | None]) -> None:
        """Take the next events."""
        if not self._watching:
            return
        shapes, first, self._events = self._shapes, self._events, self._events + len(values)
        for place, raw in enumerate(values, first):
            shape = raw.count(b'":') if raw else 0
            if shape in shapes and place % LOOK_EVERY and place >= USUAL_EVENTS:
                continue
            if self._look(raw or b"", place):
                shapes.discard(shape)
            else:
                shapes.add(shape)

    def found(self) -> dict[str, NewField]:
        """Return the new fields by name, in the order in which they came: MOST_NAMED at most."""
        return dict(self._found)

    def lines(self, noun: str = "row") -> list[str]:
        """Say what was found, a line for each field; rows are counted from 1."""
        lines = []
        for name, (first, events) in self._found.items():
            where = f"{events:,} {noun}{'s'[: events != 1]}, the first is {noun} {first + 1:,}"
            if name in RAGGED:
                lines.append(f"{RAGGED[name]} in {where}")
            else:
                lines.append(
                    f"{name}: a field that is new in mid-stream, which the task does not read, in "
                    f"{where}; name it under features to learn from it"
                )
        if self._more:
            lines.append(f"{self._more:,} {noun}s with still other fields that are new")
        return lines

    def _look(self, raw: bytes, place: int) -> bool:
        """Decode an event; return whether it holds anything new."""
        try:
            fields = _decode(raw)
            if self._envelope:
                fields = _decode(fields.get("data", b"{}"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        names = [name for name in fields if name not in self._usual]
        if place < USUAL_EVENTS:
            self._watching = len(self._usual) + len(names) <= MOST_USUAL
            self._usual.update(name for name in names if name not in RAGGED)
            names = [name for name in names if name in RAGGED]
        named = False
        for name in names:
            name = name[:LONGEST_NAME]
            known = self._found.get(name)
            if known or len(self._found) < MOST_NAMED:
                first, events = known or (place, 0)
                self._found[name] = NewField(first, events + 1)
                named = True
        self._more += bool(names) and not named
        return bool(names)
