"""How a text file lays out its columns, found out from its first lines; never by a coin toss."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headrace.stream.errors import UsageError
from headrace.stream.formats.cells import NUMBER, is_missing
from headrace.stream.formats.places import Place
from headrace.stream.formats.unpack import MOST_ROW_BYTES, SUFFIXES

_BY_NAME = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_ANY = (",", ";", "\t", "|")
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
_SAID = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)  # for Excel, before the header
_SAMPLE_LINES = 100
csv.field_size_limit(max(csv.field_size_limit(), MOST_ROW_BYTES))


class Dialect(NamedTuple):
    """Say how a file separates cells.

    Attributes:
        delimiter: one character; " " is any run of spaces and tabs.
        skipped: lines before the first row of cells: comments, blank lines, perhaps the header.
        names: of the columns, each once.
        guessed: whether that they are not separated by commas comes from the lines alone.
        commented: whether there are comments among those lines; then there may be more.
        in_comment: whether the last comment is the header.
    """

    delimiter: str
    skipped: int
    names: tuple[str, ...]
    guessed: bool = False
    commented: bool = False
    in_comment: bool = False

    def describe(self) -> str:
        """Return in words what is not plain CSV; "" where nothing is worth a word."""
        told = [f"columns separated by {_WORDS[self.delimiter]}"] if self.guessed else []
        if self.skipped:
            what = ", the last of them as the header" if self.in_comment else ""
            told.append(
                f"{self.skipped} line{'s'[: self.skipped > 1]} before the rows left out{what}"
            )
        return ", ".join(told)


def dialect_of(place: Place, head: str) -> Dialect:
    """Find out how a file separates its cells, and what its columns are called.

    Args:
        head: how the file begins: whole lines, unless that is all of it.

    Raises:
        UsageError: it may be read in more than one way, or has no header.
    """
    lines = list(lines_of(head))
    first = _first_row(place, lines, 0)
    if said := _SAID.fullmatch(lines[first].rstrip("\r\n")):
        first = _first_row(place, lines, first + 1)
    sample = lines[first : first + _SAMPLE_LINES]
    named = Path(_bare(place.path)).suffix
    delimiter = said[1] if said else _BY_NAME.get(named) or _delimiter(place, sample)
    guessed = named not in _BY_NAME and delimiter != ","
    try:
        cells = next(records(sample, delimiter))
    except csv.Error as error:
        raise UsageError(
            f"{place}: line {first + 1} is not CSV ({error}); is a quote left open?"
        ) from error
    comment = lines[first - 1] if first and lines[first - 1][0] == "#" else ""
    if comment and (told := _commented(place, first, comment, cells, delimiter)):
        return Dialect(delimiter, first, _names(place, told), guessed, True, in_comment=True)
    commented = any(line[0] == "#" for line in lines[:first])
    return Dialect(delimiter, first, _names(place, cells), guessed, commented)


def _first_row(place: Place, lines: Sequence[str], start: int) -> int:
    for at in range(start, len(lines)):
        if lines[at].strip() and lines[at][0] != "#":
            return at
    raise UsageError(f"{place}: no rows; expected a line of column names, and rows")


def records(lines: Iterable[str], delimiter: str) -> Any:
    """Return the cells of each record; of a blank line none.

    It is the reader of Python's csv, and raises csv.Error where quotes are not as they must be.
    """
    if delimiter == " ":
        lines = (" ".join(line.split()) for line in lines)
    # strict: a quote that is left open would swallow the rows after it.
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _bare(path: str) -> str:
    name = path.lower()
    for end in SUFFIXES:
        name = name.removesuffix(end)
    return name


def _delimiter(place: Place, sample: Sequence[str]) -> str:
    header = re.sub(r'"[^"]*"', "", sample[0])
    there = [each for each in _ANY if each in header]
    if len(there) < 2:
        return there[0] if there else _spaced(sample)
    widths = {each: _widths(sample, each) for each in there}
    even = [each for each in there if len(set(widths[each])) == 1]
    if len(even) == 1:
        return even[0]
    if not even:  # rows that do not fit are refused one by one: one way has to fit most of them
        most = {e: Counter(widths[e]).get(widths[e][0] if widths[e] else 0, 0) for e in there}
        best = max(there, key=most.__getitem__)
        if 2 * most[best] > len(sample) and all(most[e] < most[best] for e in there if e != best):
            return best
    told = " or by ".join(f"{_WORDS[e]} ({header.count(e) + 1} of them)" for e in even or there)
    raise UsageError(
        f"{place}: columns may be separated by {told}: the first lines fit more than one, or none; "
        "name the file .tsv (tabs) or .psv (bars), or put cells that hold the other into quotes"
    )


def _widths(sample: Sequence[str], delimiter: str) -> list[int]:
    found: list[int] = []
    try:
        for cells in records(sample, delimiter):
            if cells and not (cells[0].startswith("#") and found and len(cells) != found[0]):
                found.append(len(cells))
    except csv.Error:  # the last record may be cut off
        pass
    return found


def _spaced(sample: Sequence[str]) -> str:
    """Take spaces for separators where all lines have the same number of words, two or more."""
    widths = _widths(sample, " ")
    return " " if len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1 else ","


def _commented(
    place: Place, line: int, comment: str, cells: Sequence[str], delimiter: str
) -> list[str]:
    """Return the names that a comment holds; [] if the names follow it."""
    told: list[str] = next(records([comment.lstrip("#").strip()], delimiter), [])
    if len(told) != len(cells) or len(cells) < 2:
        return []
    if any(is_missing(cell) or NUMBER.fullmatch(cell.strip()) for cell in cells):
        return told
    raise UsageError(
        f"{place}: line {line} may be a comment, or hold the names of the columns; remove the # "
        "if it does, and the line if it does not"
    )


def _names(place: Place, cells: Sequence[str]) -> tuple[str, ...]:
    names = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, 1)]
    if all(NUMBER.fullmatch(name) for name in names):
        raise UsageError(
            f"{place}: the first line holds numbers, not column names; add a header line"
        )
    return each_once(place, names)


def each_once(place: Place, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns if no two are alike.

    Raises:
        UsageError: two columns have one name.
    """
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{place}: two columns are called {double[0]!r}; rename one")
    return tuple(names)


def lines_of(text: str) -> Iterator[str]:
    """Return the lines of a text with their ends, as csv has to be given them."""
    return io.StringIO(text, newline="")
