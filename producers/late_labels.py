"""Events without their labels, and the labels some time later, for a topic of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.producers.sources import Event, rfc3339
from headrace.stream.errors import UsageError
from headrace.stream.formats.quantities import without_literals
from headrace.stream.rows.label_delay import DelayedLabels, LabelDelay
from headrace.stream.task import Task
from headrace.stream.task.field_path import pointer

LEAD_MS = 1_800_000  # Kafka refuses timestamps that lie an hour ahead

Raw = dict[str, msgspec.Raw]
_ENVELOPE = {
    "specversion": "1.0",
    "type": "headrace.label",
    "source": "/headrace/label",
    "datacontenttype": "application/json",
}


class _Label(NamedTuple):
    """Hold a label that was taken out of an event: JSON, as the event's id."""

    event: Event
    id: bytes
    value: bytes


class LateLabels:
    """Take the label out of each event, and give it back when its delay is over.

    Each event gets a Kafka timestamp of its own, later than the one before, and a label that of the
    event it comes behind: so a learner of both topics knows exactly which events came before.

    Raises:
        UsageError: the task has no [labels].
    """

    def __init__(self, task: Task, delay: LabelDelay) -> None:
        if task.labels is None:
            raise UsageError(f"task {task.name} has no [labels]: expected the topic of its labels")
        self.topic, self._labels = task.labels.topic, task.labels
        self._cloudevents = task.input.format == "cloudevents"
        self._window = task.input.earliest, task.input.latest
        self._literals = task.input.non_finite == "missing"
        within = ("data",) if self._cloudevents else ()
        self._field = (*within, *pointer(task.target.field))
        self._id = pointer(task.input.id)
        self._delay, self._due = delay, DelayedLabels[_Label](delay)
        self._events, self._newest_ms = 0, 0
        self.found = 0
        """How many labels were taken out of events so far."""
        self._time_ms: int | None = None  # of the newest event

    def split(self, event: Event) -> tuple[list[Event], Event, list[Event]]:
        """Return the labels that come before an event; the event without its label; and its label,
        if that comes at once."""
        bare, label = self._taken(event)
        if event.time_ms is None and label and self._delay.timed:
            raise UsageError(
                f"event {event.id} has no time, which a label delay of {self._delay.mean / 1000:g} "
                "s needs: name the time column (--time), or give the delay in events"
            )
        if event.time_ms is not None and self._is_time(event.time_ms):
            self._time_ms = event.time_ms
        come = self._due.pass_by([label], [self._events], [self._time_ms or 0])
        self._events += 1
        before = [each for at, each in come if at == 0]
        behind = [each for at, each in come if at]
        first = [self._told(each) for each in before]
        now_ms = int(time.time() * 1000)
        self._newest_ms = min(max(now_ms, self._newest_ms + 1), now_ms + LEAD_MS)
        bare = bare._replace(stamp_ms=self._newest_ms)
        return first, bare, [self._told(each) for each in behind]

    def rest(self) -> list[Event]:
        """Return the labels that are still to come, as of the end."""
        return [self._told(each) for _, each in self._due.rest()]

    def _is_time(self, time_ms: int) -> bool:
        first, last = self._window
        return first.timestamp() * 1000 <= time_ms < last.timestamp() * 1000

    def _taken(self, event: Event) -> tuple[Event, _Label | None]:
        """Take the label out of an event; what is refused for what it is, is left as it is."""
        if event.time_ms is not None and not self._is_time(event.time_ms):
            return event, None
        value = without_literals(event.value)[0] if self._literals else event.value
        try:
            value.decode()
            id = _at(value, self._id)
            value, label = _without(value, self._field)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return event, None
        if id is None or label is None or b"null" in (id, label):
            return event, None
        self.found += 1
        return event._replace(value=value), _Label(event, id, label)

    def _told(self, label: _Label) -> Event:
        """Make the record of a label that comes now."""
        told: dict[str, Any] = dict(_ENVELOPE) if self._cloudevents else {}
        within = ("data",) if self._cloudevents else ()
        _put(told, (*within, *pointer(self._labels.label)), msgspec.Raw(label.value))
        if self._cloudevents:
            told["id"] = label.event.id
        _put(told, pointer(self._labels.id), msgspec.Raw(label.id))
        if self._labels.time:
            known_ms = int(time.time() * 1000) if self._time_ms is None else self._time_ms
            _put(told, pointer(self._labels.time), rfc3339(known_ms))
        return label.event._replace(value=msgspec.json.encode(told), stamp_ms=self._newest_ms)


def _at(value: bytes, path: Sequence[str]) -> bytes | None:
    """Return what stands at a path; None if nothing does."""
    for key in path:
        found = msgspec.json.decode(value, type=Raw).get(key)
        if found is None:
            return None
        value = bytes(found)
    return value


def _without(value: bytes, path: Sequence[str]) -> tuple[bytes, bytes | None]:
    """Return an object without what stands at a path, and that; None if there is none.

    Raises:
        DecodeError: it is no object, or has a key twice: so it is refused, and has to stay so.
    """
    row = msgspec.json.decode(value, type=Raw)
    if msgspec.json.encode(row).count(b'"') != value.count(b'"'):
        raise msgspec.DecodeError("a key stands twice, or is written in an unusual way")
    inner = row.pop(path[0], None) if len(path) == 1 else row.get(path[0])
    if len(path) == 1:
        return msgspec.json.encode(row), None if inner is None else bytes(inner)
    if inner is None or not bytes(inner).lstrip().startswith(b"{"):
        return value, None
    rest, found = _without(bytes(inner), path[1:])
    row[path[0]] = msgspec.Raw(rest)
    return msgspec.json.encode(row), found


def _put(table: dict[str, Any], path: Sequence[str], value: object) -> None:
    for key in path[:-1]:
        table = table.setdefault(key, {})
    table[path[-1]] = value
