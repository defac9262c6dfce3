"""Rows of text files whose lines are cells: CSV and its relatives."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice, repeat
from operator import methodcaller
from typing import BinaryIO, NamedTuple

from headrace.stream.errors import UsageError
from headrace.stream.formats.cells import Kind, as_json, column_kinds, is_missing
from headrace.stream.formats.dialect import Dialect, dialect_of, lines_of, records
from headrace.stream.formats.places import Place
from headrace.stream.formats.unpack import line_blocks, open_unpacked, parts_later

SAMPLE_ROWS = 1000
_BATCH_ROWS = 1024
_SHOWN = 200
_LF = b"\n"
_FATAL = ("unexpected end of data", "field larger than field limit")


class _Batch(NamedTuple):
    """Hold records that follow one another.

    Attributes:
        line: of the file, from 1, on which the first begins.
        rows: their cells; none of a blank line.
        columns: the same by column, if all have as many as the header; else ().
        trouble: why the next one could not be read; "" if there is none.
        last: the line on which that one ends.
    """

    line: int
    rows: Iterable[Sequence[str]]
    columns: Sequence[Sequence[str]] = ()
    trouble: str = ""
    last: int = 0


class Delimited:
    """Read one text file of cells.

    Raises:
        UsageError: it may be read in more than one way, has no header or is not UTF-8.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        with contextlib.closing(open_unpacked(place)) as file:
            head = next(_texts(place, file), "")
        self.dialect: Dialect = dialect_of(place, head)
        self.names = self.dialect.names

    def rows(self, columns: Mapping[str, Kind]) -> Iterator[bytes]:
        """Yield each row as JSON; of one that has other cells than the header, a text about it.

        Columns that are not named have their kinds inferred from SAMPLE_ROWS rows of the beginning,
        and of a long file of its middle and end.
        """
        with contextlib.closing(open_unpacked(self._place)) as file:
            yield from self._rendered(self._batches(_texts(self._place, file)), columns)

    def rows_later(self, most: int) -> Iterator[bytes]:
        """Yield so many rows of the middle and of the end of a long file; none if it is packed."""
        for cells in self._later(most):
            yield from self._rendered([_Batch(0, cells)], {})

    def _later(self, most: int) -> Iterator[list[list[str]]]:
        """Yield rows of the middle and of the end, if all that are found there fit the header."""
        for part in parts_later(self._place):
            with contextlib.suppress(UnicodeDecodeError, csv.Error):  # within a quoted text
                reader = records(lines_of(part.decode()), self.dialect.delimiter)
                found = [row for row in reader if row and not self._is_comment(row)]
                if found and all(len(row) == len(self.names) for row in found):
                    yield found[:: -(-len(found) // most)]

    def sample(self, most: int) -> list[dict[str, object]]:
        """Return the first rows that have all cells, as they are but for what is missing."""
        width, found = len(self.names), list[dict[str, object]]()
        with contextlib.closing(open_unpacked(self._place)) as file:
            for batch in self._batches(_texts(self._place, file)):
                for row in batch.rows:
                    if len(row) == width:
                        found.append(self._named(row))
                if len(found) >= most:
                    break
        return found[:most]

    def _named(self, row: Sequence[str]) -> dict[str, object]:
        cells = (None if is_missing(cell) else cell for cell in row)
        return dict(zip(self.names, cells, strict=True))

    @cached_property
    def _inferred(self) -> dict[str, Kind]:
        later = chain.from_iterable(self._later(SAMPLE_ROWS))
        return column_kinds(chain(self.sample(SAMPLE_ROWS), map(self._named, later)))

    def _batches(self, texts: Iterable[str]) -> Iterator[_Batch]:
        """Cut a file into batches: plain blocks at once, others record by record."""
        texts, line = iter(texts), 1
        for text in texts:
            cut = self.dialect.skipped + (not self.dialect.in_comment) if line == 1 else 0
            if plain := self._plain(text, cut):
                yield _Batch(line + cut, zip(*plain, strict=True), plain)
                line += text.count("\n")
                continue
            taken: list[list[str]] = []  # the lines of this block, and where its cells reach

            def lines(first: str = text, taken: list[list[str]] = taken) -> Iterator[str]:
                for each in chain((first,), texts):
                    taken.append([*lines_of(each)])
                    yield from taken[-1]

            yield from self._records(lines(), taken, line)
            line += sum(map(len, taken))

    def _plain(self, text: str, cut: int) -> list[list[str]]:
        """Return the columns of a block below some lines, cut at each delimiter.

        [] if that is not sure: there are quotes but around whole cells, or uneven lines.
        """
        delimiter, width = self.dialect.delimiter, len(self.names)
        if delimiter == " " or "\r" in (text := text.replace("\r\n", "\n")):
            return []
        if cut:
            if text.count('"', 0, len(text) - len(text.split("\n", cut)[-1])) % 2:
                return []  # a line feed within the header
            text = text.split("\n", cut)[-1] if text.count("\n") >= cut else ""
        text = text.removesuffix("\n")
        between = set(map(methodcaller("count", delimiter), text.split("\n")))
        if width < 2 or between != {width - 1}:
            return []
        cells = text.replace("\n", delimiter).split(delimiter)
        columns = [cells[at::width] for at in range(width)]
        if '"' in text:
            columns = [_unquoted(column) for column in columns]
        return columns if all(columns) else []

    def _records(
        self, lines: Iterator[str], taken: list[list[str]], first: int
    ) -> Iterator[_Batch]:
        """Cut lines as Python's csv does, as far as the blocks go that are `taken` for it."""
        skipped = self.dialect.skipped if first == 1 else 0
        reader = records(islice(lines, skipped, None), self.dialect.delimiter)
        skipped += first - 1
        if first == 1 and not self.dialect.in_comment:
            next(reader)
        while not taken or reader.line_num + skipped < first - 1 + sum(map(len, taken)):
            line, rows, trouble = skipped + reader.line_num + 1, list[list[str]](), ""
            end = first - 1 - skipped + sum(map(len, taken)) if taken else 1
            try:
                while reader.line_num < end and len(rows) < _BATCH_ROWS:
                    rows.append(next(reader))
            except StopIteration:
                break
            except csv.Error as error:
                trouble = str(error)
            last = skipped + reader.line_num
            if trouble.startswith(_FATAL):
                raise UsageError(
                    f"{self._place}: line {last:,} is not CSV ({trouble}); is a quote left open?"
                )
            yield _Batch(line, rows, (), trouble, last)

    def _rendered(self, batches: Iterable[_Batch], columns: Mapping[str, Kind]) -> Iterator[bytes]:
        known: Mapping[str, Kind] = columns
        if not columns.keys() >= set(self.names):
            known = self._inferred | dict(columns)
        kinds = [known.get(name, "number") for name in self.names]
        keys = [json.dumps(name, ensure_ascii=False) + ":" for name in self.names]
        keys = ["{" + keys[0], *("," + key for key in keys[1:])]
        width = len(self.names)
        for batch in batches:
            if batch.columns:
                yield from _objects(batch.columns, keys, kinds)
            elif set(map(len, rows := list(batch.rows))) == {width}:
                yield from _objects([*zip(*rows, strict=True)], keys, kinds)
            else:
                yield from self._sorted_out(batch, keys, kinds)
            if batch.trouble:
                yield self._refusal(batch.last, batch.trouble)

    def _sorted_out(
        self, batch: _Batch, keys: Sequence[str], kinds: Sequence[Kind]
    ) -> Iterator[bytes]:
        """Yield the rows of a batch that holds others than rows as wide as the header."""
        width, line = len(self.names), batch.line
        good: list[Sequence[str]] = []
        for row in batch.rows:
            wide = len(row)
            if wide == width or (wide > width and not any(map(str.strip, row[width:]))):
                good.append(row[:width])
            elif wide and not (wide == 1 and not row[0].strip()) and not self._is_comment(row):
                if good:
                    yield from _objects([*zip(*good, strict=True)], keys, kinds)
                good = []
                told = f"{wide} cell{'s'[: wide > 1]}, expected {width}"
                yield self._refusal(line, f"{told}: {self.dialect.delimiter.join(row)[:_SHOWN]}")
            line += 1 + sum(cell.count("\n") for cell in row)
        if good:
            yield from _objects([*zip(*good, strict=True)], keys, kinds)

    def _is_comment(self, row: Sequence[str]) -> bool:
        return self.dialect.commented and row[0].startswith("#")

    def _refusal(self, line: int, reason: str) -> bytes:
        """Return a text, which is no event, in place of a row: it is refused wherever it goes."""
        return json.dumps(f"{self._place}, line {line}: {reason}", ensure_ascii=False).encode()


def _unquoted(cells: list[str]) -> list[str]:
    """Return cells without the quotes around them, [] if there are others."""
    if '"' not in "".join(cells):
        return cells
    bare = [cell[1:-1] if cell[:1] == '"' == cell[-1:] and cell != '"' else cell for cell in cells]
    return [] if '"' in "".join(bare) else bare


def _objects(
    columns: Sequence[Sequence[str]], keys: Sequence[str], kinds: Sequence[Kind]
) -> list[bytes]:
    """Return the rows of columns as JSON."""
    count, step = len(columns[0]), 2 * len(keys) + 1
    parts = [""] * (step * count)
    for at, (key, kind, cells) in enumerate(zip(keys, kinds, columns, strict=True)):
        parts[2 * at :: step] = repeat(key, count)
        parts[2 * at + 1 :: step] = as_json(cells, kind)
    parts[step - 1 :: step] = repeat("}\n", count)
    return "".join(parts).encode().split(b"\n")[:-1]


def _texts(place: Place, file: BinaryIO) -> Iterator[str]:
    """Yield a file in blocks of whole lines.

    Raises:
        UsageError: it is not UTF-8, or binary.
    """
    at, lines = 0, 1
    for block in line_blocks(place, file):
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            bad = block[error.start : error.start + 1].hex()
            line = lines + block.count(_LF, 0, error.start)
            raise UsageError(
                f"{place}: byte 0x{bad} is not UTF-8 (at byte {at + error.start}, in line {line}); "
                "convert the file with iconv"
            ) from error
        if not at and "\0" in text.partition("\n")[0]:
            raise UsageError(
                f"{place}: byte {text.index(chr(0)):,} is 0, and no text has that; UTF-16 is read "
                "with a byte order mark"
            )
        at += len(block)
        lines += block.count(_LF)
        yield text
