"""Read the rows of a user's own files as JSON events, whatever form they have.

Text of cells (CSV, TSV, other separators), JSON (lines, an array), Parquet, Arrow IPC, Avro and
workbooks; compressed or not; from paths, globs, standard input and URLs. A file is known by its
name or, where that says nothing, by its content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from headrace.stream.errors import UsageError
from headrace.stream.formats import tables
from headrace.stream.formats.cells import MISSING, Kind, column_kinds
from headrace.stream.formats.delimited import SAMPLE_ROWS, Delimited
from headrace.stream.formats.json_rows import are_lines, json_rows, lines_later
from headrace.stream.formats.misfits import no_object
from headrace.stream.formats.numbering import Numbering
from headrace.stream.formats.places import Given, Place, called, names_files, places, stem
from headrace.stream.formats.quantities import without_literals
from headrace.stream.formats.unpack import SUFFIXES, chunks, head_of, open_unpacked, packing

__all__ = [
    "MISSING",
    "SAMPLE_ROWS",
    "Given",
    "Kind",
    "called",
    "column_kinds",
    "names_files",
    "places",
    "stem",
]

Form = Literal["csv", "json", "parquet", "arrow", "avro", "workbook"]
_Item = TypeVar("_Item")

_FORMS: dict[str, Form] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".arrows", ".feather", ".ipc"), "arrow"),
    **dict.fromkeys((".xlsx", ".xlsm"), "workbook"),
    ".avro": "avro",
}
_MAGIC: tuple[tuple[bytes, Form], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
    (b"Obj\x01", "avro"),
    (b"PK\x03\x04", "workbook"),
    (b"{", "json"),
    (b"[", "json"),
)
_HEAD_BYTES = 4 << 20  # that say how long lines are; less is read in no time
_WHOLE: frozenset[Form] = frozenset({"parquet", "workbook"})  # read from their ends
_FORWARD: frozenset[Form] = frozenset({"csv", "json"})  # never read from their ends


def read(
    given: Given, columns: Mapping[str, Kind] | None = None, number: str = ""
) -> Iterator[bytes]:
    """Yield one JSON object per row as UTF-8 bytes, files in the order given, rows in theirs.

    Cells of text are numbers or strings: of a column that `columns` does not name this is inferred
    from the first 1,000 rows of its file. Missing cells become null; a cell that is no number in a
    column of numbers stays a JSON string. Blank lines, and comments in a file that begins with
    one, are no rows. A row of text with more or fewer cells than the header, or with broken quotes,
    comes as a JSON text that says so and where: no event, so that it is refused. JSON comes out
    byte for byte, also what is broken. Infinite numbers of typed files become null.

    Args:
        number: a field, which no row has, that each is to get its number in, from 0; "" for none.

    Raises:
        UsageError: no such file, unknown form, an empty, broken or ambiguous file, no such column,
            or files with other columns than the first.
        StoreError: a URL cannot be reached.
    """
    files = _files(given)
    for file in files:
        file.check(columns or {})
    known = files[0].names
    for file in files[1:]:
        if known is not None and file.names is not None and set(known) ^ set(file.names):
            [odd, *_] = sorted(set(known) ^ set(file.names))
            has, lacks = (files[0], file) if odd in known else (file, files[0])
            raise UsageError(
                f"{lacks.place}: no column {odd!r}, which {has.place} has; give files with the "
                "same columns"
            )
    numbering = Numbering(number) if number else None
    first = _guarded(files[0].place, files[0].rows(columns or {}, numbering))
    others = (file.rows(columns or {}, numbering) for file in files[1:])
    return chain(first, chain.from_iterable(others))


def read_on(given: Given) -> None:
    """Say that what `read` gave so far is all that will be read: see `Place.read_on`."""
    for file in _files(given):
        if file.form in _FORWARD:
            file.place.read_on()


def later(given: Given, rows: int) -> Iterator[bytes]:
    """Yield so many rows of the middle, and of the end, of a long input, as `read` does.

    Of several files these are the beginnings of one in the middle, and of the last; of a Parquet
    file those of two row groups. There are none of what is compressed, or can be read but once.
    """
    files = _files(given)
    if len(files) > 1:
        for file in dict.fromkeys((len(files) // 2, len(files) - 1)):
            yield from islice(files[file].rows({}), rows)
    else:
        yield from files[0].later(rows)


def sample(given: Given, rows: int = SAMPLE_ROWS) -> list[dict[str, object]]:
    """Return the first rows as they are: cells of text as such, missing ones as None.

    What holds no object is left out: `read` passes it on, for others to reject.

    Raises:
        UsageError: as `read`; also if there is no object among the first rows.
    """
    [first, *_] = _files(given)
    if first.form == "csv":
        found = first.text.sample(rows)
    else:
        found = list(objects(islice(read(given), rows)))
    if not found:
        first.check({})
        raise no_object(str(first.place), [*islice(read(given), rows)])
    return found


def total_rows(given: Given) -> int | None:
    """Return how many rows the files have, or None where only reading them all would tell.

    Raises:
        UsageError: as `read`.
    """
    files = _files(given)
    if any(file.form != "parquet" for file in files):
        return None
    return sum(tables.parquet_shape(file.place)[0] for file in files)


def about_rows(given: Given) -> int | None:
    """Return about how many rows files have, by their sizes and how they begin.

    Returns:
        None for workbooks and what comes through a pipe, and for texts whose beginning is all.

    Raises:
        UsageError: as `read`.
    """
    counts = [file.about_rows() for file in _files(given)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def describe(given: Given) -> list[str]:
    """Say of each text file what was found out about it, if it is not plain CSV."""
    told = (
        (file.place, file.text.dialect.describe()) for file in _files(given) if file.form == "csv"
    )
    return [f"{place}: {said}" for place, said in told if said]


def has(row: object, place: Sequence[str]) -> bool:
    """Return whether a row has a field, if only null, at the end of these keys."""
    for key in place:
        if not isinstance(row, dict) or key not in row:
            return False
        row = row[key]
    return True


def lacking(given: Given, fields: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the fields, by their keys, that no row has; stops reading as soon as it knows.

    Raises:
        UsageError: as `read`.
    """
    files, missing = _files(given), set(fields)
    one, names = any(file.form == "json" for file in files), files[0].names
    rows: Iterable[object] = (
        [dict.fromkeys(names or ())] if files[0].form == "csv" else objects(read(given))
    )
    for row in rows:
        missing = {place for place in missing if not has(row, place)}
        # all rows of files but those of JSON have the same columns
        if not missing or (not one and not any(has(row, p[:1]) for p in missing)):
            break
    return missing


def objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Decode lines as the service would, leaving out what is no JSON object.

    NaN and Infinity, which are no JSON either, are None: what a task makes of them it says itself.
    """
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                plain, literals = without_literals(line)
                if literals:
                    yield msgspec.json.decode(plain, type=dict[str, Any])


def form_of(path: str | Path) -> Form | None:
    """Say by its name what a file holds; None if the name does not tell."""
    return _FORMS.get(_suffix(str(path)))


def _suffix(path: str) -> str:
    name = path.lower()
    for packed in SUFFIXES:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _files(given: Given) -> list[_File]:
    return [_File(place) for place in places(given)]


@dataclass(frozen=True)
class _File:
    """Read one file, by its form."""

    place: Place

    @cached_property
    def form(self) -> Form:
        named = form_of(self.place.path)
        if named in _WHOLE and packing(self.place):
            raise UsageError(f"{self.place}: cannot read {named} within compressed data: unpack it")
        found = named or next(
            (form for magic, form in _MAGIC if self._head.startswith(magic)), None
        )
        if found is None and not self._is_text():
            raise UsageError(
                f"{self.place}: cannot read files of type {_suffix(self.place.path)!r}; expected "
                ".csv, .tsv, .json, .jsonl, .parquet, .arrow, .avro or .xlsx, or a text whose "
                "first line names columns"
            )
        return found or "csv"

    @cached_property
    def text(self) -> Delimited:
        return Delimited(self.place)

    @cached_property
    def names(self) -> Sequence[str] | None:
        """The columns; None where only rows tell."""
        if self.form == "csv":
            return self.text.names
        return tables.parquet_names(self.place) if self.form == "parquet" else None

    def check(self, columns: Mapping[str, Kind]) -> None:
        """Refuse a file of text without a column that is named."""
        if self.form == "csv" and (unknown := sorted(set(columns) - set(self.text.names))):
            raise UsageError(
                f"{self.place}: no column {unknown[0]!r}; the file has "
                f"{', '.join(map(repr, self.text.names))}"
            )

    def rows(
        self, columns: Mapping[str, Kind], numbering: Numbering | None = None
    ) -> Iterator[bytes]:
        if self.form == "csv":
            return self.text.rows(columns, numbering)
        rows = self._objects()
        return numbering.put(rows) if numbering else rows

    def _objects(self) -> Iterator[bytes]:
        if self.form == "json":
            return json_rows(self.place, self._head)
        return {
            "parquet": tables.parquet_rows,
            "arrow": tables.arrow_rows,
            "avro": tables.avro_rows,
            "workbook": tables.workbook_rows,
        }[self.form](self.place)

    def later(self, most: int) -> Iterator[bytes]:
        """Yield rows of the middle and of the end of a long file, where it can be entered there."""
        if self.form == "parquet":
            groups = tables.parquet_shape(self.place)[1]
            for group in dict.fromkeys((groups // 2, groups - 1)):
                if group > 0:
                    yield from islice(tables.parquet_rows(self.place, [group]), most)
        elif self.form == "csv":
            yield from self.text.rows_later(most)
        elif self.form == "json" and are_lines(self._head):
            yield from lines_later(self.place, most)

    def about_rows(self) -> int | None:
        size = self.place.size
        if size is None or self.form == "workbook":
            return None
        if self.form == "parquet":
            return tables.parquet_shape(self.place)[0]
        if self.form == "arrow":
            return tables.about_arrow_rows(self.place)
        if self.form == "avro":
            return tables.about_avro_rows(self.place)
        head, read = head_of(self.place, _HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return None
        if self.form == "csv" or are_lines(self._head):
            return head.count(b"\n") * size // max(read, 1)
        rows = length = 0
        for row in json_rows(self.place, self._head):
            rows, length = rows + 1, length + len(row) + 2  # and what is between them
            if length >= len(head) // 4:
                break
        return rows * len(head) * size // max(read * length, 1)

    @cached_property
    def _head(self) -> bytes:
        with contextlib.closing(open_unpacked(self.place)) as file:
            return next(chunks(self.place, file), b"")

    def _is_text(self) -> bool:
        """Return whether text of unknown kind has two columns or more."""
        return b"\0" not in self._head and len(self.text.names) > 1


def _guarded(place: Place, rows: Iterator[_Item]) -> Iterator[_Item]:
    """Read the first item now, so that a file that cannot be used is refused at the call."""
    for first in rows:
        return chain((first,), rows)
    raise UsageError(f"{place}: no rows; expected at least one")
