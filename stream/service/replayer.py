"""Learn again what the ledger says was learned, and prove that it comes out the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from headrace.stream.errors import AuditError
from headrace.stream.events import DeadLetter, Records
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.history import History
from headrace.stream.ledger.ledger import Record
from headrace.stream.ledger.position import Counts
from headrace.stream.rows.late import Placed, Truth
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows, split
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.task import Task
from headrace.stream.training.late_labels import account
from headrace.stream.training.learned import Learned, Pending
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer


class LedgerReplayer:
    """Feed records of the ledger in order; the trainer then stands where the learner stood.

    Small micro-batches are put together: that changes no bit of the outcome. While XLA works on
    one batch, the next is read and normalised.

    Args:
        trainer: stands before the first record that is fed.
        history: gives the raw events.
        labels: gives the records of the labels topic, None if there is none.
        proven_from: outcomes of records before this one are not compared with the ledger.
        fields: takes the events that the learner decoded itself, as it took them then.
        on_read: called with the raw events of records, which are learned next.
        on_refused: called with the dead letters of each batch.
        on_learned: called with each batch as it was learned again.

    Raises (add, finish):
        AuditError: an outcome is another than the ledger's; names the first such record.
        HistoryError: raw events are gone.
    """

    def __init__(
        self,
        task: Task,
        trainer: Trainer,
        history: History,
        labels: History | None = None,
        *,
        proven_from: int = 0,
        fields: NewFields | None = None,
        on_read: Callable[[Records, Sequence[Record]], None] = lambda records, group: None,
        on_refused: Callable[[list[DeadLetter]], None] = lambda letters: None,
        on_learned: Callable[[Learned], None] = lambda learned: None,
    ) -> None:
        self._trainer, self._history = trainer, history
        self._normalizer = Normalizer(task)
        self._labels = labels and LabelHistory(task, labels)
        self._proven_from, self._on_learned = proven_from, on_learned
        self._fields, self._on_read, self._on_refused = fields, on_read, on_refused
        self._group: list[Record] = []
        self._span = 0
        self._working: tuple[list[Record], list[Pending]] | None = None
        self.counts = Counts()

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._normalizer.non_finite + (self._labels.non_finite if self._labels else 0)

    def add(self, record: Record) -> None:
        """Learn a record again, sooner or later."""
        ranges = [*(each.range for each in record.consumed), *record.labels]
        span = sum(each.stop - each.start for each in ranges)
        full = self._span + span > self._trainer.capacity
        other = bool(self._group) and bool(self._group[0].reading) != bool(record.reading)
        if self._group and (full or other or record.seq == self._proven_from):
            self._submit()
        self._group.append(record)
        self._span += span
        self.counts.add(record)

    def finish(self) -> None:
        """Learn all that was fed, and prove it."""
        self._submit()
        self._verify()

    def state(self) -> str:
        """Return the digest of the state after all that was fed."""
        self.finish()
        return digest(self._trainer.snapshot().tensors())

    def _submit(self) -> None:
        group, self._group, self._span = self._group, [], 0
        ranges = [each.range for record in group for each in record.consumed]
        if not ranges and not any(record.labels for record in group):
            return
        records = self._history.read(ranges)
        self._on_read(records, group)
        rows, refused = self._normalizer.normalize(records)
        rows, repeated = self._trainer.admit(rows, records.topic)
        between, unread = list[Placed](), list[DeadLetter]()
        if self._labels:
            rows, between, unread = self._labels.between(rows, group)
        self._on_refused([*refused, *repeated, *unread])
        if self._fields and not group[0].reading:
            self._fields.add(records.values)
        if group[0].seq >= self._proven_from:
            self._compare("events used", group, len(rows.id), [r.predicted for r in group])
            self._compare("events refused", group, len(refused), [r.rejected for r in group])
            self._compare("ids repeated", group, len(repeated), [r.repeated for r in group])
        pending = self._submitted(rows, between, unread, group)
        self._verify()
        self._working = (group, pending)

    def _submitted(
        self, rows: Rows, between: list[Placed], unread: list[DeadLetter], group: list[Record]
    ) -> list[Pending]:
        """Submit rows, and labels between them, whose account is compared with the ledger's."""
        if not self._labels:
            parts = split(rows, self._trainer.capacity)
            return [self._trainer.submit(part) for part in parts]
        pending = self._trainer.submit(rows, between)
        found, said = account(pending.joined, unread), Truth()
        for record in group:
            said.add(record.truth or Truth())
        if group[0].seq >= self._proven_from and found != said:
            raise AuditError(
                f"records {group[0].seq} to {group[-1].seq}: of labels came out {found}, the "
                f"ledger says {said}; the code, the task or a topic is another than it was"
            )
        self._on_refused(pending.joined.letters if pending.joined else [])
        return [pending]

    def _compare(self, what: str, group: list[Record], found: int, said: Iterable[int]) -> None:
        if found != sum(said):
            raise AuditError(
                f"records {group[0].seq} to {group[-1].seq}: {found} {what}, the ledger says "
                f"{sum(said)}; the code, the task or the topic is another than it was"
            )

    def _verify(self) -> None:
        """Wait for the batch that is under way, and compare it with the ledger."""
        if self._working is None:
            return
        (group, pending), self._working = self._working, None
        parts = [self._trainer.collect(each) for each in pending]
        for part in parts:
            self._on_learned(part)
        if group[0].seq < self._proven_from or not parts:
            return
        whole = Learned(
            parts[0].rows,
            np.concatenate([part.published for part in parts]),
            np.concatenate([part.answer for part in parts]),
            np.concatenate([part.step for part in parts]),
            [],
            parts[0].classes,
        )
        first = 0
        for record in group:
            if (
                record.predicted
                and whole.outcome(first, first + record.predicted) != record.output_digest
            ):
                raise AuditError(
                    f"record {record.seq} of the ledger comes out otherwise when it is learned "
                    "again: the code or the libraries are others than they were, or a state is "
                    "rotten"
                )
            first += record.predicted
