"""What there is to stream: the bundled real streams and the rows of a user's own file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.stream.errors import UsageError, did_you_mean
from headrace.stream.formats import files
from headrace.stream.formats.quantities import without_literals
from headrace.stream.formats.times import time_ms, unit_of

DATA = Path(__file__).parent / "data"
_LOOKAHEAD_ROWS = 100
_FieldReader = Callable[[bytes], tuple[str | None, bytes | None, int | None] | None]


class Event(NamedTuple):
    """One event as a producer emits it: `value` is what goes on the wire, JSON."""

    id: str
    key: bytes | None  # decides the partition; None: any
    time_ms: int | None  # event time since 1970-01-01 UTC; None: the event has none
    value: bytes
    stamp_ms: int | None = None  # Kafka's timestamp; None: the time of sending


def sensor(*, loop: bool = False, cloudevents: bool = False) -> Iterator[Event]:
    """Yield 43,824 hourly readings of PM2.5 and weather in Beijing, 2010-2014, in order.

    With `loop` the stream repeats for ever: ids get the suffix "-2", "-3", ..., times go on.
    With `cloudevents` each value is a structured CloudEvents 1.0 envelope.
    """
    words: dict[str, files.Kind] = dict.fromkeys(("station", "time", "wind_direction"), "string")
    events = _rows(
        DATA / "sensor.csv.gz", "pm25", None, key="station", time="time", columns=words, loop=loop
    )
    return as_cloudevents(events, "sensor") if cloudevents else events


def social(*, loop: bool = False, cloudevents: bool = False) -> Iterator[Event]:
    """Yield 20,100 posts of Hacker News, 2015-2016, in order. Options as for `sensor`."""
    words: dict[str, files.Kind] = dict.fromkeys(
        ("id", "author", "time", "title", "domain"), "string"
    )
    events = _rows(
        DATA / "social.csv.gz", "hn", "id", key="author", time="time", columns=words, loop=loop
    )
    return as_cloudevents(events, "social") if cloudevents else events


def text(*, loop: bool = False, cloudevents: bool = False) -> Iterator[Event]:
    """Yield 5,574 text messages labelled ham or spam, without time. Options as for `sensor`."""
    words: dict[str, files.Kind] = {"text": "string", "label": "string"}
    events = _rows(DATA / "text.csv.gz", "sms", None, key=None, time=None, columns=words, loop=loop)
    return as_cloudevents(events, "text") if cloudevents else events


def file(
    path: files.Given,
    *,
    key: str | None = None,
    time: str | None = None,
    id: str | None = None,
    columns: Mapping[str, files.Kind] | None = None,
    loop: bool = False,
    cloudevents: bool = False,
) -> Iterator[Event]:
    """Yield the rows of files as events, in file order; see `headrace.stream.formats.files`.

    `key`, `time` and `id` name columns. Rows get the id "<first file>-<row>", counted from 1,
    unless `id` says otherwise or there is a column "id". A row that is no JSON object is passed on
    as it is.
    `columns` as for `headrace.stream.formats.files.read`; the other options as for `sensor`.

    Raises:
        UsageError: the file cannot be read, or has no such column.
    """
    known = {name for row in files.sample(path, _LOOKAHEAD_ROWS) for name in row}
    for option, name in (("key", key), ("time", time), ("id", id)):
        if name is not None and name not in known:
            near = did_you_mean(name, sorted(known)) or ";"
            raise UsageError(
                f"{files.called(path)}: no column {name!r} for {option}{near} the file has "
                f"{', '.join(sorted(known))}"
            )
    stem = files.stem(path)
    id_column = id or ("id" if "id" in known else None)
    if not loop:
        files.read_on(path)
    events = _rows(path, stem, id_column, key=key, time=time, columns=columns, loop=loop)
    return as_cloudevents(events, stem) if cloudevents else events


def as_cloudevents(events: Iterable[Event], kind: str) -> Iterator[Event]:
    """Wrap each value as CloudEvents 1.0 in structured JSON, type "headrace.<kind>".

    Source: CloudEvents 1.0.2, JSON event format, section 3.
    """
    head = f'{{"specversion":"1.0","type":"headrace.{kind}","source":"/headrace/{kind}"'
    for event in events:
        attributes = head + ',"id":' + msgspec.json.encode(event.id).decode()
        if event.time_ms is not None:
            attributes += f',"time":"{rfc3339(event.time_ms)}"'
        value = attributes.encode() + b',"datacontenttype":"application/json","data":' + event.value
        yield event._replace(value=value + b"}")


def parse_time_ms(value: object) -> int | None:
    """Return milliseconds since 1970 UTC of an RFC 3339 text or of epoch seconds or milliseconds.

    A text without a zone is taken as UTC. None: not a time.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = time_ms(value)
    return None if math.isnan(found) else int(found)


