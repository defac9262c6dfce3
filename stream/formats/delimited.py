"""Rows of text files whose lines are cells: CSV and its relatives."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice, repeat
from typing import BinaryIO, NamedTuple

from headrace.stream.errors import UsageError
from headrace.stream.formats.cells import Kind, as_json, column_kinds, is_missing
from headrace.stream.formats.dialect import Dialect, dialect_of, lines_of, records
from headrace.stream.formats.numbering import Numbering
from headrace.stream.formats.places import Place
from headrace.stream.formats.unpack import line_blocks, open_unpacked, parts_later

SAMPLE_ROWS = 1000
_BATCH_ROWS = 1024
_PART = 1 << 16  # characters that are cut into cells at once: a cache holds them
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

    def rows(
        self, columns: Mapping[str, Kind], numbering: Numbering | None = None
    ) -> Iterator[bytes]:
        """Return each row as JSON; of one that has other cells than the header, a text about it.

        Columns that are not named have their kinds inferred from SAMPLE_ROWS rows of the beginning,
        and of a long file of its middle and end.
        """
        return chain.from_iterable(self._blocks(columns, numbering))

    def _blocks(
        self, columns: Mapping[str, Kind], numbering: Numbering | None
    ) -> Iterator[list[bytes]]:
        with contextlib.closing(open_unpacked(self._place)) as file:
            yield from self._rendered(self._batches(_texts(self._place, file)), columns, numbering)

    def rows_later(self, most: int) -> Iterator[bytes]:
        """Yield so many rows of the middle and of the end of a long file; none if it is packed."""
        for cells in self._later(most):
            yield from chain.from_iterable(self._rendered([_Batch(0, cells)], {}))

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
        width = len(self.names)
        with contextlib.closing(open_unpacked(self._place)) as file:
            batches = self._batches(_texts(self._place, file))
            rows = (row for batch in batches for row in batch.rows if len(row) == width)
            return list(map(self._named, islice(rows, most)))

    def _named(self, row: Sequence[str]) -> dict[str, object]:
        cells = (None if is_missing(cell) else cell for cell in row)
        return dict(zip(self.names, cells, strict=True))

    @cached_property
    def _inferred(self) -> dict[str, Kind]:
        later = chain.from_iterable(self._later(SAMPLE_ROWS))
        return column_kinds(chain(self.sample(SAMPLE_ROWS), map(self._named, later)))

    def _batches(self, texts: Iterable[str]) -> Iterator[_Batch]:
        """Cut a file into batches: plain blocks at once, others record by record."""
        texts, line = chain.from_iterable(map(_parts, texts)), 1
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

        [] if that is not sure: there are quotes but around whole cells, or uneven lines. They are
        even if there are as many delimiters as they need, and from one to the next there is always
        one piece between delimiters.
        """
        delimiter, width = self.dialect.delimiter, len(self.names)
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if delimiter == " " or "\r" in text:
            return []
        if cut:
            if text.count('"', 0, len(text) - len(text.split("\n", cut)[-1])) % 2:
                return []  # a line feed within the header
            text = text.split("\n", cut)[-1] if text.count("\n") >= cut else ""
        text = text.removesuffix("\n")
        pieces, after = text.split(delimiter), width - 1
        if width < 2 or len(pieces) != after * (text.count("\n") + 1) + 1:
            return []
        ends = pieces[::after]
        if set(map(str.count, ends[1:-1], repeat("\n"))) - {1}:
            return []
        ends = "\n".join(ends).split("\n")
        columns = [ends[::2], *(pieces[at::after] for at in range(1, after)), ends[1::2]]
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

    def _rendered(
        self,
        batches: Iterable[_Batch],
        columns: Mapping[str, Kind],
        numbering: Numbering | None = None,
    ) -> Iterator[list[bytes]]:
        known: Mapping[str, Kind] = columns
        if not columns.keys() >= set(self.names):
            known = self._inferred | dict(columns)
        render = _Renderer({name: known.get(name, "number") for name in self.names}, numbering)
        width = len(self.names)
        for batch in batches:
            if batch.columns:
                yield render.objects(batch.columns)
            elif set(map(len, rows := list(batch.rows))) == {width}:
                yield render.objects([*zip(*rows, strict=True)])
            else:
                yield from self._sorted_out(batch, render)
            if batch.trouble:
                yield render.text(self._told(batch.last, batch.trouble))

    def _sorted_out(self, batch: _Batch, render: _Renderer) -> Iterator[list[bytes]]:
        """Yield the rows of a batch that holds others than rows as wide as the header."""
        width, line = len(self.names), batch.line
        good: list[Sequence[str]] = []
        for row in batch.rows:
            wide = len(row)
            if wide == width or (wide > width and not any(map(str.strip, row[width:]))):
                good.append(row[:width])
            elif wide and not (wide == 1 and not row[0].strip()) and not self._is_comment(row):
                if good:
                    yield render.objects([*zip(*good, strict=True)])
                good = []
                told = f"{wide} cell{'s'[: wide > 1]}, expected {width}"
                told = f"{told}: {self.dialect.delimiter.join(row)[:_SHOWN]}"
                yield render.text(self._told(line, told))
            line += 1 + sum(map(_line_ends, row))
        if good:
            yield render.objects([*zip(*good, strict=True)])

    def _is_comment(self, row: Sequence[str]) -> bool:
        return self.dialect.commented and row[0].startswith("#")

    def _told(self, line: int, reason: str) -> str:
        return f"{self._place}, line {line}: {reason}"


