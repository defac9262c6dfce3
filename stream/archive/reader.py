"""The archive of a topic, read again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from headrace.stream.archive.directory import ArchiveDirectory, Segment, SegmentReader
from headrace.stream.errors import HistoryError
from headrace.stream.events import Records
from headrace.stream.kafka.history import Range


class ArchiveHistory:
    """Give a topic's records again from its archive: a `headrace.stream.kafka.history.History`.

    Of each partition one file is held, with one row group of it decoded.

    Args:
        place: where `archive` wrote: a directory, or a URL that fsspec knows.

    Raises:
        HistoryError: the archive holds no file of the topic, or is damaged.
    """

    def __init__(self, place: str, topic: str) -> None:
        self._directory = ArchiveDirectory(place, topic)
        self._segments = self._directory.segments()
        if not self._segments:
            raise HistoryError(
                f"{place} holds no archive of {topic}; make one with "
                f"`headrace archive {topic} --to {place}`"
            )
        self._readers: dict[int, SegmentReader] = {}

    def begins(self) -> dict[int, int]:
        """Return the first offset of each partition."""
        return {p: segments[0].start for p, segments in self._segments.items()}

    def ends(self) -> dict[int, int]:
        """Return the offset after the last one of each partition, as of the last look."""
        return {p: segments[-1].stop for p, segments in self._segments.items()}

    def offsets_for_time(self, time_ms: int) -> dict[int, int]:
        """Return the first offset of the first file that may hold a record with this timestamp or a
        later one, of each partition with any."""
        day = str(np.datetime64(time_ms, "ms").astype("datetime64[D]"))
        found = dict[int, int]()
        for partition, segments in self._segments.items():
            newest = ""  # so far; a file holds records of that day and of earlier ones
            for segment in segments:
                newest = max(newest, segment.date)
                if newest >= day:
                    found[partition] = segment.start
                    break
        return found

    def read(self, ranges: Sequence[Range]) -> Records:
        """Return the records of the ranges, in the order of the ranges, then of offsets.

        Fast if what is asked for goes forward in each partition. What an archiver wrote since is
        found.

        Raises:
            HistoryError: the archive has not all of them, or is damaged.
        """
        out = Records(self._directory.topic, [], [], [], [], [])
        for partition, start, stop in ranges:
            self._require(partition, start, stop)
            segments = self._segments.get(partition, [])
            for segment in segments[bisect_right(segments, start, key=_START) - 1 :]:
                if segment.start >= stop:
                    break
                self._read(segment, start, stop, out)
            count = len(out.offsets) - len(out.partitions)
            out.partitions.extend([partition] * count)
        return out

    def close(self) -> None:
        """Let go of the files."""
        self._readers.clear()

    def _read(self, segment: Segment, start: int, stop: int, out: Records) -> None:
        reader = self._readers.get(segment.partition)
        if reader is None or reader.segment != segment:
            self._readers.pop(segment.partition, None)
            reader = self._readers[segment.partition] = self._directory.open(segment)
        for number, group in enumerate(reader.groups):
            if group.first < stop and start <= group.last:
                columns = reader.group(number)
                low, high = (bisect_left(columns.offsets, at) for at in (start, stop))
                out.values.extend(columns.values[low:high])
                out.keys.extend(columns.keys[low:high])
                out.offsets.extend(columns.offsets[low:high])
                out.timestamps_ms.extend(columns.timestamps_ms[low:high])

    def _require(self, partition: int, start: int, stop: int) -> None:
        if stop <= start:
            return
        if stop > self.ends().get(partition, 0):
            self._segments = self._directory.segments()
        begin, end = self.begins().get(partition, 0), self.ends().get(partition, 0)
        if start < begin or stop > end:
            raise HistoryError(
                f"{self._directory.topic}, partition {partition}: offsets {start} to {stop} are "
                f"asked for, {self._directory.place} has {begin} to {end}; archive on with "
                f"`headrace archive`, or read from the topic if it still has them"
            )


_START = attrgetter("start")
