"""Look at events as a task reads them, without learning: what is refused, what must not be fed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from headrace.stream.errors import HeadraceError
from headrace.stream.evaluation.columns import ColumnCheck
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.evaluation.scores import counted
from headrace.stream.events import Records
from headrace.stream.formats.files import Given
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows.classes import NEW_CLASS, Classes
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.refusals import Refusal, Refusals, nothing_learned
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Frozen

INSPECTED = 50_000  # rows
INSPECTED_TEXTS = 10_000  # rows, where n-grams of texts take most of the time
BATCH = 4096
WAIT_S = 10.0


@dataclass(frozen=True)
class Inspection:
    """Say what became of the rows: read, refused with which codes, and what to know of columns.

    Attributes:
        noun: what they are: a "row" of a file, or an "event" of a topic.
        non_finite: NaN and Infinity that are no JSON, and were read as missing.
    """

    rows: int
    labelled: int
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    noun: str = "row"
    non_finite: int = 0

    def lines(self) -> list[str]:
        """Return what a person needs to know: how many rows are good, and what is wrong."""
        refused = sum(each.count for each in self.refusals)
        read = counted(self.rows, self.noun)
        return [f"{read} read, {refused:,} refused, {self.labelled:,} with a label", *self.doubts()]

    def doubts(self) -> list[str]:
        """Return the lines about what is wrong."""
        return [*map(str, self.refusals), *(f"warning: {each}" for each in self.warnings)]

    def check(self) -> None:
        """Make sure that there is something to learn.

        Raises:
            HeadraceError: every row is refused, or none has a label.
        """
        if failure := nothing_learned(self.rows, self.labelled, self.refusals, self.noun):
            raise HeadraceError(failure)


def inspect_file(task: Task, path: Given, limit: int | None = None) -> Inspection:
    """Read the first rows of a file, or of several, as `evaluate` does.

    Raises:
        UsageError: the file cannot be read, or lacks a column or the time that the task needs.
    """
    if limit is None:
        limit = INSPECTED_TEXTS if task.of_kind(Frozen) or task.encoded else INSPECTED
    rows = FileRows(task, path, limit)
    return _inspect(task, rows.task, iter(lambda: rows.take(BATCH), None))


def inspect_topic(task: Task, kafka: KafkaConnection) -> Inspection:
    """Read the first events of a task's topic.

    Raises:
        BrokerError, TopicError: no broker; no such topic.
    """
    with closing(kafka.source(task.input.topic, timestamps=True)) as source:
        records = source.poll(BATCH, WAIT_S)
    return _inspect(task, task, [records] if records else [], topic=True)


def _inspect(
    task: Task, reads: Task, batches: Iterable[Records], *, topic: bool = False
) -> Inspection:
    refusals = Refusals(task, topic=topic)
    normalizer, columns = Normalizer(reads), ColumnCheck(task)
    classes, count, labelled = Classes(task), 0, 0
    for records in batches:
        if not records.values:
            break
        rows, refused = normalizer.normalize(records)
        rows = _with_classes(rows, classes)
        refusals.add(refused)
        columns.add(rows)
        count += len(records.values)
        labelled += int((~np.isnan(rows.label)).sum())
    warnings = [*refusals.warnings(count), *columns.warnings()]
    noun = "event" if topic else "row"
    return Inspection(count, labelled, refusals.all, tuple(warnings), noun, normalizer.non_finite)


def _with_classes(rows: Rows, classes: Classes) -> Rows:
    """Return labels that name a class by its index; those that there is no room for stay."""
    for at in np.flatnonzero(rows.label == NEW_CLASS).tolist():
        index = classes.take_up(rows.new_class[at] or "")
        rows.label[at] = NEW_CLASS if index is None else index
    return rows