def rfc3339(time_ms: int) -> str:
    """Write milliseconds since 1970 UTC, as 2024-05-01T12:00:00.000Z."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _rows(
    path: files.Given,
    stem: str,
    id_column: str | None,
    *,
    key: str | None,
    time: str | None,
    columns: Mapping[str, files.Kind] | None,
    loop: bool,
) -> Iterator[Event]:
    """Open the file now, so that it is refused at the call; then yield pass after pass."""
    rows = files.read(path, columns)
    fields = _field_reader(id_column, key, time)

    def first_pass() -> Iterator[Event]:
        for number, value in enumerate(rows, 1):
            row_id = f"{stem}-{number}"
            found = fields(value)
            if found is None:
                yield Event(row_id, None, None, value)
            elif id_column is None:
                yield Event(row_id, found[1], found[2], _with_id(value, row_id))
            else:
                yield Event(found[0] or row_id, found[1], found[2], value)

    def passes() -> Iterator[Event]:
        span = _Span()
        for event in first_pass():
            span.add(event.time_ms)
            yield event
        for turn in count(2) if loop else ():
            shift_ms = (turn - 1) * span.length_ms
            again = _rows(path, stem, id_column, key=key, time=time, columns=columns, loop=False)
            for event in again:
                yield _again(event, f"{event.id}-{turn}", id_column or "id", time, shift_ms)

    return passes()


def _field_reader(id_column: str | None, key: str | None, time: str | None) -> _FieldReader:
    """Return a function that finds id, key and time of a row without decoding the rest of it."""
    names = {name for name in (id_column, key, time) if name is not None}
    attributes = {name: f"c{i}" for i, name in enumerate(sorted(names))}
    struct = msgspec.defstruct(
        "Fields",
        [(attribute, Any, None) for attribute in attributes.values()],
        rename={attribute: name for name, attribute in attributes.items()},
        namespace={"absent": None},
    )
    decode = msgspec.json.Decoder(struct).decode
    pick = attrgetter(*(attributes.get(name or "", "absent") for name in (id_column, key, time)))

    def fields(value: bytes) -> tuple[str | None, bytes | None, int | None] | None:
        try:
            row_id, row_key, moment = pick(decode(value))
        except UnicodeDecodeError:
            return None
        except msgspec.DecodeError:
            plain, literals = without_literals(value)
            return fields(plain) if literals else None
        return (
            None if row_id is None else str(row_id),
            None if row_key is None else str(row_key).encode(),
            None if moment is None else parse_time_ms(moment),
        )

    return fields


def _with_id(value: bytes, row_id: str) -> bytes:
    rest = value[1:].lstrip()
    return b'{"id":' + msgspec.json.encode(row_id) + (b"" if rest.startswith(b"}") else b",") + rest


class _Span:
    """How much event time one pass takes, one mean step beyond its last event included."""

    def __init__(self) -> None:
        self._first_ms = self._last_ms = self._times = 0

    def add(self, time_ms: int | None) -> None:
        if time_ms is None:
            return
        self._first_ms = min(self._first_ms, time_ms) if self._times else time_ms
        self._last_ms = max(self._last_ms, time_ms) if self._times else time_ms
        self._times += 1

    @property
    def length_ms(self) -> int:
        covered_ms = self._last_ms - self._first_ms
        step_ms = max(1, covered_ms // max(1, self._times - 1))
        # Times of whole seconds stay so.
        return covered_ms + (step_ms - step_ms % 1000 if step_ms > 1000 else step_ms)


def _again(event: Event, new_id: str, id_column: str, time: str | None, shift_ms: int) -> Event:
    try:
        row = msgspec.json.decode(event.value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return event._replace(id=new_id)
    row[id_column] = new_id
    if time is None or event.time_ms is None:
        return event._replace(id=new_id, value=msgspec.json.encode(row))
    row[time] = _shifted(row[time], shift_ms)
    value = msgspec.json.encode(row)
    return Event(new_id, event.key, event.time_ms + shift_ms, value)


def _shifted(value: str | float, shift_ms: int) -> str | float:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:  # written otherwise
            return rfc3339(round(time_ms(value)) + shift_ms)
        text = (moment + timedelta(milliseconds=shift_ms)).isoformat()
        return text.replace("+00:00", "Z") if value.endswith(("Z", "z")) else text
    shift = shift_ms / 1000 * unit_of(value)
    return value + (round(shift) if isinstance(value, int) and shift.is_integer() else shift)
