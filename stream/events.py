"""Wire types and codecs: what stands in each topic, and strict decoding of what strangers send."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import reduce
from hashlib import sha256
from itertools import chain, compress
from operator import attrgetter, methodcaller, or_
from types import NoneType
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from model.spec import Rival, Step
from stream.errors import TaskError
from stream.kinds import Category, Image, Number, Text
from stream.task import Task

MAX_DEPTH = 8
MILLISECONDS_FROM = 1e11  # a Unix time from here on counts milliseconds
LETTER_DETAIL = 500  # characters
LETTER_KEY_BYTES, LETTER_RAW_BYTES = 4_096, 65_536  # in base64 a third more
LETTER_BYTES = 102_400  # a letter and its key in Kafka


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


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold a refused event: `<task>.dead-letter`, one for each refused event.

    Made by `dead_letter`, which bounds it: of a longer key or value it holds the first bytes, the
    size and the sha256. The whole event stands in the raw topic, where the coordinates say.
    """

    code: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None  # also None where a learner refuses what a normaliser had taken
    key_bytes: int | None = None  # the size of one that was cut
    key_sha256: str | None = None
    raw_bytes: int | None = None
    raw_sha256: str | None = None


def dead_letter(
    reject: Reject, topic: str, partition: int, offset: int, key: bytes | None, raw: bytes | None
) -> DeadLetter:
    """Put a refused event into a letter of LETTER_BYTES at most, whatever its size."""
    cut: dict[str, Any] = {}
    for name, data, most in (("key", key, LETTER_KEY_BYTES), ("raw", raw, LETTER_RAW_BYTES)):
        if data is not None and len(data) > most:
            cut |= {f"{name}_bytes": len(data), f"{name}_sha256": sha256(data).hexdigest()}
    return DeadLetter(
        reject.code,
        reject.detail[:LETTER_DETAIL],
        topic,
        partition,
        offset,
        key and key[:LETTER_KEY_BYTES],
        raw and raw[:LETTER_RAW_BYTES],
        **cut,
    )


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
Forms = frozenset[type[Any] | None]
"""Types that a field may have: `float` is any number, and with `int` a whole one stays exact."""
_SCALAR: Forms = frozenset({str, int, float, bool})


class Codec:
    """Decode the raw events of one task, strictly and fast.

    A decoded event is a tuple of what the task asks for: id, label, then entity and time if they
    are mapped, then the numbers, categories, images and texts in the order of the task file. A
    field that is null or absent is None, but an image has to be there; it is decoded to bytes.
    """

    def __init__(self, task: Task) -> None:
        envelope = task.input.format == "cloudevents"
        within = ("data",) if envelope else ()
        label = _SCALAR | {None} if task.spec.classes else frozenset({float, None})
        wanted: list[tuple[tuple[str, ...], Forms]] = [
            (pointer(task.input.id), _SCALAR - {bool}),
            ((*within, *pointer(task.target.field)), label),
        ]
        if task.input.entity:
            wanted.append(((*within, *pointer(task.input.entity)), _SCALAR))
        if task.input.time:
            wanted.append((pointer(task.input.time), frozenset({str, float})))
        kinds: tuple[tuple[type[Any], Forms], ...] = (
            (Number, frozenset({float, None})),
            (Category, _SCALAR | {None}),
            (Image, frozenset({bytes})),
            (Text, frozenset({str, None})),
        )
        for kind, forms in kinds:
            for name, feature in task.of_kind(kind).items():
                wanted.append(((*within, *pointer(feature.field or name)), forms))
        tree = _Level({"specversion": Literal["1.0"]} if envelope else {})
        for path, forms in wanted:
            tree.add(path, forms)
        self._max_bytes = task.input.max_bytes
        self._decode = tree.decoder()
        places = [tree.place(path) for path, _ in wanted]
        self._fields: Callable[[Any], Fields] = attrgetter(*places)
        self._first = [places.index(place) == at for at, place in enumerate(places)]
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
        for column in compress(zip(*parsed, strict=True), self._first):
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
        if _depth(value) > MAX_DEPTH:
            return Reject("depth", f"nested deeper than {MAX_DEPTH} levels")
        return None


