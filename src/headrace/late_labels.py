"""Labels that a program tells later than their events."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from headrace.reading import refuse, with_value
from headrace.stream.errors import UsageError
from headrace.stream.events import DriftRecord
from headrace.stream.rows import outside
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import Truth
from headrace.stream.rows.rows import Rows, rows_of
from headrace.stream.task import Task
from headrace.stream.task.field_path import pointer
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer
from headrace.tables import encoded

OUTCOMES = ("scored", "rescored", "relearned", "repeated", "unasked", "held")


class TellsMore(TypedDict, total=False):
    """Name what may be told of a label besides."""

    time: Any
    weight: float
    propensity: float
    source: str


class LateLabels:
    """Learn the labels of events that a trainer knows, one by one."""

    def __init__(self, task: Task) -> None:
        self._task, self._labels = task, task.labels
        self._reader = LabelReader(task) if task.labels else None
        self._no_rows, self._truth = rows_of(task, [], []), Truth()

    def learn(
        self, trainer: Trainer, id: str | int, label: Any, more: TellsMore
    ) -> tuple[str, list[DriftRecord]]:
        """Learn a label; return what became of it, and what is told of drift.

        Args:
            more: what else its record would hold.

        Raises:
            UsageError: the task has no [labels].
            EventError: the label is refused.
        """
        if self._labels is None or self._reader is None:
            raise UsageError(
                f"task {self._task.name} has no [labels]: its labels come within their events"
            )
        cloudevents = self._task.input.format == "cloudevents"
        within = ("data",) if cloudevents else ()
        told: Any = {"specversion": "1.0"} if cloudevents else {}
        told = with_value(told, pointer(self._labels.id), id)
        told = with_value(told, (*within, *pointer(self._labels.label)), label)
        said: dict[str, Any] = {"source": "", **more}
        if unknown := said.keys() - TellsMore.__annotations__.keys():
            raise TypeError(f"learn_label() got an unexpected keyword argument {min(unknown)!r}")
        for key, value in said.items():
            if (field := getattr(self._labels, key)) and value is not None:
                told = with_value(
                    told, (*(() if key == "time" else within), *pointer(field)), value
                )
        raw = encoded(told)
        read = self._reader.read(outside.records(self._task, "", [raw], 0))
        refuse(read.letters)
        pending = trainer.submit(self._no_rows, [(0, each) for each in read.labels])
        joined = pending.joined
        assert joined  # noqa: S101
        self._truth.add(joined.truth)
        drift = trainer.collect(pending).drift
        refuse(letter for letter in joined.letters if letter.code != "unknown_id")  # of another's
        outcomes = (name for name in OUTCOMES if getattr(joined.truth, name))
        return next(outcomes, "held"), drift

    def report(self, trainer: Trainer) -> dict[str, Any]:
        """Account for labels, those that came within their events too, and for what waits."""
        if trainer.join is None:
            return {}
        told = {"pending": trainer.join.pending, "delay": trainer.join.delays.report()}
        return {"labels": msgspec.structs.asdict(self._truth) | told}

    def submit(self, trainer: Trainer, rows: Rows) -> Pending:
        """Submit rows, and count what became of the labels within them."""
        pending = trainer.submit(rows)
        if pending.joined:
            self._truth.add(pending.joined.truth)
        return pending
