"""Numbers of rows that have no ids of their own, put into their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count, islice


class Numbering:
    """Number rows, each in a field that no row has.

    Args:
        first: the number of the first row.

    Attributes:
        key: how a row with a number begins.
    """

    def __init__(self, field: str, first: int = 0) -> None:
        self.key = f'{{"{field}":'
        self._numbers = count(first)

    def take(self, rows: int) -> list[str]:
        """Return the numbers of the next rows."""
        return list(map(str, islice(self._numbers, rows)))

    def put(self, rows: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the next rows with theirs; what is no event stays, and is refused as it is."""
        key = self.key.encode()
        for row, number in zip(rows, self._numbers):  # noqa: B905  of these there is no end
            if row[:2] == b'{"':
                yield b"%s%d,%s" % (key, number, row[1:])
            else:
                yield _numbered(key, number, row)


def _numbered(key: bytes, number: int, row: bytes) -> bytes:
    if not row.startswith(b"{"):
        return row
    rest = row[1:].lstrip()
    return b"%s%d%s%s" % (key, number, b"" if rest.startswith(b"}") else b",", rest)
