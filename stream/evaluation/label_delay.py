"""What would become of a stream whose labels come late: when each of them comes.

Each event is predicted, and its label comes a number of events or a time later. Those that are
still to come at the end are learned then, so that delays are compared over the same events (as
River's delayed progressive validation does: Grzenda, Gomes & Bifet 2020, "Delayed labelling
evaluation for data streams").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import UsageError
from headrace.stream.events import DeadLetter, DriftRecord
from headrace.stream.rows.late import LateLabel, Placed, labels_of, unlabelled
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task
from headrace.stream.training.label_join import MISSED
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer

MOST_WAITING = 100_000  # rows, where a delay does not say how many
MOST_BYTES = 1 << 30  # of what they take
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DELAY = re.compile(r"(exp\()?\s*([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)\s*(\))?")
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class LabelDelay(NamedTuple):
    """Say how long a label takes.

    Attributes:
        mean: events, or ms of event time.
        timed: whether it is a time.
        drawn: whether it is the mean of an exponential distribution, drawn by the row's number; or
            always the same.
    """

    mean: float
    timed: bool = False
    drawn: bool = False

    @property
    def waiting(self) -> int:
        """Return for how many rows at a time there has to be room."""
        return MOST_WAITING if self.timed or self.drawn else max(int(self.mean), 1)

    def of(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the delays of rows by their numbers, float64[n]: events, or ms."""
        if not self.drawn:
            return np.full(len(numbers), self.mean)
        shares = _uniform(np.array(numbers, np.uint64))
        found: NDArray[np.float64] = -self.mean * np.log1p(-shares)
        return found if self.timed else np.floor(found)


def parse(text: str) -> LabelDelay:
    """Read a delay: `500` events, `10m` of event time, `exp(1d)` on average.

    Raises:
        UsageError: it is none.
    """
    found = _DELAY.fullmatch(text.strip())
    if found is None or bool(found[1]) != bool(found[4]):
        raise UsageError(
            f"--label-delay {text[:40]}: expected events (500), a time (10m, with s, m, h or d), "
            "or the mean of delays that are drawn: exp(500), exp(1d)"
        )
    drawn, number, unit, _ = found.groups()
    mean = float(number) * (1000 * _SECONDS[unit] if unit else 1)
    if not unit and not drawn and not mean.is_integer():
        raise UsageError(f"--label-delay {text}: expected a whole number of events")
    if mean > 1e15 or (not unit and mean >= 1e7):
        raise UsageError(f"--label-delay {text}: expected fewer than 10,000,000 events")
    return LabelDelay(mean, bool(unit), bool(drawn))


class DelayedLabels:
    """Hold labels until they are due; events come in the order of the file."""

    def __init__(self, delay: LabelDelay) -> None:
        self._delay = delay
        self._due: list[tuple[float, int, LateLabel]] = []
        self._events = 0

    def pass_by(
        self, labels: Sequence[LateLabel | None], time_ms: NDArray[np.int64]
    ) -> list[tuple[int, LateLabel]]:
        """Take in the labels of the next events, None of those that have none.

        A label comes before the first event that its delay has passed by, or at once.

        Returns:
            the labels that come meanwhile, each with how many of these events come before it.
        """
        found: list[tuple[int, LateLabel]] = []
        numbers = range(self._events, self._events + len(labels))
        delays, times = self._delay.of(numbers).tolist(), time_ms.tolist()
        nows = times if self._delay.timed else numbers
        for at, (number, now, delay, label) in enumerate(
            zip(numbers, nows, delays, labels, strict=True)
        ):
            self._move(now, at, found)
            if label is not None:
                heappush(self._due, (now + delay, number, label))
                self._move(now, at + 1, found)
        self._events += len(labels)
        return found

    def rest(self) -> list[tuple[int, LateLabel]]:
        """Return those that are still to come, as of the end."""
        found: list[tuple[int, LateLabel]] = []
        self._move(math.inf, 0, found)
        return found

    def _move(self, now: float, before: int, found: list[tuple[int, LateLabel]]) -> None:
        while self._due and self._due[0][0] <= now:
            found.append((before, heappop(self._due)[2]))


class DelayedTrainer(Trainer):
    """Learn rows whose labels come late; otherwise it is used as any trainer, batch after batch.

    What came of a batch is told of its rows, with the labels that they brought.

    Raises:
        UsageError: the task's labels cannot come late.
    """

    def __init__(self, task: Task, capacity: int, delay: LabelDelay) -> None:
        super().__init__(_late(task, delay), capacity)
        self._delayed = DelayedLabels(delay)
        self._none: Any = None  # rows of which there are none
        self._refused = list[DeadLetter]()
        self._missed = 0

    def submit(self, rows: Rows, labels: Sequence[Placed] = ()) -> Pending:
        """Start predicting rows, and learning the labels that come meanwhile; does not wait."""
        due = self._delayed.pass_by(labels_of(rows), rows.time_ms)
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
        pending = super().submit(bare, due)
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
            yield (
                f"{self._missed:,} labels came too late: {self.spec.waiting:,} rows wait at a time"
            )


def _late(task: Task, delay: LabelDelay) -> Task:
    """Return a task whose labels come by themselves.

    Raises:
        UsageError: it cannot be.
    """
    if task.target.horizon:
        raise UsageError(
            f"--label-delay: target.horizon = {task.target.horizon} says already when labels come; "
            "leave one of them out"
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
    spec = task.spec
    row_bytes = 4 * (spec.inputs + spec.ids + spec.past_labels + spec.published + 3)
    room = max(MOST_BYTES // row_bytes, 1)
    if delay.mean > room and not (delay.timed or delay.drawn):
        raise UsageError(
            f"--label-delay {int(delay.mean)}: {room:,} rows of this task may wait at a time"
        )
    return task.with_late_labels(min(delay.waiting, room))


def _uniform(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return numbers in [0, 1), drawn by others: SplitMix64 (Steele, Lea & Flood 2014)."""
    step, first, second = (np.uint64(each) for each in _MIX)
    with np.errstate(over="ignore"):
        mixed = (numbers + np.uint64(1)) * step
        mixed = (mixed ^ (mixed >> np.uint64(30))) * first
        mixed = (mixed ^ (mixed >> np.uint64(27))) * second
        mixed = mixed ^ (mixed >> np.uint64(31))
    shares: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    return shares
