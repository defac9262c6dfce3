"""The archive of a topic: written from Kafka, each offset exactly once, and read again.

What was written is known by the names of the files alone (see `stream.archive.directory`), so an
archiver that was killed at any moment goes on by listing them.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain

import numpy as np
import pyarrow as pa

from headrace.stream.archive.directory import SCHEMA, ArchiveDirectory, Columns, Segment, to_parquet
from headrace.stream.errors import BrokerError, HistoryError
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topics import describe
from headrace.stream.kafka.watch import TopicWatch

_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)
_LAST_DAY = (date.max - _EPOCH).days  # a producer may send any int64 as a time
_POLL = 10_000
_POLL_S = 0.2
_BATCH_ROWS = 10_000
_ROW_BYTES = 150  # what a record takes beside its key and value until it is written
_OPEN_BYTES = 128 << 20  # of records that wait to be written, in all partitions together


@dataclass(frozen=True)
class Archived:
    """Count what one call wrote; `ends` says where each partition of the archive ends now."""

    files: int
    records: int
    size_bytes: int
    ends: dict[int, int]


def archive(
    kafka: KafkaConnection,
    topic: str,
    place: str,
    *,
    follow: bool = False,
    rows_per_file: int = 250_000,
    every_s: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda read, waiting: None,
) -> Archived:
    """Write what the archive lacks of a topic, up to its present end; on and on if `follow`.

    Partitions that are added are followed, too. What is in hand is written when `stop` says so,
    and also before a broker that fails ends the call.

    Args:
        place: a directory, or a URL that fsspec knows.
        rows_per_file: the most records of a file; fewer where a day or the memory for it ends.
        every_s: with `follow`, a file is written at the latest so long after its first record.
        stop: asked after each poll.
        on_progress: called with the records read and those that are known to wait.

    Raises:
        HistoryError: Kafka no longer has what the archive needs next, or the archive is damaged.
        BrokerError: the broker does not answer, or has no such topic.
        HeadraceError: another archiver is at work.
    """
    directory = ArchiveDirectory(place, topic)
    with directory.held():
        (found,) = describe(kafka, [topic])
        watch = kafka.watch(topic, found.id)
        _check(
            directory, _tips(directory), dict(enumerate(found.begin)), dict(enumerate(found.end))
        )
        _check_identity(directory, watch)
        for claim in directory.claims():
            _finish(kafka, directory, claim, watch)
        segments = directory.segments()
        tips = _tips(directory)
        source = kafka.source(topic, offsets=tips, timestamps=True, watch=watch)
        with closing(source):
            ends = source.ends()
            _check(directory, tips, source.begins, ends)
            days = {p: max(map(_day_of, of)) for p, of in segments.items()}
            writer = _Writer(directory, source.position, days, rows_per_file, watch)
            try:
                while not stop():
                    writer.take(source.poll(_POLL, _POLL_S), source.position)
                    on_progress(writer.read, source.lag())
                    if follow:
                        writer.write(older_s=every_s)
                    elif all(source.position[p] >= end for p, end in ends.items()):
                        break
            except BrokerError:
                writer.write()
                raise
            writer.write()
            return writer.archived(tips)


def _tips(directory: ArchiveDirectory) -> dict[int, int]:
    return {p: of[-1].stop for p, of in directory.segments().items()}


def _check_identity(directory: ArchiveDirectory, watch: TopicWatch) -> None:
    """Refuse to go on with another topic of the same name."""
    for segments in directory.segments().values():
        kept = directory.open(segments[-1]).topic_id
        if kept not in ("", watch.identity):
            raise _made_anew(directory)


def _made_anew(directory: ArchiveDirectory, why: str = "its id is another one") -> HistoryError:
    return HistoryError(
        f"{directory.topic} was made anew since {directory.place} was written ({why}); archive it "
        "to another place"
    )


def _finish(
    kafka: KafkaConnection, directory: ArchiveDirectory, claim: Segment, watch: TopicWatch
) -> None:
    """Write the very file that an archiver had claimed when it was killed."""
    partition, start, stop, _ = claim
    source = kafka.source(
        directory.topic,
        offsets={partition: start},
        partitions=[partition],
        timestamps=True,
    )
    with closing(source):
        _check(directory, {partition: start}, source.begins, source.ends(), needed=stop)
        file = _File(partition, start, newest_day=_LAST_DAY)
        while source.position[partition] < stop:
            records = source.poll(_POLL, _POLL_S)
            if records:
                file.take(records, 0, bisect_left(records.offsets, stop), stop - start)
        watch.confirm(watch.ask())
        parquet = to_parquet(directory.topic, claim, file.batches(), watch.identity)
        directory.put(claim, parquet, claimed=True)


def _check(
    directory: ArchiveDirectory,
    tips: Mapping[int, int],
    begins: Mapping[int, int],
    ends: Mapping[int, int],
    needed: int = 0,
) -> None:
    """Refuse to go on where offsets would be missing, or another topic's would follow."""
    for partition, tip in tips.items():
        end = ends.get(partition, 0)
        if max(tip, needed) > end:
            why = f"partition {partition} ends at {end}, and was kept up to {max(tip, needed)}"
            raise _made_anew(directory, why)
        if tip < begins[partition]:
            raise HistoryError(
                f"{directory.topic}, partition {partition}: Kafka's retention removed the offsets "
                f"from {tip} to {begins[partition]} before they came to {directory.place}; archive "
                "to another place from here on, and more often than records expire (or --follow)"
            )


