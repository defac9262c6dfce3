"""What else learns a part of history beside what was learned: a changed task, or other delays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from headrace.stream.audit.known_labels import KnownLabels
from headrace.stream.audit.replay_range import ReplayRange
from headrace.stream.evaluation.compare import Comparison, Rival, compare
from headrace.stream.evaluation.delayed_trainer import DelayedTrainer
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import TopicHistory
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Record
from headrace.stream.rows.label_delay import LabelDelay
from headrace.stream.service.label_history import LabelHistory
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer


class HistoryRival:
    """Learn the events of a part of the ledger another way.

    Late labels come to a changed task as they came then. With a delay they come so much later than
    their events, whenever that was; then all of them are held in memory.

    Args:
        changed: what learns, from nothing.
        on_learned: called with each batch that it learned.
        stack: closes in the end what is opened here.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        span: ReplayRange,
        changed: Task,
        delay: LabelDelay | None,
        capacity: int,
        on_learned: Callable[[Learned], None],
        stack: ExitStack,
    ) -> None:
        self._task, self._changed, self._delay = task, changed, delay
        known, self._late = None, None
        if task.labels:
            topic = task.labels.topic

            def open_labels() -> TopicHistory:
                return stack.enter_context(closing(TopicHistory(kafka, topic)))

            known = KnownLabels(task, open_labels())
            first, last = span.ends()
            for entry in ledger.read(kafka, task.output("ledger"), first.offset, last.offset + 1):
                known.add(entry.record)
            if not delay:
                self._late = LabelHistory(changed, open_labels())
        if delay:
            changed = changed.model_copy(update={"labels": None})
        trainer: Trainer
        if delay and delay.mean:
            trainer = DelayedTrainer(changed, capacity, delay, numbered=False)
        else:
            trainer = Trainer(changed, capacity)
        put = known.put if known else lambda rows: rows
        self.rival = Rival(task, trainer, on_learned, put)

    def take(self, records: Records, group: Sequence[Record]) -> None:
        """Learn the raw events of records of the ledger, and the labels between them."""
        late = self._late
        self.rival.take(records, (lambda rows: late.between(rows, group)[:2]) if late else None)

    def compare(self, report: dict[str, Any]) -> Comparison:
        """Sum up; `report` holds the metrics of the task as it was."""
        found = compare(self._task, self._changed, report, self.rival)
        if self._delay:
            found = replace(found, changes=[*found.changes, f"labels: {self._delay.words}"])
        return found

    def finish(self) -> None:
        """Learn the labels that are still to come."""
        self.rival.finish()
        if isinstance(self.rival.trainer, DelayedTrainer):
            self.rival.trainer.learn_rest()
