"""Guess what a column is from the values of a sample, and say what is not plain about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from headrace.stream.evaluation.numbers_in_text import Written, written
from headrace.stream.formats.codec import MAX_DEPTH
from headrace.stream.formats.quantities import duration_s, truth
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.formats.times import LONGEST, day_or_month_first, time_ms

LARGEST_QUANTITY = 10**15  # whole numbers beyond it name things
WORDS_OF_A_TEXT = 3  # on average
MANY = 50  # values, from which on their being different from each other says something
_EARLIEST_MS, _LATEST_MS = -2_208_988_800_000, 4_102_444_800_000  # as of input.earliest, .latest
_COMPACT = {8: "YYYYMMDD", 10: "YYYYMMDDHH", 12: "YYYYMMDDHHMM", 14: "YYYYMMDDHHMMSS"}


_NAME = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*"
_DATE = rf"[0-9]{{1,4}}([-/.])(?:[0-9]{{1,2}}|{_NAME})\1[0-9]{{1,4}}|(?:19|20)[0-9]{{2}}|{_NAME}\.?"
_DATE_WORD = re.compile(_DATE, re.IGNORECASE).fullmatch
_CLOCK_WORD = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}T|[0-9]{1,2}/[A-Za-z]{3}/[0-9]{4}:)?"
    r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:[+-][0-9:]+)?(?:\[[\w/]+\])?"
).fullmatch
_BESIDE = re.compile(r"[0-9]{1,2}|[A-Z]{2,5}|[AaPp]\.?[Mm]\.?|[+-][0-9]{2}:?[0-9]{2}").fullmatch
_TIMES = re.compile(r"time|date|stamp|_(at|ts|ns|us)$|^ts$").search


class Guess(NamedTuple):
    """Say what a column is.

    Attributes:
        form: the keys of its feature; {} for one that is left out.
        told: why it is left out, or what a person should know of how it is read; "" for nothing.
        otherwise: of one that is left out, the keys to begin with if it is to be used.
    """

    form: dict[str, Any]
    told: str = ""
    otherwise: Mapping[str, Any] = MappingProxyType({"kind": "category"})


def feature(values: Sequence[Any], decimal: str | None = None, name: str = "") -> Guess:
    """Guess what a column is whose values are None where an event lacks it.

    Args:
        name: of the column, which is asked whether large numbers are times, and named to be one.
        decimal: the decimal mark, where the texts of the column do not show it.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Guess({}, f"empty in all {len(values):,} rows sampled", {"kind": "number"})
    if any(isinstance(value, dict) for value in known):
        return Guess({}, _of_objects(known))
    if any(isinstance(value, list) for value in known):
        return _of_lists(known)
    if not any(isinstance(value, str | bool) for value in known):
        return _of_numbers(known, name)
    if any(isinstance(value, str) for value in known):
        return _of_texts(known, decimal, name)
    return Guess({"kind": "category"})


def _of_objects(known: Sequence[Any]) -> str:
    objects = [value for value in known if isinstance(value, dict)]
    if len(objects) < len(known):
        return f"an object in {_share(len(objects), len(known))}, something else in the others"
    if not any(objects):
        return "empty objects"
    return f"objects nested deeper than {MAX_DEPTH} levels, which are refused"


def _of_lists(known: Sequence[Any]) -> Guess:
    parts = [part for value in known if isinstance(value, list) for part in value]
    if any(isinstance(part, dict | list) for part in parts):
        what = "lists of lists" if any(isinstance(p, list) for p in parts) else "lists of objects"
        return Guess({}, f"{what}: expected single values, or lists of names")
    if any(isinstance(part, float) for part in parts):
        return Guess({}, 'lists of numbers: a feature of kind "encoded" can read them')
    return Guess({"kind": "category", "several": True})


def _of_numbers(known: Sequence[float], name: str) -> Guess:
    number = {"kind": "number"}
    whole = all(isinstance(value, int) for value in known)
    if whole and max(map(abs, known)) > LARGEST_QUANTITY:
        if _TIMES(name.lower()) and all(in_range(time_ms(value)) for value in known):
            return Guess({}, f"Unix times; if they are the events' own: --time {name}", number)
        return _of_names([str(value) for value in known], "whole numbers beyond 1e15 name things")
    if compact := compact_dates(known):
        return Guess({}, f"dates as numbers ({compact}); write them as texts for --time", number)
    return Guess(number)


