"""The files of an archive: their names, what stands in them, and who may write the next one.

A file holds the offsets from `start` to `stop` (exclusive) of one partition:

    <topic>/date=2026-03-05/00000-00000000000000000000-00000000000000250000.parquet

The files of a partition abut, so their names say where to go on: there is no other state. The
day is that of the first record. Offsets at which Kafka shows no record (a transaction's marker)
belong to the range that they stand in.

Two archivers at once: in a directory a lock keeps the second one out. A URL has no locks, so
before a file is written its name is claimed, in `<topic>/_claims/<partition>-<start>`, which can
be made once only (where the store has conditional writes: S3 and its like); it holds the file's
name and, so that no writer takes another's for its own, a random number. One of the two meets
the other's claim, or the file that came of it, and ends. Who starts and finds a claim without its
file writes exactly that file. So there is one file of each start, whoever writes it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.stream.errors import HeadraceError, HistoryError, UsageError
from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage import open_store

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
    ]
)
_GROUP_ROWS, _GROUP_BYTES = 32_768, 8 << 20  # a reader holds one row group of each partition
_FILE_BYTES = 1 << 30
_CLAIMS, _LOCK, _HIDDEN = "_claims/", "lock", ("_", ".")
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
_NAME = re.compile(r"date=(\d{4}-\d\d-\d\d)/(\d{5,10})-(\d{20})-(\d{20})\.parquet", re.ASCII)


class Segment(NamedTuple):
    """Name one file: the offsets `start` to `stop` (exclusive) of a partition."""

    partition: int
    start: int
    stop: int
    date: str  # YYYY-MM-DD, UTC

    @property
    def name(self) -> str:
        """Return the file's place below the topic."""
        return f"{self.stem}{self.stop:020d}.parquet"

    @property
    def stem(self) -> str:
        """Return what the name begins with, whatever its `stop`."""
        return f"date={self.date}/{self.partition:05d}-{self.start:020d}-"

    @property
    def claim(self) -> str:
        """Return the place of the claim, below the topic."""
        return f"{_CLAIMS}{self.partition:05d}-{self.start:020d}"


class ArchiveDirectory:
    """Keep the files of one topic in one place.

    Raises:
        UsageError: `topic` cannot be the name of a topic, or the place cannot be used.
    """

    def __init__(self, place: str, topic: str) -> None:
        if not _TOPIC.fullmatch(topic):
            raise UsageError(
                f"{topic!r} cannot be a topic: expected letters, digits, '.', '_', '-'"
            )
        self.topic = topic
        self._store = open_store(f"{place.rstrip('/')}/{topic}")
        self.place = self._store.place

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other archivers out, where that can be, and clear up after those that were killed.

        Raises:
            RecoveryError: there is one.
        """
        with self._store.lock("archiver"):
            self._store.sweep()
            yield

    def segments(self) -> dict[int, list[Segment]]:
        """List the files by partition and offset. Names that begin with `_` or `.` are not seen.

        Raises:
            HistoryError: a file is none of ours, or two of them overlap or leave a hole.
        """
        found: dict[int, list[Segment]] = {}
        for name in self._store.names():
            if name != _LOCK and not any(part[:1] in _HIDDEN for part in name.split("/")):
                segment = self._segment(name)
                found.setdefault(segment.partition, []).append(segment)
        for segments in found.values():
            segments.sort()
            for one, other in pairwise(segments):
                if one.stop != other.start:
                    fault = "leave a hole" if one.stop < other.start else "overlap"
                    raise HistoryError(
                        f"{self.path(one.name)} and {other.name} {fault}: the second should begin "
                        f"at offset {one.stop}; restore what is missing or remove what is too much"
                    )
        return found

    def claims(self) -> list[Segment]:
        """Return the files that were claimed and are not written; drop claims that are outdated.

        Raises:
            HistoryError: a claim does not begin where the files of its partition end.
        """
        found: list[Segment] = []
        ends = {p: segments[-1].stop for p, segments in self.segments().items()}
        for name in self._store.names(_CLAIMS):
            try:
                text = self._store.read(name).decode(errors="backslashreplace")
            except FileNotFoundError:  # another archiver has kept it; it will be met again
                continue
            claim = self._segment(text.partition("\n")[0])
            end = ends.get(claim.partition, claim.start)
            if claim.claim != name or claim.start > end:
                raise HistoryError(
                    f"{self.path(name)} claims {claim.name}, but the archive of partition "
                    f"{claim.partition} ends at offset {end}; restore the files between, or remove "
                    "the claim if no archiver is at work"
                )
            if claim.start < end:
                self._store.delete(name)
            else:
                found.append(claim)
        return found

    def put(self, segment: Segment, parquet: bytes, *, claimed: bool = False) -> None:
        """Write one file, all or nothing; `claimed` if its claim was found, not to be made.

        Raises:
            HeadraceError: another archiver is at work.
        """
        if not claimed:
            self._claim(segment)
            failpoint("archive claimed")
        with suppress(FileExistsError):  # who found our claim has written it, the same
            self._store.create(segment.name, parquet, what="archive")
        self._store.delete(segment.claim)

    def _claim(self, segment: Segment) -> None:
        rival = HeadraceError(
            f"another archiver is at work on partition {segment.partition} of {self.topic}, from "
            f"offset {segment.start}, in {self.place}: let it work, or end it and start again"
        )
        try:
            text = f"{segment.name}\n{secrets.token_hex(16)}"
            self._store.create(segment.claim, text.encode(), what="claim")
        except FileExistsError:
            raise rival from None
        if self._store.names(segment.stem):  # it was written, and its claim dropped, before ours
            self._store.delete(segment.claim)
            raise rival

    def path(self, name: str) -> str:
        """Name a file for a message."""
        return f"{self.place.rstrip('/')}/{name}"

    def open(self, segment: Segment) -> SegmentReader:
        """Open a file that was listed.

        Raises:
            HistoryError: it is gone, or not what its name says.
        """
        path = self.path(segment.name)
        try:
            data = self._store.read(segment.name, _FILE_BYTES)
        except FileNotFoundError:
            raise HistoryError(f"{path} is gone; restore it") from None
        return SegmentReader(data, self.topic, segment, path)

    def _segment(self, name: str) -> Segment:
        match = _NAME.fullmatch(name)
        try:
            segment = match and Segment(int(match[2]), int(match[3]), int(match[4]), match[1])
            if segment and segment.start < segment.stop and date.fromisoformat(segment.date):
                return segment
        except ValueError:
            pass  # no such day
        raise HistoryError(
            f"{self.path(name)!r} is no file of this archive: expected names such as "
            f"{Segment(0, 0, 250_000, '2026-03-05').name}; move it elsewhere"
        )


class Columns(NamedTuple):
    """Hold the records of one row group."""

    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


class Group(NamedTuple):
    """Say what a row group holds: its first and last offset, and how many records."""

    first: int
    last: int
    rows: int


def to_parquet(
    topic: str, segment: Segment, batches: list[pa.RecordBatch], topic_id: str = ""
) -> bytes:
    """Return the file of a segment; the batches are of SCHEMA and in order."""
    table = pa.Table.from_batches(batches, SCHEMA)
    rows = min(max(_GROUP_BYTES * table.num_rows // max(table.nbytes, 1), 1), _GROUP_ROWS)
    offsets = table["offset"].to_numpy()
    parts = [offsets[at : at + rows] for at in range(0, len(offsets), rows)]
    groups = [Group(int(part[0]), int(part[-1]), len(part)) for part in parts]
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=["partition", "key"],
        column_encoding=dict.fromkeys(["offset", "timestamp_ms"], "DELTA_BINARY_PACKED"),
        write_statistics=["partition", "offset", "timestamp_ms"],
        write_page_checksum=True,
        store_schema=False,
    )
    with writer:
        writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata(_metadata(topic, segment, json.dumps(groups), topic_id))
    return bytes(sink.getvalue())


def _metadata(topic: str, segment: Segment, groups: str, topic_id: str) -> dict[str, str]:
    """Return what a file says of itself. Parquet's footer has no checksum: hence the seal."""
    said = {
        "topic": topic,
        "partition": str(segment.partition),
        "start": str(segment.start),
        "stop": str(segment.stop),
        "groups": groups,
    } | ({"topic_id": topic_id} if topic_id else {})
    return said | {"seal": sha256(json.dumps(said).encode()).hexdigest()}


