"""Archives that no archiver has written: files as it makes them, of records that tests choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyiceberg.utils.concurrent import ExecutorFactory

from headrace.stream.archive.directory import SCHEMA, ArchiveDirectory, Segment, to_parquet


class Record(NamedTuple):
    """Hold one record, as the columns of the files."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


def write_segment(
    place: Path | str,
    topic: str,
    records: Sequence[Record],
    stop: int,
    date: str,
    topic_id: str = "",
) -> None:
    """Write the file of records of one partition, from the first one's offset to `stop`."""
    segment = Segment(records[0].partition, records[0].offset, stop, date)
    columns = zip(*records, strict=True)
    arrays = [pa.array(c, of.type) for c, of in zip(columns, SCHEMA, strict=True)]
    batch = pa.record_batch(arrays, schema=SCHEMA)
    ArchiveDirectory(str(place), topic).put(segment, to_parquet(topic, segment, [batch], topic_id))


def end_threads_of_pyiceberg() -> None:
    """End the pool of threads that it keeps for its next call."""
    ExecutorFactory.get_or_create().shutdown()
    ExecutorFactory._instance = None
