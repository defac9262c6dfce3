"""Decode what strangers send: strictly, and fast."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import reduce
from itertools import chain, compress
from operator import attrgetter, methodcaller, or_
from types import NoneType
from typing import Any, Literal

import msgspec
import numpy as np

from stream.errors import TaskError
from stream.events import Reject
from stream.kinds import Category, Image, Number, Text
from stream.task import Task

MAX_DEPTH = 8
MILLISECONDS_FROM = 1e11  # a Unix time from here on counts milliseconds

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
