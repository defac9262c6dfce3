"""Decode what strangers send: strictly, and fast."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from itertools import chain, compress
from operator import methodcaller
from types import NoneType
from typing import Any, Literal

import msgspec
import numpy as np

from headrace.stream.events import Reject
from headrace.stream.formats.fields import ANY, Forms, Level
from headrace.stream.formats.misfits import misfit
from headrace.stream.formats.quantities import without_literals
from headrace.stream.task import Task
from headrace.stream.task.features import Category, Encoded, Image, Number, Text
from headrace.stream.task.field_path import pointer
from headrace.stream.task.quantity import Quantity

MAX_DEPTH = 8
LONGEST_TEXT = 300  # characters of a text that stands in place of an event

Fields = tuple[Any, ...]
_SCALAR: Forms = frozenset({str, int, float, bool})
_LIST: Forms = _SCALAR | {None, list[str | int | float | bool | None]}


class Codec:
    """Decode the raw events of one task, strictly and fast.

    A decoded event is a tuple of what the task asks for: id, label, then entity, time and weight
    if they are mapped, then the numbers, categories, images, texts and what is to be encoded, in
    the order of the task file. A field that is null or absent is None, but an image has to be
    there; it is decoded to bytes.
    """

    def __init__(self, task: Task) -> None:
        envelope = task.input.format == "cloudevents"
        within = ("data",) if envelope else ()
        label = _SCALAR | {None} if task.spec.classes else _number(task.target)
        wanted: list[tuple[tuple[str, ...], Forms]] = [
            (pointer(task.input.id), _SCALAR - {bool}),
            ((*within, *pointer(task.target.field)), label),
        ]
        if task.input.entity:
            wanted.append(((*within, *pointer(task.input.entity)), _SCALAR))
        if task.input.time:
            wanted.append((pointer(task.input.time), frozenset({str, float})))
        if task.input.weight:
            wanted.append(((*within, *pointer(task.input.weight)), frozenset({float, None})))
        kinds: tuple[tuple[type[Any], Callable[[Any], Forms]], ...] = (
            (Number, _number),
            (Category, lambda each: _LIST if each.several else _SCALAR | {None}),
            (Image, lambda each: frozenset({bytes})),
            (Text, lambda each: frozenset({str, None})),
            (Encoded, lambda each: ANY),
        )
        for kind, forms_of in kinds:
            for name, feature in task.of_kind(kind).items():
                forms = forms_of(feature)
                wanted.append(((*within, *pointer(feature.field or name)), forms))
        tree = Level({"specversion": Literal["1.0"]} if envelope else {})
        for path, forms in wanted:
            tree.add(path, forms)
        self._max_bytes = task.input.max_bytes
        self._literals = task.input.non_finite == "missing"
        self.non_finite = 0  # NaN and Infinity that were read as missing
        self._decode = tree.decoder()
        paths = [path for path, _ in wanted]
        self._fields: Callable[[Any], Fields] = tree.taker(paths)
        self._first = [paths.index(path) == at for at, path in enumerate(paths)]
        self._key_quotes = 2 * (tree.keys() + envelope)

    def decode(self, raw: bytes | None) -> Fields | Reject:
        """Return the fields of one event, or the reason to refuse it; never raise."""
        fields = self._parse(raw)
        if isinstance(fields, Reject) and self._literals:
            events, refused = self.decode_all([raw])
            return refused.get(0) or events[0]
        if raw is None or isinstance(fields, Reject):
            return fields
        return self._inspect(raw) or fields

    def _read_literals(
        self,
        values: Sequence[bytes | None],
        parsed: list[Fields | Reject],
        refused: dict[int, Reject],
    ) -> Sequence[bytes | None]:
        """Read events that are refused with null for NaN and Infinity; return the values so."""
        found = list(values)
        for place, reject in [*refused.items()]:
            raw = values[place]
            if reject.code != "json" or raw is None:
                continue
            plain, count = without_literals(raw)
            fields = self._parse(plain)
            if not isinstance(fields, Reject) and count:
                found[place], parsed[place] = plain, fields
                self.non_finite += count
                del refused[place]
        return found

    def decode_all(self, values: Sequence[bytes | None]) -> tuple[list[Fields], dict[int, Reject]]:
        """Decode many events, each as `decode` does; what is refused is told by its place.

        Only suspects are inspected. An event that has every mapped field, and as many quotes as
        their keys and strings need, holds no other key and none twice.
        """
        parsed = self._parse_all(values)
        refused = {place: e for place, e in enumerate(parsed) if type(e) is Reject}
        if refused and self._literals:
            values = self._read_literals(values, parsed, refused)
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
            elif len(kinds) > 1 or kinds <= {list, dict}:
                quotes -= list(map(_quotes, column))
            elif kinds == {NoneType}:
                quotes += _ABSENT
        for suspect in np.flatnonzero(quotes != self._key_quotes):
            place = kept[suspect]
            reject = self._inspect(values[place])
            if reject:
                refused[place] = reject
                parsed[suspect] = ()
        return [fields for fields in parsed if fields], refused

    def _parse_all(self, values: Sequence[bytes | None]) -> list[Any]:
        """Return what `_parse` does of each: at once if none of them is refused."""
        if all(values) and max(map(len, values), default=0) <= self._max_bytes:  # type: ignore[arg-type]
            decode, take = self._decode, self._fields
            with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
                return [take(decode(str(raw, "utf-8"))) for raw in values]  # type: ignore[arg-type]
        return list(map(self._parse, values))

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
            return Reject("schema", _text(raw) or misfit(raw, str(error)))
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


def _number(each: Quantity) -> Forms:
    return frozenset({float, None, str}) if each.reads_texts else frozenset({float, None})


def _text(raw: bytes) -> str:
    """Say what stands in place of an event, if that is a text: it may be why a row is none."""
    with contextlib.suppress(msgspec.MsgspecError):
        return f"text, expected an object: {msgspec.json.decode(raw, type=str)[:LONGEST_TEXT]}"
    return ""


_COUNT_QUOTES = methodcaller("count", b'"')
_ABSENT = 1 << 40  # a key may be missing, or more than one: no count of quotes may match
_QUOTES = {str: 2, NoneType: -_ABSENT, dict: -_ABSENT}


def _quotes(value: Any) -> int:
    """Count the quotes of a value of several kinds."""
    if type(value) is list:
        kinds = list(map(type, value))
        nested = list in kinds or dict in kinds
        return -_ABSENT if nested else 2 * kinds.count(str)
    return _QUOTES.get(type(value), 0)


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
