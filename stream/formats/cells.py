"""Cells of text as JSON, a column at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Literal

import msgspec

from headrace.stream.formats.quantities import has_decimal_commas, is_grouped

Kind = Literal["number", "string"]
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"})
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)

_CODE = re.compile(r"[+-]?0[0-9][0-9.eE+-]*", re.ASCII)
_COMMA = re.compile(r"[0-9],[0-9]", re.ASCII)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?")
_NO_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_SURE = 10  # so many cells for each that is no number make a column one of numbers
_INT_DIGITS = 18  # of an integer that every decoder reads as itself: those fit an int64
_floats = msgspec.json.Decoder(list[float])
_quoted: Callable[[str], str] = encode_basestring


def is_missing(cell: str) -> bool:
    """Return whether a cell holds no value."""
    return cell.strip() in MISSING


def column_kinds(rows: Iterable[Mapping[str, object]]) -> dict[str, Kind]:
    """Infer each column's kind: "number" where nine in ten of the cells that are there are one.

    So a few readings that failed do not turn the others into strings. A code such as "007" does,
    and so does "1,5": what "1.234" is beside it only a person, or a task, can say. Beside a column
    with decimal commas a column of cells such as "1.234" is one of strings, too: of thousands. And
    so is one of integers beyond 64 bits, which name things: as numbers they would be rounded.
    A column without any cell counts as "number": the kind that passes on whatever comes later
    unchanged.
    """
    there, others, large = Counter[str](), Counter[str](), Counter[str]()
    texts: set[str] = set()
    rows = [*rows]
    for row in rows:
        for name, cell in row.items():
            there[name] += cell is not None
            if not _is_number(cell):
                others[name] += 1
                if isinstance(cell, str) and _COMMA.search(cell):
                    texts.add(name)
            elif isinstance(cell, str) and _CODE.fullmatch(cell.strip()):
                texts.add(name)
            elif isinstance(cell, str) and len(cell) > _INT_DIGITS:
                text = cell.strip()
                large[name] += text.lstrip("+-").isdigit() and not _is_int64(text)
    doubts = others + large
    texts |= {name for name, count in there.items() if _SURE * doubts[name] > count}
    cells = {name: [row.get(name) for row in rows] for name in there}
    if any(has_decimal_commas(cells[name]) for name in texts):
        texts |= {name for name in cells if is_grouped(cells[name])}
    return {name: "string" if name in texts else "number" for name in there}


def _is_int64(digits: str) -> bool:
    return len(digits) <= _INT_DIGITS or (len(digits) <= 20 and -(2**63) <= int(digits) < 2**63)


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return bool(NUMBER.fullmatch(cell.strip()) or _NO_FINITE.fullmatch(cell.strip()))
    return cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool))


def as_json(cells: Sequence[str], kind: Kind) -> tuple[str, Sequence[str]]:
    """Return the cells of a column as JSON without line feeds: null where none is there.

    A cell that is no number in a column of numbers becomes a string.

    Returns:
        what is to be put around each, a quote or nothing, and them.
    """
    return ("", _numbers(cells)) if kind == "number" else _strings(cells)


def _numbers(cells: Sequence[str]) -> Sequence[str]:
    joined = ",".join(cells)
    try:  # if so many numbers are in it, each cell is one
        if len(_floats.decode(f"[{joined}]")) == len(cells) and _are_small(cells, joined):
            return cells
    except msgspec.DecodeError:
        pass
    return [cell if _JSON_NUMBER.fullmatch(cell) else _number(cell) for cell in cells]


def _are_small(cells: Sequence[str], joined: str) -> bool:
    return "\n" not in joined and (
        joined.count(".") == len(cells)
        or max(map(len, cells)) <= _INT_DIGITS
        or all("." in cell or "e" in cell for cell in cells if len(cell) > _INT_DIGITS)
    )


def _number(cell: str) -> str:
    text = cell.strip()
    if text in MISSING:
        return "null"
    if NUMBER.fullmatch(text):
        if text.lstrip("+-").isdigit() and _is_int64(text):
            return str(int(text))
        number = float(text)
        if abs(number) != float("inf"):
            return repr(number)
    return _quoted(cell)


def _strings(cells: Sequence[str]) -> tuple[str, Sequence[str]]:
    distinct = set(cells)
    joined = "".join(distinct)
    if len(_quoted(joined)) == len(joined) + 2 and MISSING.isdisjoint(map(str.strip, distinct)):
        return '"', cells
    table = {cell: _string(cell) for cell in distinct}
    return "", [table[cell] for cell in cells]


def _string(cell: str) -> str:
    return "null" if cell.strip() in MISSING else _quoted(cell)
