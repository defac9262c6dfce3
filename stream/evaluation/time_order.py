"""Whether rows come in the order of their times, which is the order that they are learned in."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from headrace.stream.evaluation.scores import counted
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task

FEWEST = 10  # rows from which anything is said
AWRY = 0.01  # of the time that rows span: what they may go back by and be in order
FALLING = 0.9  # of the steps that go back, from which the newest row comes first


class TimeOrder:
    """Watch the times of rows, where a task names them; several partitions have no one order."""

    def __init__(self, task: Task) -> None:
        self._column = task.input.time
        self._partition = -1
        self._rows = self._steps = self._back = self._most_ms = 0
        self._last_ms, self._from_ms, self._to_ms = 0, 0, 0

    def add(self, rows: Rows) -> None:
        """Take the next rows."""
        if not self._column or not rows.id:
            return
        if self._rows == 0:
            self._partition = rows.partition[0]
            self._last_ms = self._from_ms = self._to_ms = int(rows.time_ms[0])
        if {*rows.partition} != {self._partition}:
            self._column = None
            return
        steps = np.diff(rows.time_ms, prepend=self._last_ms)
        back = -steps[steps < 0]
        self._rows += len(steps)
        self._steps += int(np.count_nonzero(steps))
        self._back += len(back)
        self._most_ms = max(self._most_ms, int(back.max(initial=0)))
        self._last_ms = int(rows.time_ms[-1])
        self._from_ms = min(self._from_ms, int(rows.time_ms.min()))
        self._to_ms = max(self._to_ms, int(rows.time_ms.max()))

    def lines(self) -> list[str]:
        """Return a line if the rows are in another order, and [] otherwise."""
        if not self._column or self._rows < FEWEST or not self._back:
            return []
        if self._back > FALLING * self._steps:
            how = "the newest row comes first"
        elif self._most_ms > AWRY * (self._to_ms - self._from_ms):
            older = f"{self._back:,} of {counted(self._rows, 'row')} are older than the one before"
            how = f"{older}, by up to {timedelta(seconds=self._most_ms // 1000)}"
        else:
            return []
        return [f"{self._column}: {how}; rows are learned as they stand: sort them, oldest first"]
