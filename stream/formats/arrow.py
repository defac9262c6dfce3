"""Columns of Arrow as the JSON of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

_encoder = msgspec.json.Encoder(decimal_format="number")


def batch_rows(batch: Any, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the rows of an Arrow record batch as JSON, their columns called `names`."""
    columns = [in_microseconds(column).to_pylist() for column in batch.columns]
    for row in zip(*columns, strict=True):
        yield _encoder.encode(dict(zip(names, row, strict=True)))


def in_microseconds(column: Any) -> Any:
    """Return times as Python has them; where pandas is, its own would come of nanoseconds."""
    if pa.types.is_timestamp(column.type):  # one without a zone is taken as UTC
        return column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    if pa.types.is_duration(column.type):
        return column.cast(pa.duration("us"))
    return column
