"""Find the columns that say who, when and which: id, time and entity of an event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import guess
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.formats.times import day_or_month_first, time_ms
from headrace.stream.task.field_path import pointer
from headrace.stream.task.quantity import READING
from headrace.stream.task.schema import LONGEST_ID

ID_NAMES = {"id", "event_id", "uuid", "_id"}
TIME_NAMES = {"time", "timestamp", "ts", "datetime", "date", "created_at", "event_time"}
TIME_NAMES |= {"@timestamp", "date_time", "event_timestamp", "timestamp_ms", "date/time"}
SECONDS_FROM = 1e8  # 1973: smaller numbers are rather something else
REPEATED = 0.01  # share of the rows with an id of another row, up to which it is an id

_ZONED = re.compile(
    r".*\d(?: ?[+-]\d\d(?::?\d\d)?| ?(?![ap]m$)[a-z]{1,3}(?: \([a-z ]+\))?)", re.I | re.ASCII
).fullmatch

_SCALARS = (str, int, float)
Found = tuple[dict[str, Any], list[str]]


def find(
    columns: Mapping[str, Sequence[Any]],
    target: str,
    time: str | None,
    entity: str | None,
    dayfirst: bool | None,
) -> Found:
    """Return the keys of `[input]` that name columns and say how times are read; and lines.

    Args:
        time, entity: the columns with these roles, as somebody named them.

    Raises:
        UsageError: what was named holds no times.
    """
    keys, told = _identity(columns, {target, time, entity})
    if entity:
        keys["entity"] = entity
    more: list[str] = []
    if time:
        form, more = _time(time, columns[time], dayfirst, named=True)
        keys |= form
    else:
        others = (c for c in columns if c not in (target, entity, keys.get("id")))
        for column in others:
            if pointer(column)[-1].lower() in TIME_NAMES:
                form, more = _time(column, columns[column], dayfirst, named=False)
                if form:
                    keys |= form
                    break
                told += more
                more = []
    return keys, told + more


def zones_told(column: str, values: Sequence[Any]) -> list[str]:
    """Return a line if some times of a column name a zone, and others none."""
    texts = [value for value in values if isinstance(value, str) and ":" in value]
    bare = sum(not _ZONED(text.strip()) for text in texts)
    if not 0 < bare < len(texts):
        return []
    return [f"{column}: {bare:,} of {len(texts):,} times name no zone, and count as UTC"]


def header_told(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a line if the names of columns seem to be the first row of a file without names."""
    named = [
        column
        for column, values in columns.items()
        if sum(scalar_text(v) == column for v in values if isinstance(v, _SCALARS)) > 1
    ]
    if not named:
        return []
    which = f"{', '.join(named[:5])}: {'a name that is' if len(named) == 1 else 'names that are'}"
    return [f"{which} also a value there: if the first line is a row, add a line of names"]


def reading(part: Any) -> str:
    """Say in brackets how texts of a feature or a target are read; "" if there are none."""
    said = [
        f"{key} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for key in READING
        if (value := getattr(part, key, None)) and key != "duration"
    ]
    if getattr(part, "duration", False):
        said.append("duration in s")
    if getattr(part, "boolean", False):
        said.append("yes or no")
    return f" ({'; '.join(said)})" if said else ""


