"""What comes of joining labels to rows: lines for the compiled loop, and what to tell of them."""

from __future__ import annotations

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


class Joined(NamedTuple):
    """Hold lines for the compiled loop, and what became of labels."""

    rows: Rows  # lines: of events, and of labels with the coordinates of their event
    line: NDArray[np.int32]  # [n, 2]  see `Batch.line`
    events: list[int]  # places of lines that are events
    told: Rows  # the events, as they came
    truth: Truth
    letters: list[DeadLetter]
    expired: list[Left]
