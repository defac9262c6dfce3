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
        partition, offset: of the first one; of a file the offset is the row, from 0.
        place: the same in words: `row 6`, which counts from 1, or `offset 5 of partition 0`.
        detail: what is wrong with the first one: field, value, and what was expected.
    """

    code: str
    count: int
    partition: int
    offset: int
    place: str
    detail: str

    def __str__(self) -> str:
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"refused ({self.code}), {self.place}{more}: {self.detail}"


class Refusals:
    """Take the dead letters of rows, in the rows' order.

    Args:
        topic: they are events of a topic, not rows of a file.
    """

    def __init__(self, task: Task, *, topic: bool = False) -> None:
        self._topic = topic
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
                replace(known, count=known.count + 1) if known else self._first(letter)
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
        noun = "event" if self._topic else "row"
        lines = [
            f"input.exclude names {name!r}, and no {noun} of it came; check the spelling, and "
            f"whether {self._fields[EXCLUDED]} is the entity"
            for name in self._excluded.values()
        ][:MOST_NAMED]
        if WARN_FROM * rows < self.total < rows:
            share = f"{self.total:,} of {rows:,} {noun}s ({100 * self.total / rows:.1f} %)"
            lines.insert(0, f"{share} are refused: the scores are those of the others")
        return lines

    def _first(self, letter: DeadLetter) -> Refusal:
        place = f"row {letter.offset + 1:,}"
        if self._topic:
            place = f"offset {letter.offset:,} of partition {letter.partition}"
        where = (letter.partition, letter.offset, place)
        return Refusal(letter.code, 1, *where, self._detail(letter))

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
