"""Events and tables of a program, of whatever make, as the JSON that would stand in Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa

from headrace.stream.errors import EventError, UsageError
from headrace.stream.formats.arrow import batch_rows, in_microseconds


def encoded(event: Mapping[str, Any]) -> bytes:
    """Return an event as JSON, each value as it would come of a column of its kind.

    Raises:
        EventError: JSON cannot hold it, or a value has no one meaning there.
    """
    try:
        return _encoder.encode(_object(event))
    except (*_UNFIT, RecursionError) as error:
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
        except (AttributeError, *_UNFIT) as error:
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
        except _UNFIT as error:
            raise EventError("schema", f"a row that JSON cannot hold: {error}") from error
        yield from rows


def _no_table(given: Any) -> UsageError:
    kind = type(given).__name__
    return UsageError(f"{kind} is no table, or row of one: expected columns, or events, with names")


_JSON = frozenset({str, int, float, bool, NoneType})
_AS_IT_IS = (date, UUID, bytes, bytearray, memoryview)  # bytes become base64
_LISTS = (list, tuple, set, frozenset)
_UNFIT = (TypeError, ValueError, OverflowError, pa.ArrowException)


def _object(fields: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    found = {}
    for key, value in fields.items():
        if type(value) not in _JSON:
            try:
                value = _plain(value, f"{within}{key}")
            except _UNFIT as error:
                what = f"{within}{key}: a value of type {type(value).__name__}"
                raise EventError("schema", f"{what}, no value of JSON: {error}") from error
        found[key] = value
    return found


def _plain(value: Any, key: str) -> Any:
    """Return a value as JSON has it, or as msgspec puts it there: as one of a column comes."""
    if type(value) in _JSON:
        return value
    if isinstance(value, datetime | timedelta | np.datetime64 | np.timedelta64):
        return None if value != value else _moment(value)  # NaT is none
    if isinstance(value, Enum):
        return _plain(value.value, key)
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    if isinstance(value, np.generic) and type(value.item()) in _JSON | {bytes}:
        return value.item()
    if isinstance(value, _AS_IT_IS) or (isinstance(value, time) and not value.tzinfo):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return _object(value, f"{key}/")
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":  # whose list may be of numbers
        return [_plain(each, key) for each in value] if value.ndim else _plain(value[()], key)
    if isinstance(value, _LISTS):
        return [_plain(each, key) for each in value]
    if isinstance(value, pa.Scalar):
        return _plain(_through_arrow([value]), key)
    inner = value.tolist() if hasattr(value, "tolist") else value
    if type(inner) is not type(value):
        return _plain(inner, key)
    if type(value).__name__ == "NAType":  # of pandas
        return None
    raise TypeError("expected a number, text, boolean, time, or lists and objects of such")


def _moment(value: Any) -> Any:
    """Return a time in UTC, or a duration; of numpy, or with nanoseconds, as Arrow cuts them."""
    if isinstance(value, datetime) and not getattr(value, "nanosecond", 0):
        plain = datetime.combine(value.date(), value.timetz())
        return plain.astimezone(UTC) if plain.tzinfo else plain.replace(tzinfo=UTC)
    if type(value) is timedelta:
        return value
    return _through_arrow(np.array([value.to_numpy() if hasattr(value, "to_numpy") else value]))


def _through_arrow(values: Any) -> Any:
    return in_microseconds(pa.array(values)).to_pylist()[0]


_encoder = msgspec.json.Encoder(decimal_format="number")