def _line_ends(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def _unquoted(cells: list[str]) -> list[str]:
    """Return cells without the quotes around them, [] if there are others; none has a line feed."""
    joined = "\n".join(cells)
    if '"' not in joined:
        return cells
    if joined.count('"') == 2 * len(cells) and joined[0] == joined[-1] == '"':
        bare = joined[1:-1].split('"\n"')
        if len(bare) == len(cells):
            return bare
    bare = [cell[1:-1] if cell[:1] == '"' == cell[-1:] and cell != '"' else cell for cell in cells]
    return [] if '"' in "".join(bare) else bare


class _Renderer:
    """Render rows of cells as JSON.

    Args:
        kinds: of the columns, by their names.
        numbering: of the rows, if they are to be numbered.
    """

    def __init__(self, kinds: Mapping[str, Kind], numbering: Numbering | None) -> None:
        self._kinds, self._numbering = list(kinds.values()), numbering
        keys = [json.dumps(name, ensure_ascii=False) + ":" for name in kinds]
        self._keys = [numbering.key if numbering else "{" + keys.pop(0), *("," + k for k in keys)]

    def objects(self, columns: Sequence[Sequence[str]]) -> list[bytes]:
        """Return the rows that have these columns."""
        found = list(map(as_json, columns, self._kinds))
        if self._numbering:
            found.insert(0, ("", self._numbering.take(len(columns[0]))))
        row, mark = list[str](), ""
        for key, (around, _) in zip(self._keys, found, strict=True):
            row += [mark + key + around, ""]
            mark = around
        parts = [f"{mark}}}\n{row[0]}", *row[1:]] * len(columns[0])
        for at, (_, cells) in enumerate(found):
            parts[2 * at + 1 :: len(row)] = cells
        parts[0] = row[0]
        parts += [mark, "}"]
        return "".join(parts).encode().split(b"\n")

    def text(self, reason: str) -> list[bytes]:
        """Return a text, which is no event, in place of a row: it is refused wherever it goes."""
        if self._numbering:
            self._numbering.take(1)
        return [json.dumps(reason, ensure_ascii=False).encode()]


def _parts(text: str) -> Iterator[str]:
    """Cut whole lines into parts of whole lines."""
    start = 0
    while end := text.find("\n", start + _PART) + 1:
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


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
