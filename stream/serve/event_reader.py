"""Events that programs ask about, read as those of the topic are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import NamedTuple

from headrace.stream.events import Records, Reject
from headrace.stream.formats import files
from headrace.stream.formats.numbering import Numbering
from headrace.stream.rows.late import unlabelled
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.outside import number_field
from headrace.stream.rows.rows import Rows, joined, rows_of
from headrace.stream.task import Task
from headrace.stream.task.field_path import pointer


class Read(NamedTuple):
    """Hold events as rows, each of which stands at `rows.offset` among those that were sent."""

    rows: Rows
    refused: dict[int, Reject]  # by place
    nameless: set[int]  # places of events that brought no id


class EventReader:
    """Read events by the task's normaliser; one that brings no id is no worse for it.

    Nothing is learned of its own label: it is not looked at. With a horizon, what stands in its
    field is the label of an earlier event, which would be known by then.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._normalizer = task, Normalizer(task)
        self._id = pointer(task.input.id)
        self._none = rows_of(task, [], [])
        self._field = number_field(())
        source = task.input.model_copy(update={"id": self._field})
        self._numbered = Normalizer(task.model_copy(update={"input": source}))

    def read(self, raws: Sequence[bytes]) -> Read:
        """Return a row for each good event, and why each other one would be refused."""
        rows, letters = self._normalizer.normalize(self._records(raws, range(len(raws))))
        refused = {letter.offset: Reject(letter.code, letter.detail) for letter in letters}
        without = [place for place in refused if self._lacks_id(raws[place])]
        if without:
            numbered = [*Numbering(self._field, 0).put([raws[place] for place in without])]
            more, letters = self._numbered.normalize(self._records(numbered, without))
            rows = joined([each for each in (rows, more) if each.id], self._none)
            refused |= {letter.offset: Reject(letter.code, letter.detail) for letter in letters}
            for place in more.offset:
                del refused[place]
        if not self._task.target.horizon:
            rows = unlabelled(rows)
        return Read(rows, refused, {*without})

    def _lacks_id(self, raw: bytes) -> bool:
        try:
            event = json.loads(raw)  # which takes NaN, as a task may (input.non_finite)
        except (ValueError, RecursionError):
            return False
        return isinstance(event, dict) and not files.has(event, self._id)

    def _records(self, raws: Sequence[bytes], places: Sequence[int]) -> Records:
        """Return events as if they came to the topic now."""
        now_ms = time.time_ns() // 1_000_000
        return Records(
            topic=self._task.input.topic,
            values=[*raws],
            keys=[None] * len(raws),
            partitions=[0] * len(raws),
            offsets=[*places],
            timestamps_ms=[now_ms] * len(raws),
        )
