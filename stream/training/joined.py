"""What comes of joining labels to rows: lines for the compiled loop, and what to tell of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.events import DeadLetter
from headrace.stream.rows.late import Truth
from headrace.stream.rows.rows import Rows


class Left(NamedTuple):
    """Name a row that expired, and its label if it was given one for that."""

    id: str | int
    partition: int
    offset: int
    time_ms: int
    label: float | None


class Moves(NamedTuple):
    """Name lines with which rows move out of the learner's slots and back: see NewestRows."""

    leaving: Sequence[tuple[int, int]] = ()  # line, and number of the row that is taken out
    loads: Sequence[tuple[int, int]] = ()  # line of a label, and number of its row


class Joined(NamedTuple):
    """Hold lines for the compiled loop, and what became of labels."""

    rows: Rows  # lines: of events, and of labels with the coordinates of their event
    line: NDArray[np.int32]  # [n, 2]  see `Batch.line`
    events: list[int]  # places of lines that are events
    told: Rows  # the events, as they came
    truth: Truth
    letters: list[DeadLetter]
    expired: list[Left]
    moves: Moves = Moves()

    def part(self, first: int, count: int) -> Moves:
        """Return what moves with some of the lines, which are counted from the first one."""
        return Moves(*(_part(lines, first, first + count) for lines in self.moves))


def _part(lines: Sequence[tuple[int, int]], first: int, stop: int) -> Sequence[tuple[int, int]]:
    start, end = (bisect_left(lines, (line, -1)) for line in (first, stop))
    return [(line - first, number) for line, number in lines[start:end]]
