"""Wire types and codecs: what stands in each topic, and strict decoding of what strangers send."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import methodcaller
from types import NoneType
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from model.spec import Rival, Step
from stream.fields import Level
from stream.kinds import Category, Image, Number, Text
from stream.task import Task

MAX_DEPTH = 8
MILLISECONDS_FROM = 1e11  # a Unix time from here on counts milliseconds


class Records(NamedTuple):
    """Hold consecutive Kafka records of one topic as columns."""

    topic: str
    values: list[bytes | None]
    keys: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    timestamps_ms: list[int]  # empty where nobody asked for them


class Reject(NamedTuple):
    """Say why an event is refused."""

    code: str
    detail: str


class DeadLetter(msgspec.Struct, frozen=True):
    """Hold a refused event: `<task>.dead-letter`, one for each refused event."""

    code: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None


class Feature(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Hold a normalised event, or the code it was refused with: `<task>.features`.

    There is exactly one for each raw record, so a missing offset always means a lost row.
    `numeric` is float32 (NaN = missing), `ids` and `entity` are unsigned 32-bit, little-endian;
    `image` holds the pixels as they came.
    """

    topic: str
    partition: int
    offset: int
    reject: str | None = None
    id: str | int = ""
    time_ms: int = 0
    label: float = float("nan")
    numeric: bytes = b""
    ids: bytes = b""
    entity: bytes = b""
    image: bytes = b""
    new_class: str | None = None


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hold what was said about one event: `<task>.predictions`, keyed as its event was.

    `probabilities` are in the order of the task file's classes, then of their coming.
    """

    id: str | int
    prediction: str | float | None  # null before there is a class
    step: int
    time_ms: int
    partition: int
    offset: int
    probabilities: list[float] | None = None
    interval: list[float] | None = None


class Moved(msgspec.Struct, frozen=True):
    """Say that a column of the newest rows is unlike the first ones since the last alarm."""

    column: str  # of numbers, a part of the calendar, or "prediction"
    psi: float  # population stability index
    ks: float  # Kolmogorov-Smirnov statistic


class DriftAlarm(msgspec.Struct, frozen=True, tag_field="kind", tag="alarm"):
    """Hold an alarm: `<task>.drift`.

    `before` and `after` are means of the error; the `statistic`, of the error at the last `window`
    labelled events, reached the `threshold`. `moved` names the inputs that moved most, if any did.
    """

    detector: str
    id: str | int
    step: int
    time_ms: int
    partition: int
    offset: int
    before: float
    after: float
    statistic: float
    threshold: float
    window: float
    moved: list[Moved] = []


class LadderStep(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="step"):
    """Hold what was done about drift: `<task>.drift`.

    What was decided by comparing says how: `gain` is the mean of the champion's error less the
    rival's over `events` labels, and lies between `low` and `high` with 95 % confidence, however
    often that is looked at. `exchanged` are two classes that have changed places, and `statistic`
    the logarithm of how much likelier that made the last labels.
    """

    action: Step
    id: str | int
    step: int
    time_ms: int
    partition: int
    offset: int
    rival: Rival | None = None
    events: int | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    exchanged: list[str] | None = None
    statistic: float | None = None


DriftRecord = DriftAlarm | LadderStep

Fields = tuple[Any, ...]


class Codec:
    """Decode the raw events of one task, strictly and fast.

    A decoded event is a tuple of what the task asks for: id, label, then entity and time if they
    are mapped, then the numbers, categories, images and texts in the order of the task file. A
    field that is null or absent is None, but an image has to be there; it is decoded to bytes.
    """

    def __init__(self, task: Task) -> None:
        envelope = task.input.format == "cloudevents"
        within = ("data",) if envelope else ()
        label: Any = str | int | float | bool | None if task.spec.classes else float | None
        scalar = str | int | float | bool | None
        wanted: list[tuple[tuple[str, ...], Any]] = [
            (pointer(task.input.id), str | int),
            ((*within, *pointer(task.target.field)), label),
        ]
        if task.input.entity:
            wanted.append(((*within, *pointer(task.input.entity)), str | int))
        if task.input.time:
            wanted.append((pointer(task.input.time), str | float))
        kinds = ((Number, float | None), (Category, scalar), (Image, bytes), (Text, str | None))
        for kind, form in kinds:
            for name, feature in task.of_kind(kind).items():
                wanted.append(((*within, *pointer(feature.field or name)), form))
        tree = Level({"specversion": Literal["1.0"]} if envelope else {})
        for path, form in wanted:
            tree.add(path, form)
        self._max_bytes = task.input.max_bytes
        self._decode = tree.decoder()
        self._fields: Callable[[Any], Fields] = tree.taker([path for path, _ in wanted])
        self._key_quotes = 2 * (tree.keys() + envelope)

    def decode(self, raw: bytes | None) -> Fields | Reject:
        """Give the fields of one event, or the reason to refuse it; never raise."""
        fields = self._parse(raw)
        if raw is None or isinstance(fields, Reject):
            return fields
        return self._inspect(raw) or fields

    def decode_all(self, values: Sequence[bytes | None]) -> tuple[list[Fields], dict[int, Reject]]:
        """Decode many events, each as `decode` does; what is refused is told by its place.

        Only suspects are inspected. An event that has every mapped field, and as many quotes as
        their keys and strings need, holds no other key and none twice.
        """
        parsed = list(map(self._parse, values))
        refused = {place: e for place, e in enumerate(parsed) if type(e) is Reject}
        if refused:
            parsed = [fields for fields in parsed if type(fields) is not Reject]
        kept = [place for place in range(len(values)) if place not in refused]
        if not kept:
            return [], refused
        quotes = np.fromiter(map(_COUNT_QUOTES, map(values.__getitem__, kept)), np.int64)
        for column in zip(*parsed, strict=True):
            kinds = set(map(type, column))
            if kinds in ({str}, {bytes}):
                quotes -= 2
            elif len(kinds) > 1:
                quotes -= [_QUOTES.get(type(value), 0) for value in column]
            elif kinds == {NoneType}:
                quotes += _ABSENT
        for suspect in np.flatnonzero(quotes != self._key_quotes):
            place = kept[suspect]
            reject = self._inspect(values[place])
            if reject:
                refused[place] = reject
                parsed[suspect] = ()
        return [fields for fields in parsed if fields], refused

    def _parse(self, raw: bytes | None) -> Fields | Reject:
        if raw is None:
            return Reject("tombstone", "the record has no value")
        if len(raw) > self._max_bytes:
            return Reject("too_large", f"{len(raw)} bytes, expected at most {self._max_bytes}")
        try:
            return self._fields(self._decode(raw.decode()))
        except UnicodeDecodeError as error:
            return Reject("encoding", f"not UTF-8 at byte {error.start}")
        except msgspec.ValidationError as error:
            return Reject("schema", str(error))
        except RecursionError:
            return Reject("depth", f"nested deeper than {MAX_DEPTH} levels")
        except (msgspec.DecodeError, ValueError) as error:
            return Reject("json", str(error))

    def _inspect(self, raw: Any) -> Reject | None:
        """Refuse duplicate keys and deep nesting, which a parser lets through."""
        try:
            if b"\\" not in raw and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
                again = msgspec.json.encode(msgspec.json.decode(raw))  # keeps one of each key
                if again.count(b'"') == raw.count(b'"'):
                    return None
            value = json.loads(raw, object_pairs_hook=_unique)
        except _DuplicateKey as error:
            return Reject("duplicate_key", f"the key {error.args[0]!r} stands twice in an object")
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            return Reject("json", str(error))
        if depth(value) > MAX_DEPTH:
            return Reject("depth", f"nested deeper than {MAX_DEPTH} levels")
        return None


_COUNT_QUOTES = methodcaller("count", b'"')
_ABSENT = 1 << 40  # the key may be missing: no count of quotes may match
_QUOTES = {str: 2, NoneType: -_ABSENT}


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKey(key)
        found[key] = value
    return found


def depth(value: Any) -> int:
    """Count the levels of nesting without recursion."""
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = list(chain.from_iterable(v.values() if isinstance(v, dict) else v for v in level))
    return depth


def pointer(path: str) -> tuple[str, ...]:
    """Split a field path: a key as it is, or a JSON Pointer (RFC 6901) when it begins with `/`."""
    if not path.startswith("/"):
        return (path,)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))


def time_ms(value: Any) -> float:
    """Read an event time: RFC 3339 text (no offset = UTC), or Unix seconds or milliseconds.

    Returns:
        whole milliseconds since 1970 UTC, or NaN for what is not a time.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
        return float(round(value * 1000 if abs(value) < MILLISECONDS_FROM else value))
    except (ValueError, OverflowError):
        return math.nan
