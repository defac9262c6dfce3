"""Decode what strangers send: strictly, and fast."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Container, Sequence
from itertools import chain, compress, repeat
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

    A decoded event is a tuple of what the task asks for: id, label, then entity, time, weight and
    propensity if they are mapped, then the numbers, categories, images, texts and what is to be
    encoded, in the order of the task file. A field that is null or absent is None, but an image has
    to be there; it is decoded to bytes.
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
        if task.input.propensity:
            wanted.append(((*within, *pointer(task.input.propensity)), frozenset({float, None})))
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
        self._decode: Callable[[str | bytes], Any] = tree.decoder()
        paths = [path for path, _ in wanted]
        self._takers = tree.takers(paths)
        self._first = [paths.index(path) == at for at, path in enumerate(paths)]
        self._flat = [len(path) == 1 for path in paths]
        self._key_quotes = 2 * (tree.keys() + envelope)

    def decode(self, raw: bytes | None) -> Fields | Reject:
        """Return the fields of one event, or the reason to refuse it; never raise."""
        event = self._parse(raw)
        if isinstance(event, Reject) and self._literals:
            columns, refused = self.decode_all([raw])
            return refused.get(0) or tuple(value for [value] in columns)
        if isinstance(event, Reject):
            return event
        return self._inspect(raw) or tuple(take(event) for take in self._takers)

    def decode_all(
        self, values: Sequence[bytes | None]
    ) -> tuple[list[Sequence[Any]], dict[int, Reject]]:
        """Decode many events, each as if it were alone.

        Only suspects are inspected. An event that has every mapped field, and as many quotes as
        their keys and strings need, holds no other key and none twice.

        Returns:
            their fields as columns, and why each other one is refused, by its place.
        """
        events, refused = self._parse_all(values)
        if refused and self._literals:
            values = self._read_literals(values, events, refused)
        columns = self._columns(_without(refused, events))
        suspects = self._suspects(_without(refused, values), columns)
        if suspects:
            kept = _without(refused, range(len(values)))
            found = {kept[at]: self._inspect(values[kept[at]]) for at in suspects}
            refused |= {place: reject for place, reject in found.items() if reject}
            columns = self._columns(_without(refused, events))
        return columns, refused

    def _columns(self, events: Sequence[Any]) -> list[Sequence[Any]]:
        return [tuple(map(take, events)) for take in self._takers]

    def _suspects(self, values: Sequence[Any], columns: list[Sequence[Any]]) -> Sequence[int]:
        """Return the places of events that may hold another key than the mapped ones, or one twice.

        Args:
            columns: what was found in the values.
        """
        needed, uneven = self._key_quotes, list[tuple[Sequence[Any], dict[Any, int]]]()
        for column, flat in compress(zip(columns, self._flat, strict=True), self._first):
            kinds = set(map(type, column))
            if kinds in ({str}, {bytes}):
                needed += 2
            elif not kinds <= _WITHOUT_QUOTES:
                uneven.append((column, _FLAT_QUOTES if flat else _QUOTES))
        quotes = [*map(bytes.count, values, repeat(b'"'))]
        if not uneven and quotes.count(needed) == len(quotes):
            return ()
        over = np.array(quotes, np.int64) - needed
        for column, quotes_of in uneven:
            over -= [_quotes(value, quotes_of) for value in column]
        return np.flatnonzero(over).tolist()

    def _read_literals(
        self,
        values: Sequence[bytes | None],
        events: list[Any],
        refused: dict[int, Reject],
    ) -> Sequence[bytes | None]:
        """Read events that are refused with null for NaN and Infinity; return the values so."""
        found = list(values)
        for place, reject in [*refused.items()]:
            raw = values[place]
            if reject.code != "json" or raw is None:
                continue
            plain, count = without_literals(raw)
            event = self._parse(plain)
            if not isinstance(event, Reject) and count:
                found[place], events[place] = plain, event
                self.non_finite += count
                del refused[place]
        return found

    def _parse_all(self, values: Sequence[Any]) -> tuple[list[Any], dict[int, Reject]]:
        """Return what `_parse` does of each, and what is refused: at once if none of them is."""
        if all(values) and max(map(len, values), default=0) <= self._max_bytes:
            with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
                if all(map(bytes.isascii, values)):
                    return list(map(self._decode, values)), {}
                return [self._decode(str(raw, "utf-8")) for raw in values], {}
        events = list(map(self._parse, values))
        return events, {place: e for place, e in enumerate(events) if type(e) is Reject}

    def _parse(self, raw: bytes | None) -> Any:
        """Return an event as it is decoded, or the reason to refuse it."""
        if raw is None:
            return Reject("tombstone", "the record has no value")
        if len(raw) > self._max_bytes:
            return Reject("too_large", f"{len(raw)} bytes, expected at most {self._max_bytes}")
        try:
            return self._decode(raw.decode())
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


def _without(places: Container[int], found: Sequence[Any]) -> Sequence[Any]:
    """Return what does not stand at some places."""
    return [each for at, each in enumerate(found) if at not in places] if places else found


def _number(each: Quantity) -> Forms:
    return frozenset({float, None, str}) if each.reads_texts else frozenset({float, None})


def _text(raw: bytes) -> str:
    """Say what stands in place of an event, if that is a text: it may be why a row is none."""
    with contextlib.suppress(msgspec.MsgspecError):
        return f"text, expected an object: {msgspec.json.decode(raw, type=str)[:LONGEST_TEXT]}"
    return ""


_WITHOUT_QUOTES = {int, float, bool}
_ABSENT = 1 << 40  # a key may be missing, or more than one: no count of quotes may match
_QUOTES = {str: 2, NoneType: -_ABSENT, dict: -_ABSENT}
# Where nothing around a field may be missing: null counts as absent, as if its key lacked, too.
_FLAT_QUOTES = _QUOTES | {NoneType: -2}


def _quotes(value: Any, quotes_of: dict[Any, int]) -> int:
    """Count the quotes of a value of several kinds."""
    if type(value) is list:
        kinds = list(map(type, value))
        nested = list in kinds or dict in kinds
        return -_ABSENT if nested else 2 * kinds.count(str)
    return quotes_of.get(type(value), 0)


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
