"""The archive of a topic: written from Kafka, each offset exactly once, and read again.

What was written is known by the names of the files alone (see `stream.shelf`), so an archiver
that was killed at any moment goes on by listing them.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from operator import attrgetter

import numpy as np
import pyarrow as pa

from stream.errors import BrokerError, HistoryError
from stream.events import Records
from stream.history import Range
from stream.kafka import Source
from stream.shelf import SCHEMA, Columns, Piece, Shelf, Volume, to_parquet

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
    bootstrap: str,
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

    The partitions are those that the topic has at the start. What is in hand is written when
    `stop` says so, and also before a broker that fails ends the call.

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
    shelf = Shelf(place, topic)
    with shelf.held():
        for claim in shelf.claims():
            _finish(bootstrap, shelf, claim)
        pieces = shelf.pieces()
        tips = {p: of[-1].stop for p, of in pieces.items()}
        source = Source(bootstrap, topic, offsets=tips, timestamps=True)
        with closing(source):
            ends = source.ends()
            _check(shelf, tips, source.begins, ends)
            days = {p: max(map(_day_of, of)) for p, of in pieces.items()}
            writer = _Writer(shelf, source.position, days, rows_per_file)
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


def _finish(bootstrap: str, shelf: Shelf, claim: Piece) -> None:
    """Write the very file that an archiver had claimed when it was killed."""
    partition, start, stop, _ = claim
    source = Source(
        bootstrap, shelf.topic, offsets={partition: start}, partitions=[partition], timestamps=True
    )
    with closing(source):
        _check(shelf, {partition: start}, source.begins, source.ends(), needed=stop)
        file = _File(partition, start, newest_day=_LAST_DAY)
        while source.position[partition] < stop:
            records = source.poll(_POLL, _POLL_S)
            if records:
                file.take(records, 0, bisect_left(records.offsets, stop), stop - start)
        shelf.put(claim, to_parquet(shelf.topic, claim, file.batches()), claimed=True)


def _check(
    shelf: Shelf,
    tips: Mapping[int, int],
    begins: Mapping[int, int],
    ends: Mapping[int, int],
    needed: int = 0,
) -> None:
    """Refuse to go on where offsets would be missing, or another topic's would follow."""
    for partition, tip in tips.items():
        end = ends.get(partition, 0)
        if max(tip, needed) > end:
            raise HistoryError(
                f"{shelf.topic}, partition {partition}: {shelf.place} goes up to offset "
                f"{max(tip, needed)}, but the topic ends at {end}: it was made anew; archive it to "
                "another place"
            )
        if tip < begins[partition]:
            raise HistoryError(
                f"{shelf.topic}, partition {partition}: Kafka's retention removed the offsets from "
                f"{tip} to {begins[partition]} before they came to {shelf.place}; archive to "
                "another place from here on, and more often than records expire (or --follow)"
            )


class _Writer:
    """Gather records, one file of each partition at a time, and write the files that are full."""

    def __init__(
        self, shelf: Shelf, starts: Mapping[int, int], days: Mapping[int, int], rows_per_file: int
    ) -> None:
        self._shelf, self._rows = shelf, rows_per_file
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
            file = self._open[partition]
            file.stop = max(file.stop, at)
            if file.rows >= self._rows:
                self._write(file)
        while sum(file.size_bytes for file in self._open.values()) > _OPEN_BYTES:
            self._write(max(self._open.values(), key=lambda file: file.size_bytes))

    def _distribute(self, records: Records) -> None:
        self.read += len(records.offsets)
        for partition, begin, end in _runs(records.partitions):
            while begin < end:
                begin = self._open[partition].take(records, begin, end, self._rows)
                if begin < end:
                    self._write(self._open[partition])

    def write(self, *, older_s: float = 0.0) -> None:
        """Write the files with records whose first one came at least `older_s` ago."""
        now = time.monotonic()
        for file in list(self._open.values()):
            if file.rows and now - file.since_s >= older_s:
                self._write(file)

    def _write(self, file: _File) -> None:
        piece = file.piece
        parquet = to_parquet(self._shelf.topic, piece, file.batches())
        self._shelf.put(piece, parquet)
        self._files, self._records = self._files + 1, self._records + file.rows
        self._size_bytes += len(parquet)
        self._ends[piece.partition] = piece.stop
        self._open[piece.partition] = _File(piece.partition, piece.stop, file.newest_day)


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
    def piece(self) -> Piece:
        """Name the file as it is now."""
        day = (_EPOCH + timedelta(days=self._day)).isoformat()
        return Piece(self.partition, self.start, self.stop, day)

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
        """Give the records."""
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


