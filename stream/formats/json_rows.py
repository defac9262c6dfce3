"""Rows of JSON text, byte for byte: lines, the objects of an array, or objects over many lines."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from headrace.stream.errors import UsageError
from headrace.stream.formats.places import Place
from headrace.stream.formats.unpack import (
    MOST_ROW_BYTES,
    chunks,
    line_blocks,
    open_unpacked,
    parts_later,
)

_ARRAY = re.compile(rb"\s*\[\s*(?:[\]{]|\Z)")
_SPREAD = re.compile(rb"\s*\{\s*\n")  # an object that does not end on its first line
_BLANK = re.compile(rb"\s*")
_SCALAR = re.compile(rb"[^\s,\]}]+")
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
_BETWEEN = re.compile(rb"\}\s*,\s*\{")


def json_rows(place: Place, head: bytes) -> Iterator[bytes]:
    """Yield what a file of JSON holds, broken or not, for others to refuse.

    That is each line that is not blank; or, if it begins so, each element of an array, or each of
    several objects that go over many lines.

    Args:
        head: how the file begins, without a byte order mark.

    Raises:
        UsageError: it cannot be read; or an array is cut off, or has something beside it.
    """
    with contextlib.closing(open_unpacked(place)) as file:
        if _ARRAY.match(head) or _SPREAD.match(head):
            yield from _Values(place, chunks(place, file))
        else:
            for block in line_blocks(place, file):
                yield from filter(None, map(bytes.strip, block.split(b"\n")))


def are_lines(head: bytes) -> bool:
    """Return whether a file that begins so is read line by line."""
    return not (_ARRAY.match(head) or _SPREAD.match(head))


def lines_later(place: Place, most: int) -> Iterator[bytes]:
    """Yield so many lines of the middle, and of the end, of a long file; none if it is packed."""
    for part in parts_later(place):
        lines = [line for line in map(bytes.strip, part.split(b"\n")) if line]
        yield from lines[:: max(-(-len(lines) // most), 1)]


class _Values:
    """Cut JSON values out of a stream, without holding more than one, and a piece."""

    def __init__(self, place: Place, pieces: Iterator[bytes]) -> None:
        self._place, self._pieces = place, pieces
        self._text, self._at, self._gone = b"", 0, 0  # `_gone`: bytes before the text
        self._array = False

    def __iter__(self) -> Iterator[bytes]:
        array = self._array = self._next() == b"["
        self._at += array
        while (first := self._next()) and not (array and first == b"]"):
            yield self._value(first)
            follows = self._next()
            if array and follows == b",":
                self._at += 1
                if self._next() == b"]":
                    raise self._broken("a row after the comma")
            elif array and follows and follows != b"]":
                raise self._broken("a comma or ] after a row of the array")
        if not array:
            return
        if not first:
            raise UsageError(
                f"{self._place}: ends at byte {self._gone + len(self._text):,} within its array of "
                "JSON: it is cut off; fetch it again"
            )
        self._at += 1
        if self._next():
            raise self._broken("nothing after the end of the array")

    def _broken(self, expected: str) -> UsageError:
        return UsageError(
            f"{self._place}: {self._text[self._at : self._at + 1]!r} at byte "
            f"{self._gone + self._at:,}: expected {expected}"
        )

    def _next(self) -> bytes:
        """Return the next byte that is not blank, without taking it; b"" at the end."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at : self._at + 1]
            if not self._more():
                return b""

    def _more(self) -> bool:
        if len(self._text) - self._at > MOST_ROW_BYTES:
            raise UsageError(
                f"{self._place}: the row at byte {self._gone + self._at:,} is longer than "
                f"{MOST_ROW_BYTES:,} bytes"
            )
        piece = next(self._pieces, b"")
        self._gone += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)

    def _value(self, first: bytes) -> bytes:
        """Take the value that begins here, to where its brackets close."""
        while (end := self._end(first)) < 0:
            enough = 2 * (len(self._text) - self._at)  # so that a long value is not looked at often
            while self._more() and len(self._text) < enough:
                pass
            if len(self._text) <= enough // 2:
                raise UsageError(
                    f"{self._place}: ends at byte {self._gone + len(self._text):,} within a row "
                    "of JSON: it is cut off; fetch it again"
                )
        value, self._at = self._text[self._at : end], end
        return value

    def _end(self, first: bytes) -> int:
        """Return where the value ends, or -1 where more is needed to tell."""
        text, at = self._text, self._at
        if first == b"{" and self._array and (between := _BETWEEN.search(text, at)):
            # without other braces and escapes, and with its quotes closed, this is the end of it
            end = between.start() + 1
            row = text[at:end]
            if (row.count(b"{"), row.count(b"}"), row.count(b'"') % 2) == (1, 1, 0) and (
                b"\\" not in row
            ):
                return end
        if first in b'{["':
            depth = 0
            for token in _TOKEN.finditer(text, at):
                sign = token[0]
                if sign == b'"':
                    return -1
                if sign[:1] in b"{[":
                    depth += 1
                elif sign[:1] in b"}]":
                    depth -= 1
                if depth <= 0:
                    return token.end()
            return -1
        scalar = _SCALAR.match(text, at)
        end = scalar.end() if scalar else at + 1
        return end if end < len(text) else -1
