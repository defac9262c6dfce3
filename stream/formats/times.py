"""Read the time of an event, however it is written, as milliseconds since 1970 UTC."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 64  # characters of a text that is a time
# A Unix time from here on counts milliseconds, microseconds, nanoseconds: the years 5138 and 1973.
_UNITS_FROM = ((1e17, 1e6), (1e14, 1e3), (1e11, 1.0))

_SIGNS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":", 19: "Z"}  # of 2024-05-01T12:30:00Z
_NO_SIGNS = str.maketrans("", "", "".join(_SIGNS.values()))

_CLOCK = (
    r"(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d+))?)?(?: ?(?P<half>[ap])\.?m\.?)?"
)
_ZONE = r"(?: ?(?P<zone>[+-]\d\d(?::?\d\d)?|[a-z]{1,3})(?: \([a-z ]+\))?)?"
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = r"(?P<name>" + "|".join(_MONTHS) + r")[a-z]{0,6}\.?"
_DAY = r"(?:[a-z]{3,9},? +)?"  # of the week, which says nothing new
_AFTER = rf"(?:(?:t|,? +|:){_CLOCK})?{_ZONE}"
_FORMS = [
    re.compile(form, re.ASCII | re.IGNORECASE).fullmatch
    for form in (
        rf"(?P<y>\d{{4}})(?P<s>[-/.])(?P<m>\d\d?)(?:(?P=s)(?P<d>\d\d?)){_AFTER}",
        r"(?P<y>\d{4})-(?P<m>\d\d)",
        rf"(?P<y>\d{{4}})(?P<m>\d\d)(?P<d>\d\d)[t ]?(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)?{_ZONE}",
        rf"{_DAY}(?P<d>\d\d?)[ /-]{_MONTH}[ /-](?P<y>\d{{4}}){_AFTER}",  # RFC 2822, Apache's
        rf"{_DAY}{_MONTH} +(?P<d>\d\d?),? (?P<y>\d{{4}}){_AFTER}",
        rf"{_DAY}{_MONTH} +(?P<d>\d\d?) {_CLOCK}{_ZONE} (?P<y>\d{{4}})",  # C's asctime
    )
]
_UNORDERED = re.compile(
    rf"(?P<a>\d\d?)(?P<s>[-/.])(?P<b>\d\d?)(?P=s)(?P<y>\d{{4}}|\d\d){_AFTER}",
    re.ASCII | re.IGNORECASE,
).fullmatch
_HOURS = {"z": 0, "ut": 0, "utc": 0, "gmt": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5}
_HOURS |= {"mst": -7, "mdt": -6, "pst": -8, "pdt": -7}  # all that RFC 2822 knows


def time_ms(value: Any, dayfirst: bool | None = None) -> float:
    """Read an event time: a text, or Unix time in s, ms, µs or ns, told apart by size.

    A text is ISO 8601 (RFC 3339) with what is usual beside it (`2026/1/2 3:04 pm`, `T24:00:00`, a
    leap second as the second after it), RFC 2822, or a Unix time in digits. No offset = UTC.

    Args:
        dayfirst: whether 03/04/2026 is the third of April; None: it is no time.

    Returns:
        whole milliseconds since 1970 UTC, or NaN for what is not a time.
    """
    try:
        if not isinstance(value, str):
            return float(round(_milliseconds(float(value))))
        if len(value) < 12 or not value.isdecimal():  # Python would read 13 digits as a date
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    if not isinstance(value, str) or len(value) > LONGEST:
        return math.nan
    try:
        return _other_text(value.strip(), dayfirst)
    except (ValueError, OverflowError):
        return math.nan


def times_ms(times: Sequence[Any], dayfirst: bool | None = None) -> NDArray[np.float64]:
    """Return times, each as `time_ms` reads it: at once if all look like 2024-05-01T12:30:00Z."""
    if set(map(type, times)) == {str} and set(map(len, times)) == {20}:
        joined = "".join(times)
        digits = joined.translate(_NO_SIGNS)
        if (
            all(joined[at::20] == sign * len(times) for at, sign in _SIGNS.items())
            and len(digits) == (20 - len(_SIGNS)) * len(times)
            and (digits.isascii() and digits.isdecimal() and "0000-" not in joined)
        ):
            with suppress(ValueError):  # no such day
                without_zone = np.frombuffer(joined.encode(), "S20").astype("S19")
                seconds = without_zone.astype("datetime64[s]")
                return (seconds.astype(np.int64) * 1000).astype(np.float64)
    return np.array([time_ms(value, dayfirst) for value in times])


def unix_ms(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Unix times, each as `time_ms` reads it."""
    size, found = np.abs(times), times * 1000
    if np.any(size >= _UNITS_FROM[-1][0]):
        for (least, unit), (most, _) in zip(
            reversed(_UNITS_FROM), [*_UNITS_FROM[-2::-1], (np.inf, 0.0)], strict=True
        ):
            found = np.where((size >= least) & (size < most), times / unit, found)
    return np.rint(found)


def unit_of(value: float) -> float:
    """Return how many of a Unix time's units a second has."""
    return next((1000 * unit for least, unit in _UNITS_FROM if abs(value) >= least), 1.0)


def day_or_month_first(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a date as 03/04/2026; None for what is none."""
    match = _UNORDERED(text.strip()) if len(text) <= LONGEST else None
    return (int(match["a"]), int(match["b"])) if match else None


def _milliseconds(value: float) -> float:
    for least, unit in _UNITS_FROM:
        if abs(value) >= least:
            return value / unit
    return value * 1000


def _other_text(text: str, dayfirst: bool | None) -> float:
    """Read what Python's own ISO 8601 does not; raise ValueError for a date that there is not."""
    for form in _FORMS:
        if match := form(text):
            found = match.groupdict()
            month = found.get("m") or 1 + _MONTHS.index(found["name"].lower())
            return _moment(int(found["y"]), int(month), int(found.get("d") or 1), found)
    if match := _UNORDERED(text):
        if dayfirst is None:
            return math.nan
        day, month = (match["a"], match["b"]) if dayfirst else (match["b"], match["a"])
        year = int(match["y"])
        if len(match["y"]) == 2:  # as POSIX takes them
            year += 1900 if year > 68 else 2000
        return _moment(year, int(month), int(day), match.groupdict())
    if _UNIX(text):
        return float(round(_milliseconds(float(text))))
    return math.nan


_UNIX = re.compile(r"[+-]?[0-9]{9,19}(\.[0-9]{1,9})?", re.ASCII).fullmatch


def _moment(year: int, month: int, day: int, found: dict[str, str | None]) -> float:
    hour, minute, second = (int(found.get(part) or 0) for part in "HMS")
    if half := found.get("half"):
        if not 1 <= hour <= 12:
            return math.nan
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    midnight = (hour, minute, second) == (24, 0, 0)
    leap = (minute, second) == (59, 60)
    if not (hour < 24 or midnight) or minute > 59 or not (second < 60 or leap):
        return math.nan
    zone = (found.get("zone") or "z").lower()
    if zone[0] in "+-":
        away = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].strip(":") or 0))
        away = -away if zone[0] == "-" else away
    elif zone in _HOURS:
        away = timedelta(hours=_HOURS[zone])
    else:
        return math.nan
    start = datetime(year, month, day, tzinfo=timezone(away)).timestamp()
    part = float(f"0.{found.get('f') or 0}")
    return float(round((start + 3600 * hour + 60 * minute + second + part) * 1000))
