"""Events and tables of a program, of whatever make, as the JSON that would stand in Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from headrace.stream.errors import EventError, UsageError
from headrace.stream.formats.files import batch_rows


def encoded(event: Mapping[str, Any]) -> bytes:
    """Return an event as JSON.

    Raises:
        EventError: JSON cannot hold it.
    """
    try:
        return _encoder.encode(event)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError("schema", f"an event that JSON cannot hold: {error}") from error


def rows_of(table: Any, capacity: int) -> Iterator[bytes]:
    """Yield the rows of a table as JSON, read so many at a time.

    Raises:
        UsageError: it is no table.
        EventError: JSON cannot hold a row.
    """
    names = getattr(getattr(table, "dtype", None), "names", None)
    if names:
        table = {name: table[name] for name in names}
    pandas = type(table).__module__.startswith("pandas")
    if pandas or isinstance(table, Mapping) or hasattr(table, "__arrow_c_stream__"):
        try:  # of pandas without its index
            columns = (
                pa.Table.from_pandas(table, preserve_index=False) if pandas else pa.table(table)
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(f"{type(table).__name__} is no table: {error}") from error
    elif isinstance(table, Iterable) and not isinstance(table, str | bytes):
        for event in table:
            if not isinstance(event, Mapping):
                raise _no_table(event)
            yield encoded(event)
        return
    else:
        raise _no_table(table)
    if double := [name for name, count in Counter(columns.column_names).items() if count > 1]:
        raise UsageError(f"two columns are called {double[0]!r}; rename one")
    for batch in columns.to_batches(capacity):
        try:
            rows = [*batch_rows(batch, columns.column_names)]
        except (OverflowError, TypeError, ValueError) as error:
            raise EventError("schema", f"a row that JSON cannot hold: {error}") from error
        yield from rows


def _no_table(given: Any) -> UsageError:
    kind = type(given).__name__
    return UsageError(f"{kind} is no table, or row of one: expected columns, or events, with names")


def _plain(value: Any) -> Any:
    """Return numbers and arrays of numpy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no value of JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")
