"""Several partitions in the order in which Kafka got their records, while these are history."""

from __future__ import annotations

import math
import time

from headrace.stream.events import Records
from headrace.stream.kafka.held import MOST_HELD, HeldRecords, Newest
from headrace.stream.kafka.source import Source

PATIENCE_S = 1.0


class MergedSource:
    """Read a topic like a `Source` with timestamps, but what was there at first by time.

    A record waits until all partitions have come as far, or none was given for PATIENCE_S. Those
    that come later are given at once: they are as late as they are.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._held = source, HeldRecords(source.topic)
        self._given_s = time.monotonic()
        self._newest = Newest()  # of records in hand or given
        self._history: dict[int, int] | None = source.ends() if len(source.partitions) > 1 else None
        self.topic, self.ends, self.close = source.topic, source.ends, source.close

    @property
    def partitions(self) -> list[int]:
        """Return the partitions."""
        return self._source.partitions

    @property
    def position(self) -> dict[int, int]:
        """Return by partition the offset to be given next."""
        return self._source.position | {p: at for p, (at, _) in self._held.first().items()}

    @property
    def ended(self) -> set[int]:
        """Return the partitions of which nothing more was there."""
        return self._source.ended - self._held.first().keys()

    @property
    def complete_ms(self) -> float:
        """Return up to when all records were given; infinite once all that are there were."""
        first = self._held.first()
        waiting = [stamp - 1 for _, stamp in first.values()]
        behind = set(self.partitions) - self._source.ended - first.keys()
        return min([*waiting, self._newest.complete_ms(behind) - 1])

    def lag(self) -> int:
        """Count the records known to wait."""
        return self._source.lag() + len(self._held)

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Take what may be given, about `most` records; None when that is nothing."""
        if self._history is None:
            records = self._source.poll(most, timeout_s)
            if records:
                self._newest.add(records.partitions, records.timestamps_ms)
            return records
        records = self._source.poll(most, timeout_s) if len(self._held) < MOST_HELD else None
        if records:
            self._newest.add(records.partitions, records.timestamps_ms)
            self._held.add(records)
        until_ms, waited_s = math.inf, time.monotonic() - self._given_s
        if len(self._held) < MOST_HELD and waited_s < PATIENCE_S:
            behind = set(self.partitions) - self._source.ended
            until_ms = self._newest.complete_ms(behind)
        given = self._held.take(min(until_ms, self._held.time_of(most - 1)))
        if given.offsets or not len(self._held):
            self._given_s = time.monotonic()
        position = self.position
        if all(position[p] >= end for p, end in self._history.items()) and not len(self._held):
            self._history = None
        return given if given.offsets else None
