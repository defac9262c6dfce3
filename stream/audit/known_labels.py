"""The labels of a part of history, known at once: what they would have been worth, and were."""

from __future__ import annotations

from headrace.stream.kafka.history import History
from headrace.stream.ledger.ledger import Record
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task


class KnownLabels:
    """Remember the label of each event by its id: the one that counts, as `labels.policy` says."""

    def __init__(self, task: Task, history: History) -> None:
        self._reader, self._history = LabelReader(task), history
        self._last_counts = task.labels is not None and task.labels.policy == "relearn"
        self._of: dict[str | int, tuple[float, str | None]] = {}

    def add(self, record: Record) -> None:
        """Take in the labels that a record of the ledger took."""
        if not record.labels:
            return
        for label in self._reader.read(self._history.read(record.labels)).labels:
            if self._last_counts or label.id not in self._of:
                self._of[label.id] = label.label, label.new_class

    def put(self, rows: Rows) -> Rows:
        """Return rows with the labels that are known of those that bring none."""
        label, new_class = rows.label.copy(), [*rows.new_class]
        for at, id in enumerate(rows.id):
            if label[at] != label[at] and (known := self._of.get(id)):
                label[at], new_class[at] = known
        return rows._replace(label=label, new_class=new_class)
