"""The mapped fields of an event: a tree of keys, decoded strictly and taken out in one step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import attrgetter, or_
from typing import Any

import msgspec

from headrace.stream.errors import TaskError

_PLAIN_NAME = re.compile(r'[^"\\\x00-\x1f]*')
_ABSENT: dict[str, Any] = {}
_NULL = msgspec.Raw(b"null")

Forms = frozenset[type[Any] | None]
"""Types that a field may have: `float` is any number, and with `int` a whole one stays exact."""

ANY: Forms = frozenset({str, int, float, bool, None, list[Any], dict[str, Any]})


class Level:
    """Grow the tree of mapped fields, one level of the JSON object at a time."""

    def __init__(self, fields: dict[str, Any] | None = None) -> None:
        self._fields: dict[str, Any] = fields or {}

    def add(self, path: Sequence[str], forms: Forms) -> None:
        """Map a field; one that is mapped twice has to fit both.

        Raises:
            TaskError: it is mapped as something else that excludes this.
        """
        key, *rest = path
        known = self._fields.get(key)
        if rest:
            level = known if isinstance(known, Level) else self._fields.setdefault(key, Level())
            if not isinstance(level, Level):
                raise TaskError(f"/{'/'.join(path)}: {key} is mapped as a value and as an object")
            level.add(rest, forms)
        elif isinstance(known, Level):
            raise TaskError(f"{key} is mapped as a value and as an object")
        elif known is not None and bytes in forms | known:
            raise TaskError(f"{key} is mapped as an image and as something else")
        else:
            self._fields[key] = both = forms if known is None else _both(forms, known)
            if not both - {None}:
                raise TaskError(f"{key} is mapped twice, as kinds that no value is both of")

    def keys(self) -> int:
        """Count the keys of all levels."""
        return len(self._fields) + sum(level.keys() for level in self._levels())

    def decoder(self) -> Callable[[str | bytes], Any]:
        """Return a decoder of JSON: to structs; or to dicts, slower, where a key demands it.

        It raises msgspec's DecodeError, or its ValidationError for what does not fit.
        """
        if self._is_plain():
            return msgspec.json.Decoder(self._struct()).decode
        return self._dict_decoder()

    def takers(self, paths: Sequence[Sequence[str]]) -> list[Callable[[Any], Any]]:
        """Return for each path a function that takes its value out of what was decoded."""
        if self._is_plain():
            return [self._taker(path) for path in paths]
        return [partial(_dig, path) for path in paths]

    def _levels(self) -> list[Level]:
        return [level for level in self._fields.values() if isinstance(level, Level)]

    def _is_plain(self) -> bool:
        levels = self._levels()
        return all(map(is_plain_name, self._fields)) and all(level._is_plain() for level in levels)

    def _taker(self, path: Sequence[str]) -> Callable[[Any], Any]:
        """Return what takes a value out of a struct; None where an object on the way is null."""
        key, *rest = path
        here, inner = attrgetter(f"f{list(self._fields).index(key)}"), self._fields[key]
        if not rest:
            return here
        below = inner._taker(rest)

        def take(event: Any) -> Any:
            held = here(event)
            return None if held is None else below(held)

        return take

    def _struct(self) -> type[Any]:
        fields: list[Any] = []
        for number, form in enumerate(self._fields.values()):
            name = f"f{number}"
            if isinstance(form, Level):
                inner = form._struct()
                fields.append((name, inner) if _is_required(form) else (name, inner | None, None))
            else:
                kinds = _union(form)
                fields.append((name, kinds) if _is_required(form) else (name, kinds, None))
        names = {f"f{number}": key for number, key in enumerate(self._fields)}
        return msgspec.defstruct("Event", fields, rename=names, kw_only=True, frozen=True, gc=False)

    def _dict_decoder(self) -> Callable[[Any], dict[str, Any]]:
        """Return a decoder that takes each value on its own: a TypedDict needs keys in ASCII."""
        split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        decoders: dict[str, Callable[[Any], Any]] = {
            key: form._dict_decoder()
            if isinstance(form, Level)
            else msgspec.json.Decoder(_union(form)).decode
            for key, form in self._fields.items()
        }
        required = {key for key, form in self._fields.items() if _is_required(form)}
        nullable = {key for key, form in self._fields.items() if isinstance(form, Level)} - required

        def decode(raw: Any) -> dict[str, Any]:
            found, values = split(raw), dict[str, Any]()
            for key, decoder in decoders.items():
                if key in nullable and found.get(key) == _NULL:
                    continue
                if key in found:
                    try:
                        values[key] = decoder(found[key])
                    except msgspec.ValidationError as error:
                        raise msgspec.ValidationError(f"{error} - in `{key}`") from error
                elif key in required:
                    raise msgspec.ValidationError(f"Object missing required field `{key}`")
            return values

        return decode


def is_plain_name(name: str) -> bool:
    """Return whether a struct of msgspec can call a field so."""
    return bool(_PLAIN_NAME.fullmatch(name))


def _is_required(form: Any) -> bool:
    if isinstance(form, Level):
        return any(map(_is_required, form._fields.values()))
    return not isinstance(form, frozenset) or None not in form


def _union(form: Any) -> Any:
    return reduce(or_, form) if isinstance(form, frozenset) else form


def _both(forms: Forms, others: Forms) -> Forms:
    """Return the types that fit both."""
    if ANY in (forms, others):
        both = forms | others
        forms, others = (both if each == ANY else each for each in (forms, others))
    exact = {int} & (forms | others) if float in forms & others else set()
    return forms & others | exact


def _dig(path: Sequence[str], event: Any) -> Any:
    for key in path[:-1]:
        event = event.get(key, _ABSENT)
    return event.get(path[-1])
