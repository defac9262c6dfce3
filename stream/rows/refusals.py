"""Which rows were refused, and why: counted by reason, with the first row of each as an example."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headrace.stream.events import DeadLetter
from headrace.stream.formats import files
from headrace.stream.formats.numbering import Numbering
from headrace.stream.rows import outside
from headrace.stream.rows.normalizer import EXCLUDED, Normalizer, excluded
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate
from headrace.stream.task.field_path import pointer

WARN_FROM = 0.01  # refused share of the rows from which scores come with a warning
LONGEST_DETAIL = 200  # characters
MOST_NAMED = 10  # entities
MOST_REASONS = 20  # that are told by the feature; others by the code alone
_RAW_BYTES = 60  # of a row that is no JSON, which tells more than the parser's reason


@dataclass(frozen=True)
class Refusal:
    """Say why rows were refused with one code, for the values of one feature.

    Attributes:
        code: of their dead letters.
        feature: whose values are the reason, by its name; "" if none is, or it is not known.
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
    feature: str = ""

    def __str__(self) -> str:
        return f"refused ({self.code}), {self.reason}"

    @property
    def reason(self) -> str:
        """Return which rows and why: `row 6 and 3 more: a: 'x' is text, expected a number`."""
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        return f"{self.place}{more}: {self.detail}"


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
        self._found: dict[tuple[str, str], Refusal] = {}
        self._features = _paths(task)
        self._excluded = {excluded(name).detail: name for name in task.input.exclude}
        for name in task.labels.exclude if task.labels else ():
            self._excluded[excluded(name, "labels").detail] = name
        self._label_topic, self._of_labels = task.labels.topic if task.labels else None, 0

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Count letters; of each reason the first one that ever came is kept."""
        for letter in letters:
            self._of_labels += letter.topic == self._label_topic
            if letter.code == EXCLUDED:
                self._excluded.pop(letter.detail, None)
            reason = letter.code, self._feature(letter.detail)
            if reason not in self._found and len(self._found) >= MOST_REASONS:
                reason = letter.code, ""
            known = self._found.get(reason)
            self._found[reason] = (
                replace(known, count=known.count + 1) if known else self._first(letter, reason[1])
            )

    @property
    def total(self) -> int:
        """Count the rows that were refused."""
        return sum(each.count for each in self._found.values())

    @property
    def all(self) -> tuple[Refusal, ...]:
        """Return a refusal for each reason, the most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda each: -each.count))

    @property
    def codes(self) -> dict[str, int]:
        """Count the rows by code, in the order in which codes came."""
        counts = dict[str, int]()
        for each in self._found.values():
            counts[each.code] = counts.get(each.code, 0) + each.count
        return counts

    def warnings(self, rows: int) -> list[str]:
        """Return a line for each thing to know at the end of so many rows."""
        noun = "event" if self._topic else "row"
        lines = [
            f"input.exclude names {name!r}, and no {noun} of it came; check the spelling, and "
            f"whether {self._fields[EXCLUDED]} is the entity"
            for name in self._excluded.values()
        ][:MOST_NAMED]
        refused = self.total - self._of_labels
        if WARN_FROM * rows < refused < rows:
            share = f"{refused:,} of {rows:,} {noun}s ({100 * refused / rows:.1f} %)"
            lines.insert(0, f"{share} are refused: the scores are those of the others")
        return lines

    def _first(self, letter: DeadLetter, feature: str) -> Refusal:
        place = f"row {letter.offset + 1:,}"
        if self._topic:
            place = f"offset {letter.offset:,} of partition {letter.partition}"
        where = (letter.partition, letter.offset, place)
        return Refusal(letter.code, 1, *where, self._detail(letter), feature)

    def _feature(self, detail: str) -> str:
        place = _PLACE(detail)
        return self._features.get(place[1], "") if place else ""

    def _detail(self, letter: DeadLetter) -> str:
        detail = letter.detail
        if field := self._fields.get(letter.code):
            detail = f"{field}: {detail}"
        if letter.code in ("json", "encoding") and letter.raw:
            shown = letter.raw[:_RAW_BYTES].decode(errors="replace")
            detail += f", in {shown!r}{'...' if len(letter.raw) > _RAW_BYTES else ''}"
        return detail[:LONGEST_DETAIL]


def refusals_of(task: Task, raws: Sequence[bytes]) -> tuple[Refusal, ...]:
    """Return why a task refuses some rows, the most frequent reason first.

    Raises:
        TaskError: the task cannot be used.
    """
    reads, key = outside.numbering(task, [*files.objects(raws)])
    rows = list(Numbering(key).put(raws)) if key else raws
    refusals = Refusals(task)
    refusals.add(Normalizer(reads).normalize(outside.records(reads, "", rows, 0))[1])
    return refusals.all


def literals_told(count: int) -> list[str]:
    """Return a line about NaN and Infinity that were read as missing, if there were any."""
    if not count:
        return []
    numbers = f"{count:,} number{'s'[: count != 1]}"
    return [f"NaN or Infinity stands in place of {numbers}: counts as missing (input.non_finite)"]


_PLACE = re.compile(r"(.+?)(?:\[(?:\d+|\.\.\.)\])?(?:: | is missing$)").match


def _paths(task: Task) -> dict[str, str]:
    """Return the features by what the reason of a refusal calls them: a name, or a field's path."""
    fields = (task.target.field, task.input.id, task.input.time, task.input.entity)
    counts = (task.input.weight, task.input.propensity)
    others = {".".join(pointer(field)) for field in (*fields, *counts) if field}
    read = {name: f for name, f in task.features.items() if not isinstance(f, Aggregate)}
    paths = {".".join(pointer(f.field or name)): name for name, f in read.items()}
    outer = {  # whose field is none where something else stands instead of an object around it
        path[:at]: name
        for path, name in paths.items()
        for at, mark in enumerate(path)
        if mark == "."
    }
    named = outer | {name: name for name in read} | paths
    return {said: name for said, name in named.items() if said not in others}


def nothing_learned(
    rows: int, labelled: int, refusals: Iterable[Refusal], noun: str = "row"
) -> str | None:
    """Say why nothing is learned of rows, or of events, if so."""
    refused = sum(each.count for each in refusals)
    if labelled:
        return None
    if refused == rows:
        return f"nothing is learned: all {rows:,} {noun}s are refused"
    return (
        f"nothing is learned: in the {rows - refused:,} {noun}s that are not refused the target is "
        "null or absent"
    )
