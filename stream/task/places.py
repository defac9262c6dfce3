"""Where the keys of a TOML text stand: what `tomllib` does not say."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*""")
_VALUE = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*'|[^,\[\]{}\n#"']+''',
    re.DOTALL,
)


def places(text: str) -> dict[Path, tuple[int, int]]:
    """Return line and column, from 1, of each table, key and element of a list in a TOML text.

    Empty where it is nested too deep. What is no TOML has what stands before the mistake.
    """
    scan = _Scan(text)
    with suppress(RecursionError, IndexError, AttributeError, ValueError):
        scan.document()
    begins = [0, *(at.end() for at in re.finditer("\n", text))]
    found = {}
    for path, at in scan.found.items():
        line = bisect_right(begins, at)
        found[path] = line, at - begins[line - 1] + 1
    return found


class _Scan:
    """Go through a text that is TOML, and note where each path begins first."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._tables: dict[Path, int] = {}  # of an array of tables the last one
        self.found: dict[Path, int] = {}

    def document(self) -> None:
        """Read it all."""
        table: Path = ()
        while self._next():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _next(self) -> str:
        """Pass over what says nothing; return the character that comes, "" at the end."""
        self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._text[self._at : self._at + 1]

    def _header(self) -> Path:
        begin, many = self._at, self._text.startswith("[[", self._at)
        self._at += 1 + many
        table: Path = ()
        for part in self._key():
            table += (part,)
            self.found.setdefault(table, begin)
            if table in self._tables:
                table += (self._tables[table],)
        if many:
            whole = table if isinstance(table[-1], str) else table[:-1]
            self._tables[whole] = self._tables.get(whole, -1) + 1
            table = (*whole, self._tables[whole])
            self.found.setdefault(table, begin)
        self._at += 1 + many
        return table

    def _pair(self, table: Path) -> None:
        self._next()
        begin = self._at
        for part in self._key():
            table += (part,)
            self.found.setdefault(table, begin)
        self._at += 1  # the sign
        self._value(table)

    def _key(self) -> list[str]:
        parts = []
        while True:
            found = _PART.match(self._text, self._at)
            parts.append(_plain(found[1]))  # type: ignore[index]
            self._at = found.end()  # type: ignore[union-attr]
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: Path) -> None:
        opened = self._next()
        if opened not in ("[", "{"):
            self._at = _VALUE.match(self._text, self._at).end()  # type: ignore[union-attr]
            return
        self._at += 1
        place = 0
        while self._next() not in ("]", "}"):
            if opened == "[":
                self.found.setdefault((*path, place), self._at)
                self._value((*path, place))
            else:
                self._pair(path)
            place += 1
            self._at += self._next() == ","
        self._at += 1


def _plain(part: str) -> str:
    if part[0] not in "\"'":
        return part
    [name] = tomllib.loads(f"{part} = 0")
    return name
