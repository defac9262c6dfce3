"""Records in hand, by partition: until their time has come."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

from headrace.stream.events import Records

MOST_HELD = 100_000  # records of a topic that may wait for others


class Newest:
    """Hold Kafka's timestamp of the newest record that was seen, by partition."""

    def __init__(self) -> None:
        self._ms: dict[int, int] = {}

    def add(self, partitions: Sequence[int], timestamps_ms: Sequence[int]) -> None:
        """Note records; without timestamps where nobody asked for them."""
        newest = self._ms
        for partition, time_ms in zip(partitions, timestamps_ms, strict=False):
            if time_ms > newest.get(partition, 0):
                newest[partition] = time_ms

    def complete_ms(self, behind: Iterable[int]) -> float:
        """Return up to when these partitions were seen, of which more may be there."""
        return min((self._ms.get(partition, 0) for partition in behind), default=math.inf)


class HeldRecords:
    """Hold records of one topic, with timestamps, each partition in its order."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._of: dict[int, Records] = {}

    def __len__(self) -> int:
        return sum(len(held.offsets) for held in self._of.values())

    def add(self, records: Records) -> None:
        """Take in records that come by partition."""
        first, partitions = 0, records.partitions
        while first < len(partitions):
            at = partitions[first]
            last = bisect_right(partitions, at, first)
            _move(records, first, last, self._of.setdefault(at, _none(self._topic)))
            first = last

    def first(self) -> dict[int, tuple[int, int]]:
        """Return offset and timestamp of the first record of each partition that has any."""
        return {
            p: (held.offsets[0], held.timestamps_ms[0])
            for p, held in self._of.items()
            if held.offsets
        }

    def last_ms(self, partition: int) -> int | None:
        """Return the timestamp of the last record of a partition; None without one."""
        held = self._of.get(partition)
        return held.timestamps_ms[-1] if held and held.offsets else None

    def take(self, until_ms: float) -> Records:
        """Return the records up to the first of each partition that is later."""
        found = _none(self._topic)
        for partition, held in sorted(self._of.items()):
            count = len(held.offsets)
            if count and max(held.timestamps_ms) > until_ms:
                later = (at for at, stamp in enumerate(held.timestamps_ms) if stamp > until_ms)
                count = next(later)
            _move(held, 0, count, found)
            self._of[partition] = _move(held, count, len(held.offsets), _none(self._topic))
        return found

    def time_of(self, number: int) -> float:
        """Return when the record of this number, from 0 on, may be taken, if all are by time."""
        due = sorted(chain(*(accumulate(each.timestamps_ms, max) for each in self._of.values())))
        return due[number] if number < len(due) else math.inf


def _none(topic: str) -> Records:
    return Records(topic, [], [], [], [], [])


def _move(source: Records, first: int, last: int, to: Records) -> Records:
    """Add some records to others, and return these."""
    to.values.extend(source.values[first:last])
    to.keys.extend(source.keys[first:last])
    to.partitions.extend(source.partitions[first:last])
    to.offsets.extend(source.offsets[first:last])
    to.timestamps_ms.extend(source.timestamps_ms[first:last])
    return to
