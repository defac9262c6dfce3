"""What happened, in order: the raw records of given ranges, from the topic or from an archive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

from headrace.stream.errors import HeadraceError, HistoryError
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection

READ = 8192
WAIT_S = 0.5
PATIENCE = 40  # empty polls in a row until a record counts as not to be had
FAR = 4 * READ  # offsets to skip from which opening a partition anew is cheaper than reading on


class Range(NamedTuple):
    """Name the offsets `start` to `stop` (exclusive) of one partition of the raw topic."""

    partition: int
    start: int
    stop: int


class History(Protocol):
    """Give raw records again; what is asked for goes forward in each partition."""

    def read(self, ranges: Sequence[Range]) -> Records:
        """Return the records of the ranges, in the order of the ranges, then of offsets.

        An offset that holds no record (a control record, a compacted one) is left out.

        Raises:
            HistoryError: records were there and are gone (retention), or have not come yet.
        """
        ...

    def close(self) -> None:
        """Let go of the source."""
        ...


class TopicHistory:
    """Read history from the raw topic itself, as far back as Kafka keeps it.

    A partition is opened when it is first needed, and then read forward, each record once, however
    small the ranges are. Of each partition, only the block that was fetched last is held.
    """

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._readers: dict[int, _Reader] = {}
        self._ends: dict[int, int] = {}  # as of the last time they were asked for

    def read(self, ranges: Sequence[Range]) -> Records:
        """Return the records of the ranges; see `History`."""
        columns: list[list[Any]] = [[], [], [], [], []]
        for each in ranges:
            for block, low, high in self._reader(each).slices(each):
                parts: Sequence[list[Any]] = block[1:]
                for column, part in zip(columns, parts, strict=True):
                    column += part[low:high]
        return Records(self._topic, *columns)

    def first(self, wanted: Range) -> int:
        """Return the first offset of a range that holds a record; the range's stop if none does.

        Raises:
            HistoryError: as `History.read`.
        """
        for block, low, _ in self._reader(wanted).slices(wanted):
            return block.offsets[low]
        return wanted.stop

    def fetched(self, wanted: Range) -> bool:
        """Return whether a range can be told without waiting for the broker."""
        reader = self._readers.get(wanted.partition)
        return reader is not None and reader.start <= wanted.start and wanted.stop <= reader.stop

    def reaches(self, partition: int, offset: int) -> bool:
        """Return whether a partition goes beyond an offset; asks the broker only where it must."""
        if offset >= self._ends.get(partition, 0):
            self._ends.update(self._ask(partition))
        return offset < self._ends.get(partition, 0)

    def end(self, partition: int) -> int:
        """Return the end of a partition as it was when it was last asked for; 0 if it never was."""
        return self._ends.get(partition, 0)

    def close(self) -> None:
        """Stop reading."""
        while self._readers:
            self._readers.popitem()[1].close()

    def _ask(self, partition: int) -> dict[int, int]:
        if reader := self._readers.get(partition):
            return reader.ends()
        with closing(self._kafka.source(self._topic)) as source:
            return source.ends()

    def _reader(self, wanted: Range) -> _Reader:
        """Return the reader of a partition if it can go on, else one that begins at the range."""
        reader = self._readers.get(wanted.partition)
        if reader and reader.start <= wanted.start <= reader.stop + FAR:
            return reader
        if reader:
            del self._readers[wanted.partition]
            reader.close()
        reader = _Reader(self._kafka, self._topic, wanted)
        self._readers[wanted.partition] = reader
        return reader


class _Reader:
    """Read one partition forward, block by block; the last one tells all from `start` to `stop`."""

    def __init__(self, kafka: KafkaConnection, topic: str, first: Range) -> None:
        self._kafka, self._topic, self._partition = kafka, topic, first.partition
        self._name = f"{topic}/{first.partition}"
        self._open(first.start)

    @property
    def stop(self) -> int:
        """Return the offset to be fetched next."""
        return self._source.position[self._partition]

    def ends(self) -> dict[int, int]:
        """Ask for the end of the partition as it is now."""
        return self._source.ends()

    def close(self) -> None:
        """Stop reading."""
        self._source.close()

    def slices(self, wanted: Range) -> Iterator[tuple[Records, int, int]]:
        """Yield the blocks that hold records of a range, with the places of these in them."""
        while True:
            low = bisect_left(self._block.offsets, wanted.start)
            high = bisect_left(self._block.offsets, wanted.stop, low)
            if low < high:
                yield self._block, low, high
            if self.stop >= wanted.stop or not self._fetch(wanted):
                return

    def _open(self, start: int) -> None:
        at = self._partition
        self._source = self._kafka.source(
            self._topic, offsets={at: start}, partitions=[at], timestamps=True
        )
        self.start, self._block = start, Records(self._topic, [], [], [], [], [])
        if (begin := self._source.begins[at]) > start:
            self._source.close()
            raise HistoryError(
                f"{self._name}: offsets {start:,} to {begin - 1:,} are needed again and were "
                "deleted (retention); read them from an --archive (`headrace state` makes a "
                "checkpoint of them, that learn goes on from), or begin --from-scratch"
            )

    def _fetch(self, wanted: Range) -> bool:
        """Take the next block; False if it turned out that none begins before the range's stop."""
        at = self._partition
        for _ in range(PATIENCE):
            start = self.stop
            if records := self._poll(wanted):
                self.start, self._block = start, records
                return True
            if self.stop >= wanted.stop:
                return False
            # The end that was noted may be one of long ago: what came since is on its way.
            if at in self._source.ended and self.ends()[at] < wanted.stop:
                break
        raise HistoryError(
            f"{self._name}: offset {wanted.stop - 1:,} is needed and not there: the topic ends at "
            f"{self.stop:,}"
        )

    def _poll(self, wanted: Range) -> Records | None:
        """Take what is there; go on at the range where retention overtook a reader that rested."""
        stood = self.stop
        try:
            return self._source.poll(READ, WAIT_S)
        except HeadraceError:
            self._source.close()
            self._open(max(stood, wanted.start))
            if self._source.begins[self._partition] <= stood:
                raise  # it was not retention
            return None
