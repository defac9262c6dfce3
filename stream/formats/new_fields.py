"""Fields that a task does not read, and that appear when its stream is already under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate
from headrace.stream.task.field_path import pointer

USUAL_EVENTS = 200  # whose fields are no news
LOOK_EVERY = 16  # events of a shape that is known: fields may have changed places
MOST_NAMED = 20
MOST_USUAL = 20_000  # characters of all names; where there are more of them, nothing is news
MOST_SHAPES = 256
LONGEST_NAME = 100  # characters

_BEGINNING: Mapping[str, Any] = {}
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class NewField(NamedTuple):
    """Say where a field came first, from 0, and in how many events it was seen."""

    first: int
    events: int


class NewFields:
    """Watch the top-level fields of events (of CloudEvents: of their data) for new ones.

    What the first USUAL_EVENTS hold is usual, and so is what the task reads. After these, events
    are decoded that have another number of keys, and each LOOK_EVERY-th: a field that takes the
    place of another one is found so many events later at most. What is found depends on the events
    and their order alone, not on how they are batched.

    Args:
        state: to go on from, as `state` returned it; {} is the beginning.
    """

    def __init__(self, task: Task, state: Mapping[str, Any] = _BEGINNING) -> None:
        self._envelope = task.input.format == "cloudevents"
        source, read = task.input, [task.target.field]
        read += [name for name in (source.entity, source.weight, source.propensity) if name]
        read += [] if self._envelope else [name for name in (source.id, source.time) if name]
        read += [
            feature.field or name
            for name, feature in task.features.items()
            if not isinstance(feature, Aggregate)
        ]
        self._read = {pointer(field)[0] for field in read}
        self._usual = set[str](state.get("usual", ()))
        self._shapes = {shape: usual for shape, usual in state.get("shapes", ())}  # by keys
        self._found = {name: NewField(*each) for name, each in state.get("found", {}).items()}
        self._events: int = state.get("events", 0)
        self._more: int = state.get("more", 0)
        self._watching: bool = state.get("watching", True)

    def state(self) -> dict[str, Any]:
        """Return all that it knows as JSON has it, MOST_USUAL characters and a little."""
        return {
            "events": self._events,
            "watching": self._watching,
            "usual": sorted(self._usual),
            "shapes": [[*each] for each in self._shapes.items()],
            "found": {name: [*each] for name, each in self._found.items()},
            "more": self._more,
        }

    def add(self, values: Sequence[bytes | None]) -> None:
        """Take the next events."""
        if not self._watching:
            return
        shapes, first, self._events = self._shapes, self._events, self._events + len(values)
        for place, raw in enumerate(values, first):
            shape = raw.count(b'":') if raw else 0
            if shapes.get(shape) and place % LOOK_EVERY and place >= USUAL_EVENTS:
                continue
            usual = not self._look(raw or b"", place)
            if shape in shapes or len(shapes) < MOST_SHAPES:
                shapes[shape] = usual and shapes.get(shape, True)

    def found(self) -> dict[str, NewField]:
        """Return the new fields by name, in the order in which they came: MOST_NAMED at most."""
        return dict(self._found)

    def lines(self, noun: str = "row") -> list[str]:
        """Say what was found, a line for each field; rows are counted from 1."""
        lines = []
        for name, (first, events) in self._found.items():
            where = f"{events:,} {noun}{'s'[: events != 1]}, the first is {noun} {first + 1:,}"
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
        names = [name for name in fields if name not in self._usual and name not in self._read]
        if place < USUAL_EVENTS:
            usual = self._usual | {*names}
            self._watching = sum(map(len, usual)) <= MOST_USUAL
            self._usual = usual if self._watching else set()
            return False
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
