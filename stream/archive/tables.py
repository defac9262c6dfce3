"""An archive as a table of a lakehouse: each archived offset in it exactly once.

One commit of the table adds records and says, in the table's own metadata, up to which offset of
each partition it holds them. So a writer that was killed goes on where the last commit ended, and
of two writers that commit after the same state of the table one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.archive import directory as archives
from headrace.stream.archive.directory import ArchiveDirectory, Segment
from headrace.stream.errors import HistoryError, StoreError, UsageError

COMMIT_BYTES = 256 << 20  # of records in one commit, or one segment's if that is more
SCHEMA = pa.schema([pa.field("date", pa.date32(), nullable=False), *archives.SCHEMA])
Offsets = dict[int, int]


class ArchiveTable(Protocol):
    """Hold one topic's records in a table of SCHEMA, partitioned by `date`."""

    def reached(self, partitions: Iterable[int]) -> Offsets:
        """Look at the table as it is now: up to which offset it holds each of the partitions.

        Those of which it holds nothing are left out; all are if there is no table yet.

        Raises:
            UsageError: there is another table.
            StoreError: the place cannot be read.
        """

    def append(self, rows: pa.Table, reached: Offsets, topic_id: str) -> bool:
        """Add rows in one commit, with up to where the table then holds each partition.

        If `reached` found no table, make one, and add nothing yet: others may have filled it.

        Args:
            reached: of all partitions.
            topic_id: Kafka's for the topic; "" if the archive does not tell.

        Returns:
            whether they were added. If not, the table is another one than `reached` looked at.

        Raises:
            HistoryError: the table holds another topic of the same name.
            StoreError: the place cannot be written.
        """


@dataclass(frozen=True)
class Exported:
    """Count what one call added; `ends` says up to where the table holds each partition now."""

    commits: int
    records: int
    ends: Offsets


def export(
    place: str,
    topic: str,
    table: ArchiveTable,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda records: None,
) -> Exported:
    """Add to a table what it lacks of an archive.

    Args:
        place: where `archive` wrote.
        stop: asked before each commit.
        on_progress: called with the records added so far, after each commit.

    Raises:
        HistoryError: the archive holds nothing of the topic, is damaged, or does not go on where
            the table ends; the table is of another topic of the same name.
        UsageError: there is another table.
        StoreError: the table's place cannot be read or written.
    """
    directory = ArchiveDirectory(place, topic)
    commits = records = 0
    while True:
        known = directory.segments()
        if not known:
            raise HistoryError(
                f"{place} holds no archive of {topic}; make one with "
                f"`headrace archive {topic} --to {place}`"
            )
        ends = table.reached(known)
        segments = directory.segments()  # listed after the table was: they hold what it does
        lacking = [
            (segment, at)
            for partition in sorted(known)
            for at in [_begin(directory, segments[partition], ends.get(partition))]
            for segment in segments[partition]
            if segment.stop > at
        ]
        if not lacking or stop():
            return Exported(commits, records, ends)
        rows, reached, topic_id = _read(directory, lacking)
        if table.append(rows, ends | reached, topic_id):
            commits, records = commits + 1, records + rows.num_rows
            on_progress(records)


def _begin(directory: ArchiveDirectory, segments: list[Segment], reached: int | None) -> int:
    """Return the offset at which a table goes on in a partition."""
    partition, start, stop = segments[0].partition, segments[0].start, segments[-1].stop
    if reached is None:
        return start
    if not start <= reached <= stop:
        raise HistoryError(
            f"{directory.topic}, partition {partition}: the table ends at offset {reached}, and "
            f"{directory.place} holds {start} to {stop}: give the archive that goes on there, or "
            "another place for the table"
        )
    return reached


def _read(
    directory: ArchiveDirectory, lacking: list[tuple[Segment, int]]
) -> tuple[pa.Table, Offsets, str]:
    """Return the records of the first segments, from some offset on in each, and where they end."""
    parts, reached, topic_id, size_bytes = list[pa.Table](), Offsets(), "", 0
    for segment, at in lacking:
        if parts and size_bytes >= COMMIT_BYTES:
            break
        reader = directory.open(segment)
        topic_id = reader.topic_id or topic_id
        day = pa.scalar(date.fromisoformat(segment.date), pa.date32())
        for number in range(len(reader.groups)):
            part = reader.table(number)
            part = part.filter(pc.greater_equal(part["offset"], at))
            part = part.add_column(0, SCHEMA.field("date"), pa.repeat(day, part.num_rows))
            size_bytes += part.nbytes
            parts.append(part.cast(SCHEMA))
        reached[segment.partition] = segment.stop
    return pa.concat_tables(parts), reached, topic_id


def check_columns(place: str, columns: pa.Schema) -> None:
    """Raise UsageError if a table that is there cannot be one that we made."""
    wanted = dict(zip(SCHEMA.names, SCHEMA.types, strict=True))
    plain = {pa.large_binary(): pa.binary()}
    found = {field.name: plain.get(field.type, field.type) for field in columns}
    if found != wanted:
        shown = ", ".join(f"{name} {kind}" for name, kind in found.items())
        raise UsageError(
            f"{place}: a table with the columns {shown}: expected one that this command made, or "
            "a place without a table"
        )


def check_topic(place: str, told: dict[str, str], topic: str, topic_id: str = "") -> None:
    """Raise if the properties of a table say that it holds another topic."""
    if told.get("headrace.topic") != topic:
        raise UsageError(
            f"{place}: a table of {told.get('headrace.topic', 'something else')}, not of {topic}: "
            "expected a place of its own for each topic"
        )
    kept = told.get("headrace.topic_id", "")
    if kept and topic_id and kept != topic_id:
        raise HistoryError(
            f"{place}: {topic} was made anew since the table was begun (its id is another one): "
            "give its archive another table"
        )


def properties(topic: str, topic_id: str) -> dict[str, str]:
    """Return what `check_topic` will want to know, for a table that is made."""
    return {"headrace.topic": topic, "headrace.topic_id": topic_id}


@contextmanager
def one_line(
    place: str, what: str, *kinds: type[Exception], but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn errors of a table's library, and of the files, into a StoreError of one line."""
    turned: tuple[type[Exception], ...] = (*kinds, OSError, ValueError)
    try:
        yield
    except but:
        raise
    except turned as error:
        raise StoreError(f"{place}: cannot be {what}: {' '.join(str(error).split())}") from error