class _Writer:
    """Gather records, one file of each partition at a time, and write the files that are full."""

    def __init__(
        self,
        directory: ArchiveDirectory,
        starts: Mapping[int, int],
        days: Mapping[int, int],
        rows_per_file: int,
        watch: TopicWatch,
    ) -> None:
        self._directory, self._rows, self._watch = directory, rows_per_file, watch
        self._open = {p: _File(p, start, days.get(p, 0)) for p, start in starts.items()}
        self._files = self._records = self._size_bytes = self.read = 0
        self._ends: dict[int, int] = {}

    def archived(self, before: Mapping[int, int]) -> Archived:
        """Count what was written to an archive with these ends."""
        return Archived(self._files, self._records, self._size_bytes, {**before, **self._ends})

    def take(self, records: Records | None, position: Mapping[int, int]) -> None:
        """Add records; all that is visible before `position` has been given by now."""
        if records:
            self._distribute(records)
        for partition, at in position.items():
            file = self._file(partition)
            file.stop = max(file.stop, at)
            if file.rows >= self._rows:
                self._write(file)
        while sum(file.size_bytes for file in self._open.values()) > _OPEN_BYTES:
            self._write(max(self._open.values(), key=lambda file: file.size_bytes))

    def _distribute(self, records: Records) -> None:
        self.read += len(records.offsets)
        for partition, begin, end in _runs(records.partitions):
            while begin < end:
                begin = self._file(partition).take(records, begin, end, self._rows)
                if begin < end:
                    self._write(self._file(partition))

    def _file(self, partition: int) -> _File:
        """Return the open file of a partition; one that was added to the topic begins at 0."""
        return self._open.setdefault(partition, _File(partition, 0, 0))

    def write(self, *, older_s: float = 0.0) -> None:
        """Write the files with records whose first one came at least `older_s` ago."""
        now = time.monotonic()
        for file in list(self._open.values()):
            if file.rows and now - file.since_s >= older_s:
                self._write(file)

    def _write(self, file: _File) -> None:
        segment = file.segment
        self._watch.confirm(self._watch.ask())  # after the records were read: they are of this one
        parquet = to_parquet(self._directory.topic, segment, file.batches(), self._watch.identity)
        self._directory.put(segment, parquet)
        self._files, self._records = self._files + 1, self._records + file.rows
        self._size_bytes += len(parquet)
        self._ends[segment.partition] = segment.stop
        self._open[segment.partition] = _File(segment.partition, segment.stop, file.newest_day)


class _File:
    """Gather the records of one file. `newest_day` is the latest day its partition ever had.

    Only a day that is later than all before begins a new file: times that jump back and forth
    would else make a file of each record.
    """

    def __init__(self, partition: int, start: int, newest_day: int) -> None:
        self.partition, self.start, self.stop = partition, start, start
        self.newest_day, self._day = newest_day, 0
        self.rows, self.size_bytes, self.since_s = 0, 0, 0.0
        self._batches: list[pa.RecordBatch] = []
        self._loose = Columns([], [], [], [])

    @property
    def segment(self) -> Segment:
        """Name the file as it is now."""
        day = (_EPOCH + timedelta(days=self._day)).isoformat()
        return Segment(self.partition, self.start, self.stop, day)

    def take(self, records: Records, begin: int, end: int, rows: int) -> int:
        """Add records from `begin` on, as long as they belong to this file; say where that ends."""
        if begin == end:
            return end
        end = min(end, begin + rows - self.rows)
        times = np.array(records.timestamps_ms[begin:end])
        days = np.clip(times // _DAY_MS, 0, _LAST_DAY)
        if not self.rows:
            self._day, self.since_s = int(days[0]), time.monotonic()
            self.newest_day = max(self.newest_day, self._day)
        later = np.flatnonzero(days > self.newest_day)
        if later.size:
            end = begin + int(later[0])
        keys, values = records.keys[begin:end], records.values[begin:end]
        self._loose.offsets.extend(records.offsets[begin:end])
        self._loose.timestamps_ms.extend(records.timestamps_ms[begin:end])
        self._loose.keys.extend(keys)
        self._loose.values.extend(values)
        self.rows += end - begin
        self.stop = max(self.stop, records.offsets[end - 1] + 1) if end > begin else self.stop
        self.size_bytes += sum(map(len, filter(None, chain(keys, values))))
        self.size_bytes += _ROW_BYTES * (end - begin)
        if len(self._loose.offsets) >= _BATCH_ROWS:
            self._pack()
        return end

    def batches(self) -> list[pa.RecordBatch]:
        """Return the records."""
        self._pack()
        return self._batches

    def _pack(self) -> None:
        """Turn the loose records into Arrow's columns, which take less memory."""
        loose, self._loose = self._loose, Columns([], [], [], [])
        columns = ([self.partition] * len(loose.offsets), *loose)
        arrays = [pa.array(c, of.type) for c, of in zip(columns, SCHEMA, strict=True)]
        self._batches.append(pa.record_batch(arrays, schema=SCHEMA))


def _runs(partitions: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each partition of ordered records, with where it begins and ends."""
    begin = 0
    while begin < len(partitions):
        end = bisect_right(partitions, partitions[begin])
        yield partitions[begin], begin, end
        begin = end


def _day_of(segment: Segment) -> int:
    return (date.fromisoformat(segment.date) - _EPOCH).days
