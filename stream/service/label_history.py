"""Labels as they came, record by record of the ledger, between the events of each."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.stream.events import DeadLetter
from headrace.stream.kafka.history import History
from headrace.stream.ledger.ledger import Record
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import Placed, by_arrival, placed
from headrace.stream.rows.rows import Rows, joined, take
from headrace.stream.task import Task


class LabelHistory:
    """Read the labels that records of the ledger took."""

    def __init__(self, task: Task, history: History) -> None:
        self._reader, self._history = LabelReader(task), history

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._reader.non_finite

    def between(
        self, rows: Rows, records: Sequence[Record]
    ) -> tuple[Rows, list[Placed], list[DeadLetter]]:
        """Return the rows of records as the learner took them, with the labels between them.

        Args:
            rows: of all the records, in order, without those that were refused.

        Returns:
            rows by arrival within each record, labels, and dead letters of what is none.
        """
        found, letters, parts, first = list[Placed](), list[DeadLetter](), list[Rows](), 0
        for record in records:
            last = self._end(rows, record, first)
            own = by_arrival(take(rows, list(range(first, last))))
            parts.append(own)
            if record.labels:
                labels, arrived_ms, unread = self._reader.read(self._history.read(record.labels))
                found += [(first + at, label) for at, label in placed(own, labels, arrived_ms)]
                letters += unread
            first = last
        return joined(parts, rows), found, letters

    def _end(self, rows: Rows, record: Record, first: int) -> int:
        """Return the place behind the last row of a record whose rows begin at `first`."""
        for each in record.consumed:
            while (
                first < len(rows.id)
                and rows.partition[first] == each.partition
                and each.start <= rows.offset[first] < each.stop
            ):
                first += 1
        return first
