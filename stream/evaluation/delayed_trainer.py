"""What would become of a stream whose labels come late: when each of them comes.

Each event is predicted, and its label comes a number of events or a time later. Those that are
still to come at the end are learned then, so that delays are compared over the same events (as
River's delayed progressive validation does: Grzenda, Gomes & Bifet 2020, "Delayed labelling
evaluation for data streams").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headrace.model import waiting
from headrace.stream.errors import UsageError
from headrace.stream.events import DeadLetter, DriftRecord
from headrace.stream.rows.label_delay import MOST_BYTES, DelayedLabels, LabelDelay
from headrace.stream.rows.late import LateLabel, Placed, labels_of, unlabelled
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task
from headrace.stream.training.label_join import MISSED
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer


class DelayedTrainer(Trainer):
    """Learn rows whose labels come late; otherwise it is used as any trainer, batch after batch.

    Args:
        numbered: whether rows have their number for an offset, those that are refused too; else
            they are counted here.

    What came of a batch is told of its rows, with the labels that they brought.

    Raises:
        UsageError: the task's labels cannot come late.
    """

    def __init__(
        self, task: Task, capacity: int, delay: LabelDelay, *, numbered: bool = True
    ) -> None:
        super().__init__(_late(task, delay), capacity)
        self._count = None if numbered else 0
        self._delayed = DelayedLabels[LateLabel](delay)
        self._none: Any = None  # rows of which there are none
        self._refused = list[DeadLetter]()
        self._missed = 0

    def submit(
        self, rows: Rows, labels: Sequence[Placed] = (), ids: Sequence[str | int] | None = None
    ) -> Pending:
        """Start predicting rows, and learning the labels that come meanwhile; does not wait."""
        numbers: Sequence[int] = rows.offset
        if self._count is not None:
            numbers = range(self._count, self._count + len(rows.id))
            self._count += len(rows.id)
        due = self._delayed.pass_by(labels_of(rows), numbers, rows.time_ms.tolist())
        self._none = self._none or take(rows, [])
        return self._start(rows, [*labels, *due])

    def learn_rest(self) -> list[DriftRecord]:
        """Learn the labels that are still to come, once all is collected; tell of drift."""
        found, rest = list[DriftRecord](), self._delayed.rest()
        for first in range(0, len(rest), self.capacity):
            part = rest[first : first + self.capacity]
            found += self.collect(self._start(self._none, part)).drift
        return found

    def _start(self, rows: Rows, due: Sequence[Placed]) -> Pending:
        # By offset, which is each row's own: an id may come again.
        due = [(before, label._replace(id=label.offset)) for before, label in due]
        bare = unlabelled(rows)._replace(id=[*rows.offset])
        pending = super().submit(bare, due, rows.id)
        joined = pending.joined
        assert joined  # noqa: S101
        self._refused += [letter for letter in joined.letters if letter.code not in MISSED]
        self._missed += sum(letter.code in MISSED for letter in joined.letters)
        self._missed += joined.truth.held
        return pending._replace(joined=joined._replace(told=rows))

    def take_refused(self) -> list[DeadLetter]:
        """Return the labels that were refused since the last time."""
        found, self._refused = self._refused, []
        return found

    def warnings(self) -> Iterator[str]:
        """Yield a line if labels found that their row had left."""
        if self._missed:
            labels = self.task.labels
            most = labels.max_pending if labels else self.spec.waiting
            yield f"{self._missed:,} labels came too late: {most:,} rows wait at a time"


def _late(task: Task, delay: LabelDelay) -> Task:
    """Return a task whose labels come by themselves.

    Raises:
        UsageError: it cannot be.
    """
    if task.target.horizon and not task.labels:
        raise UsageError(
            f"--label-delay: target.horizon = {task.target.horizon} says already when labels come: "
            "leave one of them out, or name a topic of labels by [labels]"
        )
    if task.model.chunk > 1:
        raise UsageError(
            f"--label-delay: model.chunk = {task.model.chunk}, expected 1: late labels are learned "
            "one by one"
        )
    if delay.timed and not task.input.time:
        raise UsageError(
            "--label-delay: a time needs that of events: name its column by input.time, or tell "
            "the delay in events"
        )
    room = max(MOST_BYTES // waiting.row_bytes(task.spec), 1)
    if delay.mean > room and not (delay.timed or delay.drawn):
        raise UsageError(
            f"--label-delay {int(delay.mean)}: {room:,} rows of this task may wait at a time"
        )
    return task.with_late_labels(min(delay.waiting, room))