class SegmentReader:
    """Read one file, one row group at a time; the last one read is kept."""

    def __init__(self, data: bytes, topic: str, segment: Segment, path: str) -> None:
        self.segment, self._path = segment, path
        self._columns: tuple[int, Columns] | None = None
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            said = self._file.metadata.metadata or {}
            groups = said.get(b"groups", b"").decode()
            self.topic_id = said.get(b"topic_id", b"").decode()  # none in older files
            wanted = _metadata(topic, segment, groups, self.topic_id)
            if {key: said.get(key.encode(), b"").decode() for key in wanted} != wanted:
                raise ValueError("what it says of itself does not fit")
            if not self._file.schema_arrow.equals(SCHEMA):
                raise ValueError("it has other columns")
            self.groups = [Group(*group) for group in json.loads(groups)]
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def group(self, number: int) -> Columns:
        """Return the records of one row group.

        Raises:
            HistoryError: the file is damaged.
        """
        if self._columns is None or self._columns[0] != number:
            self._columns = None
            table = self.table(number)
            self._columns = (
                number,
                Columns(
                    table["offset"].to_numpy().tolist(),
                    table["timestamp_ms"].to_numpy().tolist(),
                    *(table[of].to_numpy(zero_copy_only=False).tolist() for of in ("key", "value")),
                ),
            )
        return self._columns[1]

    def table(self, number: int) -> pa.Table:
        """Return the records of one row group as Arrow's columns, as in SCHEMA.

        Raises:
            HistoryError: the file is damaged.
        """
        try:
            table = self._file.read_row_group(number, use_threads=False)
            self._check(table, self.groups[number])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from error
        return table

    def _check(self, table: pa.Table, group: Group) -> None:
        offsets = table["offset"].to_numpy()
        if len(offsets) != group.rows or (offsets[0], offsets[-1]) != (group.first, group.last):
            raise ValueError("its records are not those that it says it has")
        if np.any(np.diff(offsets) <= 0):
            raise ValueError("its offsets are not in order")
        if np.any(table["partition"].to_numpy() != self.segment.partition):
            raise ValueError("it holds records of another partition")

    def _damaged(self, error: Exception) -> HistoryError:
        reason = " ".join(str(error).split())
        return HistoryError(
            f"{self._path} is damaged or none of ours ({reason}); restore it from a copy, or "
            "remove it and all later ones of its partition and archive again while Kafka has them"
        )
