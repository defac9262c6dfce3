"""Where late labels come from: their topic, no further than the events have come.

Kafka's timestamps say which events a label came after. While history is read, a label waits for
the events before it, of all partitions, and these for the labels that came before them, so that a
backlog is learned in the order in which it was lived. What a micro-batch took of both is what the
ledger says.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from headrace.stream.events import DeadLetter
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.held import MOST_HELD, HeldRecords
from headrace.stream.kafka.history import Range
from headrace.stream.kafka.watch import TopicWatch
from headrace.stream.ledger.position import Offsets, advance, move
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import LateLabel
from headrace.stream.task import Task

PATIENCE_S = 1.0  # without a label, while events wait for those before them
POLL_S = 0.05


class LabelBatch(NamedTuple):
    """Hold what one micro-batch took from a labels topic."""

    ranges: list[Range]
    labels: list[LateLabel]
    arrived_ms: list[int]
    letters: list[DeadLetter]  # of records that are no labels


NO_LABELS = LabelBatch([], [], [], [])


class LabelSource:
    """Take labels, each partition in its order.

    Args:
        positions: up to which everything was taken; the first range begins there.
        starts: where to read on; later than `positions` where labels were deleted.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        positions: Offsets,
        starts: Offsets,
        watch: TopicWatch | None = None,
    ) -> None:
        self._reader, self._positions = LabelReader(task), dict(positions)
        self._topic = task.labels.topic if task.labels else ""
        self._source = kafka.source(self._topic, offsets=starts, timestamps=True, watch=watch)
        self._held = HeldRecords(self._topic)
        self._newest_ms = 0  # of the events that were taken
        self._complete_ms = -math.inf
        self.ends, self.close = self._source.ends, self._source.close

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._reader.non_finite

    def take(
        self, newest_ms: int, complete_ms: float, most: int, *, history: bool = False
    ) -> LabelBatch | None:
        """Take the labels that came before the events did that are taken next; None without any.

        Args:
            newest_ms: Kafka's timestamp of the newest event that is taken with them, 0 if none is.
            complete_ms: up to when all events were taken; a later label waits for its own.
            most: labels to ask for at a time.
            history: wait for the labels that came before the events that were taken.
        """
        self._newest_ms, self._complete_ms = max(self._newest_ms, newest_ms), complete_ms
        self._poll(most, 0)
        give_up_s = time.monotonic() + PATIENCE_S
        wanted_ms = min(self._newest_ms, complete_ms)
        while history and self._is_behind(wanted_ms) and time.monotonic() < give_up_s:
            if self._poll(most, POLL_S):
                give_up_s = time.monotonic() + PATIENCE_S
        return self._release(complete_ms)

    def pass_over(self) -> list[Range]:
        """Return the offsets between the last label of a partition and its end."""
        held = self._held.first()
        ends = {p: self._source.position[p] for p in self._source.ended if p not in held}
        return move(self._positions, ends)

    def lag(self) -> int:
        """Count what is known to wait."""
        return self._source.lag() + len(self._held)

    def reached(self, ends: Offsets) -> bool:
        """Return whether everything before `ends` was taken, but for what waits for events."""
        first = self._held.first().items()
        late = {p: at for p, (at, stamp) in first if stamp <= self._complete_ms}
        return all(late.get(p, self._source.position[p]) >= end for p, end in ends.items())

    def _poll(self, most: int, timeout_s: float) -> bool:
        if len(self._held) >= MOST_HELD:
            return False
        records = self._source.poll(most, timeout_s)
        if records is None:
            return False
        self._held.add(records)
        return True

    def _is_behind(self, wanted_ms: float) -> bool:
        """Return whether a partition may hold more labels up to then."""
        if len(self._held) >= MOST_HELD:
            return False
        return any(
            partition not in self._source.ended
            and (self._held.last_ms(partition) or 0) <= wanted_ms
            for partition in self._source.partitions
        )

    def _release(self, until_ms: float) -> LabelBatch | None:
        found = self._held.take(until_ms)
        if not found.offsets:
            return None
        ranges = advance(self._positions, found)
        labels, arrived_ms, letters = self._reader.read(found)
        return LabelBatch(ranges, labels, arrived_ms, letters)