_COUNT_QUOTES = methodcaller("count", b'"')
_ABSENT = 1 << 40  # the key may be missing: no count of quotes may match
_QUOTES = {str: 2, NoneType: -_ABSENT}


class _Level:
    """Grow the tree of mapped fields, one level of the JSON object at a time."""

    def __init__(self, fields: dict[str, Any] | None = None) -> None:
        self._fields: dict[str, Any] = fields or {}

    def add(self, path: Sequence[str], forms: Forms) -> None:
        """Map a field; one that is mapped twice has to fit both."""
        key, *rest = path
        known = self._fields.get(key)
        if rest:
            level = known if isinstance(known, _Level) else self._fields.setdefault(key, _Level())
            if not isinstance(level, _Level):
                raise TaskError(f"/{'/'.join(path)}: {key} is mapped as a value and as an object")
            level.add(rest, forms)
        elif isinstance(known, _Level):
            raise TaskError(f"{key} is mapped as a value and as an object")
        elif known is not None and bytes in forms | known:
            raise TaskError(f"{key} is mapped as an image and as something else")
        else:
            self._fields[key] = both = forms if known is None else _both(forms, known)
            if not both - {None}:
                raise TaskError(f"{key} is mapped twice, as kinds that no value is both of")

    def place(self, path: Sequence[str]) -> str:
        key, *rest = path
        here = f"f{list(self._fields).index(key)}"
        return f"{here}.{self._fields[key].place(rest)}" if rest else here

    def keys(self) -> int:
        return len(self._fields) + sum(
            level.keys() for level in self._fields.values() if isinstance(level, _Level)
        )

    def decoder(self) -> Callable[[str], Any]:
        """Give a function that decodes the mapped fields of an event, as attributes."""
        if not self._is_odd():
            return msgspec.json.Decoder(self.struct()).decode
        form, decode = self.struct(plain=True), msgspec.json.Decoder(dict[str, Any]).decode
        return lambda text: msgspec.convert(self._renamed(decode(text)), form)

    def _is_odd(self) -> bool:
        """Say whether a key needs escapes in JSON, which the fast decoder does not know."""
        return any(
            _ODD.search(key) or (isinstance(inner, _Level) and inner._is_odd())
            for key, inner in self._fields.items()
        )

    def _renamed(self, value: Any) -> Any:
        """Give what is mapped of a decoded object under the names of the struct's fields."""
        if not isinstance(value, dict):
            return value
        return {
            f"f{number}": inner._renamed(value[key]) if isinstance(inner, _Level) else value[key]
            for number, (key, inner) in enumerate(self._fields.items())
            if key in value
        }

    def struct(self, *, plain: bool = False) -> type[Any]:
        """Make the struct of this level; its fields have other names in JSON, unless `plain`."""
        fields: list[Any] = []
        for number, form in enumerate(self._fields.values()):
            name = f"f{number}"
            if isinstance(form, _Level):
                inner = form.struct(plain=plain)
                required = any(f.required for f in msgspec.structs.fields(inner))
                fields.append((name, inner) if required else (name, inner, inner()))
            elif isinstance(form, frozenset):
                kinds: Any = reduce(or_, form)
                fields.append((name, kinds, None) if None in form else (name, kinds))
            else:
                fields.append((name, form))
        names = {f"f{n}": f"f{n}" if plain else key for n, key in enumerate(self._fields)}
        return msgspec.defstruct("Event", fields, rename=names, kw_only=True, frozen=True, gc=False)


_ODD = re.compile(r'["\\\x00-\x1f]')


def _both(forms: Forms, others: Forms) -> Forms:
    """Give the types that fit both."""
    exact = {int} & (forms | others) if float in forms & others else set()
    return forms & others | exact


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKey(key)
        found[key] = value
    return found


def _depth(value: Any) -> int:
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
