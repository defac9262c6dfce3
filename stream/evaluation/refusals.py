"""Which rows were refused, and why: counted by code, with the first row of each as an example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from headrace.stream.events import DeadLetter
from headrace.stream.rows.normalizer import EXCLUDED, excluded
from headrace.stream.task import Task

WARN_FROM = 0.01  # refused share of the rows from which scores come with a warning
LONGEST_DETAIL = 200  # characters
MOST_NAMED = 10  # entities
_RAW_BYTES = 60  # of a row that is no JSON, which tells more than the parser's reason


@dataclass(frozen=True)
class Refusal:
    """Say why rows were refused with one code.

    Attributes:
        code: of their dead letters.
        count: how many rows.
        offset: of the first one, from 0; `row` counts from 1.
        detail: what is wrong with the first one: field, value, and what was expected.
    """

    code: str
    count: int
    offset: int
    detail: str

    @property
    def row(self) -> int:
        """Return the number of the first row, from 1."""
        return self.offset + 1

    def __str__(self) -> str:
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"refused ({self.code}), row {self.row:,}{more}: {self.detail}"


class Refusals:
    """Take the dead letters of a file's rows, in the rows' order."""

    def __init__(self, task: Task) -> None:
        self._fields = {
            "id": task.input.id,
            "time": task.input.time,
            "label": task.target.field,
            EXCLUDED: task.input.entity,
        }
        self._found: dict[str, Refusal] = {}
        self._excluded = {excluded(name).detail: name for name in task.input.exclude}

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Count letters; of each code the first one that ever came is kept."""
        for letter in letters:
            if letter.code == EXCLUDED:
                self._excluded.pop(letter.detail, None)
            known = self._found.get(letter.code)
            self._found[letter.code] = (
                replace(known, count=known.count + 1)
                if known
                else Refusal(letter.code, 1, letter.offset, self._detail(letter))
            )

    @property
    def total(self) -> int:
        """Count the rows that were refused."""
        return sum(each.count for each in self._found.values())

    @property
    def all(self) -> tuple[Refusal, ...]:
        """Return a refusal for each code, the most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda each: -each.count))

    @property
    def codes(self) -> dict[str, int]:
        """Count the rows by code, in the order in which codes came."""
        return {code: each.count for code, each in self._found.items()}

    def warnings(self, rows: int) -> list[str]:
        """Return a line for each thing to know at the end of so many rows."""
        lines = [
            f"input.exclude names {name!r}, and no row came of it; the entity is "
            f"{self._fields[EXCLUDED]!r}, check the spelling"
            for name in self._excluded.values()
        ][:MOST_NAMED]
        if WARN_FROM * rows < self.total < rows:
            share = f"{self.total:,} of {rows:,} rows ({100 * self.total / rows:.1f} %)"
            lines.insert(0, f"{share} are refused: the scores are those of the others")
        return lines

    def _detail(self, letter: DeadLetter) -> str:
        detail = letter.detail
        if field := self._fields.get(letter.code):
            detail = f"{field}: {detail}"
        if letter.code in ("json", "encoding") and letter.raw:
            shown = letter.raw[:_RAW_BYTES].decode(errors="replace")
            detail += f", in {shown!r}{'...' if len(letter.raw) > _RAW_BYTES else ''}"
        return detail[:LONGEST_DETAIL]


def nothing_learned(rows: int, labelled: int, refusals: Iterable[Refusal]) -> str | None:
    """Say why nothing is learned of rows, if so."""
    refused = sum(each.count for each in refusals)
    if labelled:
        return None
    if refused == rows:
        return f"nothing is learned: all {rows:,} rows are refused"
    return (
        f"nothing is learned: in the {rows - refused:,} rows that are not refused the target is "
        "null or absent"
    )
