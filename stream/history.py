"""What happened, in order: the raw records of given ranges, from the topic or from an archive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from stream.errors import HistoryError
from stream.events import Records
from stream.kafka import Source

READ = 8192
WAIT_S = 0.5
PATIENCE = 40  # empty polls in a row until a record counts as not to be had


class Range(NamedTuple):
    """Name the offsets `start` to `stop` (exclusive) of one partition of the raw topic."""

    partition: int
    start: int
    stop: int


class History(Protocol):
    """Give raw records again; what is asked for goes forward in each partition."""

    def read(self, ranges: Sequence[Range]) -> Records:
        """Give the records of the ranges, in the order of the ranges, then of offsets.

        An offset that holds no record (a control record, a compacted one) is left out.

        Raises:
            HistoryError: records were there and are gone (retention), or have not come yet.
        """
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


class TopicHistory:
    """Read history from the raw topic itself, as far back as Kafka keeps it."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._partitions: dict[int, _Partition] = {}

    def read(self, ranges: Sequence[Range]) -> Records:
        """Give the records of the ranges; see `History`."""
        parts = []
        for each in ranges:
            reader = self._partitions.get(each.partition)
            if reader is None or each.start > reader.source.position[each.partition]:
                if reader:
                    reader.source.close()
                reader = _Partition(self._bootstrap, self._topic, each)
                self._partitions[each.partition] = reader
            parts.append(reader.take(each))
        return join(self._topic, parts)

    def end(self, partition: int) -> int:
        """Ask for the end of a partition as it is now; 0 for one that is not there."""
        source = Source(self._bootstrap, self._topic)
        ends = source.ends()
        source.close()
        return ends.get(partition, 0)

    def close(self) -> None:
        """Stop reading."""
        for reader in self._partitions.values():
            reader.source.close()


class _Partition:
    """Read one partition forward, keeping what was fetched beyond the range asked for."""

    def __init__(self, bootstrap: str, topic: str, first: Range) -> None:
        at = first.partition
        self.source = Source(
            bootstrap, topic, offsets={at: first.start}, partitions=[at], timestamps=True
        )
        self._name = f"{topic}/{at}"
        self._partition = at
        if (begin := self.source.begins[at]) > first.start:
            self.source.close()
            raise HistoryError(
                f"{self._name}: offsets {first.start:,} to {begin - 1:,} are needed again and were "
                "deleted (retention); give an archive that has them, or begin --from-scratch"
            )
        self._left = Records(topic, [], [], [], [], [])

    def take(self, wanted: Range) -> Records:
        """Give the records of a range, and forget those before it."""
        parts, empty = [self._left], 0
        while self.source.position[self._partition] < wanted.stop:
            records = self.source.poll(READ, WAIT_S)
            if records:
                parts.append(records)
                empty = 0
                continue
            empty += 1
            if self._partition in self.source.ended or empty == PATIENCE:
                if self.source.position[self._partition] >= wanted.stop:
                    break
                raise HistoryError(
                    f"{self._name}: offset {wanted.stop - 1:,} is needed and not there: the topic "
                    f"ends at {self.source.position[self._partition]:,}"
                )
        have = join(self._left.topic, parts)
        first = bisect_left(have.offsets, wanted.start)
        last = bisect_left(have.offsets, wanted.stop, first)
        self._left = cut(have, last, None)
        return cut(have, first, last)


def join(topic: str, parts: Sequence[Records]) -> Records:
    """Put consecutive records into one."""
    if len(parts) == 1:
        return parts[0]
    columns: list[list[Any]] = [
        list(chain.from_iterable(c)) for c in zip(*(p[1:] for p in parts), strict=True)
    ]
    return Records(topic, *columns) if columns else Records(topic, [], [], [], [], [])


def cut(records: Records, first: int, last: int | None) -> Records:
    """Give the records at places `first` to `last` (exclusive)."""
    columns: list[list[Any]] = [column[first:last] for column in records[1:]]
    return Records(records.topic, *columns)