def _day_of(piece: Piece) -> int:
    return (date.fromisoformat(piece.date) - _EPOCH).days


class ArchiveHistory:
    """Give a topic's records again from its archive: a `stream.history.History`.

    Of each partition one file is held, with one row group of it decoded.

    Args:
        place: where `archive` wrote: a directory, or a URL that fsspec knows.

    Raises:
        HistoryError: the archive holds no file of the topic, or is damaged.
    """

    def __init__(self, place: str, topic: str) -> None:
        self._shelf = Shelf(place, topic)
        self._pieces = self._shelf.pieces()
        if not self._pieces:
            raise HistoryError(
                f"{place} holds no archive of {topic}; make one with "
                f"`headrace archive {topic} --to {place}`"
            )
        self._volumes: dict[int, Volume] = {}

    def begins(self) -> dict[int, int]:
        """Give the first offset of each partition."""
        return {p: pieces[0].start for p, pieces in self._pieces.items()}

    def ends(self) -> dict[int, int]:
        """Give the offset after the last one of each partition, as of the last look."""
        return {p: pieces[-1].stop for p, pieces in self._pieces.items()}

    def read(self, ranges: Sequence[Range]) -> Records:
        """Give the records of the ranges, in the order of the ranges, then of offsets.

        Fast if what is asked for goes forward in each partition. What an archiver wrote since is
        found.

        Raises:
            HistoryError: the archive has not all of them, or is damaged.
        """
        out = Records(self._shelf.topic, [], [], [], [], [])
        for partition, start, stop in ranges:
            self._require(partition, start, stop)
            pieces = self._pieces.get(partition, [])
            for piece in pieces[bisect_right(pieces, start, key=_START) - 1 :]:
                if piece.start >= stop:
                    break
                self._read(piece, start, stop, out)
            count = len(out.offsets) - len(out.partitions)
            out.partitions.extend([partition] * count)
        return out

    def close(self) -> None:
        """Let go of the files."""
        self._volumes.clear()

    def _read(self, piece: Piece, start: int, stop: int, out: Records) -> None:
        volume = self._volumes.get(piece.partition)
        if volume is None or volume.piece != piece:
            self._volumes.pop(piece.partition, None)
            volume = self._volumes[piece.partition] = self._shelf.open(piece)
        for number, group in enumerate(volume.groups):
            if group.first < stop and start <= group.last:
                columns = volume.group(number)
                low, high = (bisect_left(columns.offsets, at) for at in (start, stop))
                out.values.extend(columns.values[low:high])
                out.keys.extend(columns.keys[low:high])
                out.offsets.extend(columns.offsets[low:high])
                out.timestamps_ms.extend(columns.timestamps_ms[low:high])

    def _require(self, partition: int, start: int, stop: int) -> None:
        if stop <= start:
            return
        if stop > self.ends().get(partition, 0):
            self._pieces = self._shelf.pieces()
        begin, end = self.begins().get(partition, 0), self.ends().get(partition, 0)
        if start < begin or stop > end:
            raise HistoryError(
                f"{self._shelf.topic}, partition {partition}: offsets {start} to {stop} are asked "
                f"for, {self._shelf.place} has {begin} to {end}; archive on with "
                f"`headrace archive`, or read from the topic if it still has them"
            )


_START = attrgetter("start")
