"""What is wrong with an event that does not fit its task: field, value, expectation."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.stream.errors import UsageError

LONGEST_SHOWN = 40  # characters of a value
_TYPES = {
    "null": "null",
    "bool": "a boolean",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bytes": "base64 text",
    "array": "a list",
    "object": "an object",
}
_PLACE = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_WITHIN = re.compile(r" - in `([^`]*)`$")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `(\w+)`").match
_MISSING = re.compile(r"Object missing required field `(.*)`$", re.DOTALL).match
_ITEM = re.compile(r"\[(\d+|\.\.\.)\]").match


def misfit(raw: Any, problem: str) -> str:
    """Put msgspec's words for a misfit into ours: `a.x: 'oops' is text, expected a number or null`.

    Args:
        raw: the event, which is JSON.
        problem: what msgspec says.
    """
    outer: list[str] = []
    while within := _WITHIN.search(problem):
        problem = problem[: within.start()]
        outer.append(within[1])
    found = _PLACE.search(problem)
    reason = problem[: found.start()] if found else problem
    place = "".join(f".{key}" for key in outer) + (found[1] if found else "")
    path, value = _follow(_decoded(raw), place)
    where = ".".join(path)
    if missing := _MISSING(reason):
        return f"{'.'.join((*path, missing[1]))} is missing"
    if not (told := _EXPECTED(reason)):
        return f"{where}: {reason}"
    kinds = told[1].split(" | ")
    if "float" in kinds:
        kinds = [kind for kind in kinds if kind != "int"]
    *others, last = (_TYPES.get(kind, kind) for kind in kinds)
    expected = f"{', '.join(others)} or {last}" if others else last
    is_a = _TYPES.get(told[2], told[2])
    shown = "" if told[2] in ("null", "array", "object") else f"{shortened(value)} is "
    return f"{where or 'the event'}: {shown}{is_a}, expected {expected}"


def no_object(place: str, raws: Sequence[bytes]) -> UsageError:
    """Return what to tell of rows of a file or topic, one at least, none of which is an object.

    Args:
        place: what the file or topic is called.
    """
    many = f"; so it is with all {len(raws):,} rows that were read" if len(raws) > 1 else ""
    with contextlib.suppress(msgspec.DecodeError, ValueError):  # a row of cells says itself
        said = msgspec.json.decode(raws[0], type=str)
        if said.startswith(f"{place}, "):
            return UsageError(f"{said}{many}; the first line has to name all columns")
    why = _why_no_object(raws[0])
    return UsageError(f"{place}, row 1: {why}{many}; expected an object a line")


def _why_no_object(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return f"byte 0x{raw[error.start]:02x} is not UTF-8 (at byte {error.start}); use iconv"
    try:
        msgspec.json.decode(text, type=dict[str, Any])
        return f"no JSON object: {shortened(text)}"
    except msgspec.ValidationError as error:
        return misfit(text, str(error))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return f"{error}, in {shortened(text)}"


def shortened(value: Any) -> str:
    """Return a value as Python writes it, cut to LONGEST_SHOWN characters."""
    text = repr(value[: LONGEST_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def _decoded(raw: Any) -> Any:
    """Decode an event as far as it is JSON: msgspec tells a misfit before it has read on."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _follow(value: Any, place: str) -> tuple[list[str], Any]:
    """Walk to where msgspec points, `.a.b/c[0]`; a key may itself hold dots."""
    path: list[str] = []
    while place:
        if item := _ITEM(place):
            at, place = item[1], place[item.end() :]
            whole = isinstance(value, list) and at.isdigit() and int(at) < len(value)
            value = value[int(at)] if whole else None
            path.append(f"{path.pop() if path else ''}[{at}]")
            continue
        rest = place.removeprefix(".")
        known = value if isinstance(value, dict) else {}
        key = max((k for k in known if _begins(rest, k)), key=len, default=rest)
        path.append(key)
        value, place = known.get(key), rest[len(key) :]
    return path, value


def _begins(place: str, key: str) -> bool:
    return place == key or place.startswith((f"{key}.", f"{key}["))