def _identity(columns: Mapping[str, Sequence[Any]], taken: set[str | None]) -> Found:
    """Return the column of ids, if there is one that tells events apart."""
    told: list[str] = []
    for column in columns:
        if pointer(column)[-1].lower() not in ID_NAMES or column in taken:
            continue
        values = columns[column]
        wrong = sum(not _is_id(value) for value in values)
        distinct = len(set(map(str, values)))
        rows = f"{len(values):,} rows"
        if wrong > REPEATED * len(values):
            told.append(
                f"{column}: {wrong:,} of {rows} have no id of 1 to {LONGEST_ID} characters there; "
                "not used as input.id"
            )
        elif len(values) - distinct > REPEATED * len(values):
            default = column == "id"  # which is what input.id is by default
            done = (
                "so none is refused as a duplicate (recent_ids = 0)"
                if default
                else ("not used as input.id")
            )
            told.append(
                f"{column}: {distinct:,} different values in {rows} do not tell events apart: "
                f"{done}; if it says what an event is about: --entity {column}"
            )
            if default:
                return {"id": "id", "recent_ids": 0}, told
        else:
            if distinct < len(values):
                more = f"{len(values) - distinct:,} of {rows} repeat the id of another row"
                told.append(f"{column}: {more} and are refused as duplicates")
            return {"id": column}, told
    return {}, told


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_ID
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _time(column: str, values: Sequence[Any], dayfirst: bool | None, *, named: bool) -> Found:
    """Return the keys for a column of times, none if it is no such column."""
    known = [value for value in values if value is not None]
    order, doubt = _order(known, dayfirst)
    good = [value for value in known if guess.in_range(_ms(value, order))]
    bad = next((value for value in known if not guess.in_range(_ms(value, order))), None)
    keys: dict[str, Any] = {"time": column} | ({} if order is None else {"dayfirst": order})
    why = ""
    if dayfirst is not None and (other := _against(known, dayfirst)):
        option, place = ("--dayfirst", "month") if dayfirst else ("--no-dayfirst", "day")
        raise UsageError(f"{option}: {column} has {other[:40]!r}, where the {place} stands first")
    if compact := guess.compact_dates(known):
        why = f"numbers such as {known[0]} are dates ({compact}): write them as texts, 2026-01-31"
    elif len(good) < 0.9 * len(values):
        said = f"{str(bad)[:40]!r} is none" if bad is not None else "many are empty"
        why = f"{len(good):,} of {len(values):,} are times, {said}; expected ISO 8601, RFC 2822 or "
        why += "Unix times" + ("; name another column" if named else "")
    elif (
        all(isinstance(value, int | float) for value in known)
        and not all(abs(value) > SECONDS_FROM for value in known)
        and not (named and _grows(known))
    ):
        why = f"numbers such as {known[0]} are no Unix times, which count seconds since 1970"
        why += "; name another column" if named else ""
    if why and named:
        raise UsageError(f"--time {column}: {why}")
    if why:
        return {}, [f"{column}: {why}; not used as input.time"]
    return keys, [f"{column}: {doubt}"] if doubt else []


def _ms(value: Any, dayfirst: bool | None) -> float:
    return time_ms(value, dayfirst) if isinstance(value, str | int | float) else float("nan")


def _grows(values: Sequence[float]) -> bool:
    steps = [later >= value for value, later in pairwise(values)]
    return sum(steps) >= 0.9 * len(steps) and values[-1] > values[0] >= 0


def _is_even(values: Sequence[float]) -> bool:
    return len({later - value for value, later in pairwise(values)}) == 1


def _against(values: Sequence[Any], dayfirst: bool) -> str | None:
    """Return a date that is one in the other order alone, if none is one in this order alone."""
    alone: dict[bool, str] = {}
    for text in values:
        if isinstance(text, str) and day_or_month_first(text):
            first, last = (guess.in_range(_ms(text, order)) for order in (True, False))
            if first != last:
                alone.setdefault(first, text)
    return None if dayfirst in alone else alone.get(not dayfirst)


def _order(values: Sequence[Any], dayfirst: bool | None) -> tuple[bool | None, str]:
    """Return whether the day stands first in dates as 03/04/2026, and what is not sure about it."""
    texts = [value for value in values if isinstance(value, str)]
    pairs = [pair for text in texts if (pair := day_or_month_first(text))]
    if not pairs:
        return None, ""
    first, second = any(a > 12 for a, _ in pairs), any(b > 12 for _, b in pairs)
    if dayfirst is not None or first != second:
        return (first if dayfirst is None else dayfirst), ""
    example = next(text for text in texts if day_or_month_first(text))
    moments = [[_ms(text, order) for text in texts] for order in (True, False)]
    for tells in (_grows, _is_even):
        if tells(moments[0]) != tells(moments[1]):
            return tells(moments[0]), ""
    order = "." in example.split()[0]
    how = "the day first" if order else "the month first"
    other = "--no-dayfirst" if order else "--dayfirst"
    return order, f'dates such as "{example[:40]}" are read with {how}; if not, {other}'
