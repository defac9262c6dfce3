"""Read numbers, durations and truth values that are written as texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

LONGEST = 100  # characters of a text that is a number
GROUPS = {" ": " \u00a0\u2009\u202f", "'": "'\u2019", ",": ",", ".": ".", "_": "_"}
"""What may stand for each mark between thousands."""

TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE = frozenset({"false", "f", "no", "n", "off", "0"})

Read = Callable[[str], float | None]
"""Return the number that a text says; None if it says none."""


def number_reader(decimal: str, thousands: str | None = None, unit: str | None = None) -> Read:
    """Return a function that reads numbers such as `1,234.5`, `-5 kWh`, `$ 5` or `(5.00)`.

    Args:
        decimal: the decimal mark.
        thousands: the mark between groups of digits, if there may be one.
        unit: what may stand before or after the number.
    """
    whole = "[0-9]+"
    if thousands:
        mark = f"[{re.escape(GROUPS[thousands])}]"
        whole = f"(?:[0-9]{{1,3}}(?:{mark}[0-9]{{2,3}})*{mark}[0-9]{{3}}|[0-9]+)"
    point = re.escape(decimal)
    digits = rf"(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    around = rf"(?:{re.escape(unit)})?" if unit else ""
    form = re.compile(rf"{around}\s*([+\-\u2212]?)\s*{around}\s*({digits})\s*{around}").fullmatch
    groups = {ord(mark): None for mark in GROUPS.get(thousands or "", "")}
    groups.pop(ord(decimal), None)

    def read(text: str) -> float | None:
        text = text.strip()
        if len(text) > LONGEST:  # spaces in it would be tried in every way
            return None
        credit = text[:1] == "(" and text[-1:] == ")"  # how accountants write less than nothing
        match = form(text[1:-1] if credit else text)
        if match is None or (credit and match[1]):
            return None
        number = float(match[2].translate(groups).replace(decimal, "."))
        return -number if match[1] in ("-", "\u2212") or credit else number

    return read


def duration_s(text: str) -> float | None:
    """Read a duration in seconds: `1:30:00`, `2 days 01:30:00`, `PT1H30M`, `1h30m`.

    Returns:
        None for what is none, or is not so many seconds for certain: `1:30`, `P1M`.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return None
    for form in (_CLOCK, _ISO, _PARTS):
        if match := form(text):
            found = match.groupdict()
            sign = found.pop("sign")
            parts = {name: part for name, part in found.items() if part is not None}
            if not parts:
                continue
            total = sum(
                _SECONDS[name] * float(part.replace(",", ".")) for name, part in parts.items()
            )
            return -total if sign == "-" else total
    return None


_SECONDS = {"w": 604_800.0, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_N = r"[0-9]+(?:[.,][0-9]+)?"
_CLOCK = re.compile(
    r"(?P<sign>[+-]?)(?:(?P<d>[0-9]+) days?,? )?(?P<h>[0-9]+):(?P<m>[0-5][0-9]):"
    r"(?P<s>[0-5][0-9](?:[.,][0-9]+)?)"
).fullmatch
_ISO = re.compile(
    rf"(?P<sign>[+-]?)P(?:(?P<w>{_N})W)?(?:(?P<d>{_N})D)?"
    rf"(?:T(?=[0-9])(?:(?P<h>{_N})H)?(?:(?P<m>{_N})M)?(?:(?P<s>{_N})S)?)?"
).fullmatch
_PARTS = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<d>{_N}) ?d ?)?(?:(?P<h>{_N}) ?h ?)?(?:(?P<m>{_N}) ?m(?:in)? ?)?"
    rf"(?:(?P<s>{_N}) ?s ?)?(?:(?P<ms>{_N}) ?ms ?)?(?:(?P<us>{_N}) ?(?:us|µs))?"
).fullmatch


def truth(text: str) -> bool | None:
    """Read a truth value: `yes`, `t`, `on`, `0`, in any case; None for what is none."""
    word = text.strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def nothing(text: str) -> float | None:
    """Read no text as a number."""
    return None


_LITERAL = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b')


def without_literals(raw: bytes) -> tuple[bytes, int]:
    """Put null for each NaN and Infinity that is no JSON; return also how many there were."""
    count = 0

    def replaced(match: re.Match[bytes]) -> bytes:
        nonlocal count
        if match[0].startswith(b'"'):
            return match[0]
        count += 1
        return b"null"

    return _LITERAL.sub(replaced, raw), count


def has_decimal_commas(cells: Iterable[object]) -> bool:
    """Return whether all texts among the cells of a column are such as `1,5` or `12`."""
    return _all(cells, re.compile(r"[+-]?[0-9.]*,[0-9]*|[+-]?[0-9]+").fullmatch, ",")


def is_grouped(cells: Iterable[object]) -> bool:
    """Return whether all texts are such as `1.234`, which beside decimal commas is a thousand."""
    form = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+|[+-]?[0-9]{1,3}").fullmatch
    return _all(cells, form, ".")


def _all(cells: Iterable[object], form: Callable[[str], object], mark: str) -> bool:
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    return any(mark in text for text in texts) and all(map(form, texts))