def _of_texts(known: Sequence[Any], decimal: str | None, name: str) -> Guess:
    texts = [value for value in known if isinstance(value, str)]
    truths = all(truth(scalar_text(value)) is not None for value in known)
    if truths and not all(value.strip().isdigit() for value in texts):
        return Guess({"kind": "category", "boolean": True})
    said = written(known, decimal)
    if said.is_number:
        return _of_written_numbers(known, said)
    if (share := share_of(texts, duration_s)) >= 0.9 and len(texts) == len(known):
        codes = _codes(texts, duration_s)
        if len(codes) <= 10:
            missing = {"missing": codes} if codes else {}
            told = f"{_percent(share)} durations, {_missing(codes)}" if codes else ""
            return Guess({"kind": "number", "duration": True, **missing}, told)
    if share_of(texts, any_time) >= 0.9:
        own = f"; if they are the events' own: --time {name}" if name else ""
        return Guess({}, f'dates such as "{_cut(texts[0])}"{own}')
    if share_of(texts, _unread_time) >= 0.9:
        return Guess(
            {}, f'times such as "{_cut(texts[0])}", which are not read; write 2026-01-31T12:30:00Z'
        )
    if all(re.fullmatch(r"-?[0-9]{1,3}:[0-9]{2}", text.strip()) for text in texts):
        return Guess(
            {},
            f'"{_cut(texts[0])}" is hours and minutes, or minutes and seconds; write 1:30:00 or '
            "0:01:30",
        )
    if sum(len(text.split()) for text in texts) / len(texts) >= WORDS_OF_A_TEXT:
        if len(texts) == len(known):
            return Guess({"kind": "text"})
        return Guess(
            {},
            f"texts, but {len(known) - len(texts):,} of {len(known):,} values are "
            "numbers or booleans, which a text feature refuses",
        )
    return _of_names([scalar_text(value) for value in known], said.why or _mixed(known, said))


def _of_written_numbers(known: Sequence[Any], said: Written) -> Guess:
    keys, told = said.keys, said.why
    numbers = [value for value in known if isinstance(value, str) and value.strip().isdigit()]
    if numbers and any(len(value.strip()) > 15 for value in numbers):
        return _of_names([scalar_text(value) for value in known], "numbers of more than 15 digits")
    if said.codes:
        told = f"{_percent(said.share)} numbers, {_missing(said.codes)}" + (told and f"; {told}")
    return Guess({"kind": "number", **keys}, told)


def _of_names(texts: Sequence[str], why: str) -> Guess:
    """Return what a column of names is: nothing, if they only name the rows."""
    distinct = len(set(texts))
    if len(texts) > MANY and distinct > 0.9 * len(texts):
        told = f"{distinct:,} different values in {len(texts):,} rows name the rows"
        return Guess({}, f"{why}; {told}" if why else told)
    return Guess({"kind": "category"}, f"{why}; read as a category" if why else "")


def _mixed(known: Sequence[Any], said: Written) -> str:
    plain = sum(not isinstance(value, str | bool) for value in known)
    share = max(said.share, plain / len(known))
    if share < 0.5:
        return ""
    other = said.other or next(value for value in known if isinstance(value, str))
    return f'only {_percent(share)} numbers, others such as "{_cut(other)}"'


def any_time(text: str) -> bool | None:
    """Return whether a text is a time, with the day or the month first; None if it is none."""
    if day_or_month_first(text):
        return any(in_range(time_ms(text, dayfirst=first)) for first in (True, False)) or None
    return (not text.strip().isdigit() and in_range(time_ms(text))) or None


def _unread_time(text: str) -> bool | None:
    """Return whether a text that is no time holds a date, a clock, and no other words."""
    if len(text := text.strip()) > LONGEST:
        return None
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    words = re.split(r"[\s,]+", text)
    clocks = [match for word in words if (match := _CLOCK_WORD(word))]
    dates = [word for word in words if _DATE_WORD(word)]
    known = sum(bool(_CLOCK_WORD(w) or _DATE_WORD(w) or _BESIDE(w)) for w in words)
    return (bool(clocks and (dates or clocks[0]["date"])) and known == len(words)) or None


def compact_dates(known: Sequence[float]) -> str:
    """Return the form of numbers that are all dates, such as YYYYMMDD; "" if they are none."""
    if not all(isinstance(value, int) for value in known):
        return ""
    lengths = {len(str(value)) for value in known}
    form = _COMPACT.get(max(lengths), "") if len(lengths) == 1 else ""
    for digits in map(str, known if form else ()):
        clock = digits[8:].ljust(6, "0")
        day = f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        if not ("1900" <= digits[:4] < "2100") or time_ms(day) != time_ms(day):
            return ""
    return form


def share_of(texts: Sequence[str], read: Any) -> float:
    """Return the share of texts that can be read."""
    return sum(read(text) is not None for text in texts) / len(texts)


def _codes(texts: Sequence[str], read: Any) -> list[str]:
    counts = Counter(text.strip() for text in texts if read(text) is None)
    return [text for text, _ in counts.most_common()]


def _missing(codes: Sequence[str]) -> str:
    names = [f'"{_cut(code)}"' for code in codes]
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} others"]
    if len(names) == 1:
        return f"{names[0]} counts as missing"
    return f"{', '.join(names[:-1])} and {names[-1]} count as missing"


def in_range(moment_ms: float) -> bool:
    """Return whether a moment is one that a task takes by default."""
    return _EARLIEST_MS <= moment_ms < _LATEST_MS


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} rows"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share < 0.995 else f"{share:.1%}".replace("%", " %")


def _cut(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"
