"""Columns of Arrow as the JSON of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import starmap
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headrace.stream.errors import UsageError
from headrace.stream.formats.fields import is_plain_name

_AS_OF_NUMPY = (pa.float64(), pa.float32(), pa.string())  # far faster; null is NaN or None there
_encoder = msgspec.json.Encoder(decimal_format="number")
_MOST_FIELDS = 500  # of a struct; more columns are rare, and slower as dictionaries


def batch_rows(batch: Any, names: Sequence[str]) -> Iterator[bytes]:
    """Yield the rows of an Arrow record batch as JSON, their columns called `names`.

    Raises:
        UsageError: a column is of a type that has no one meaning in JSON.
        ArrowException, ValueError, OverflowError: a value is beyond what Python can hold.
    """
    columns = [_values(name, column) for name, column in zip(names, batch.columns, strict=True)]
    yield from rows_as_json(names, zip(*columns, strict=True))


def rows_as_json(names: Sequence[str], rows: Any) -> list[bytes]:
    """Return rows of Python's values as JSON, their columns called `names`."""
    objects: list[Any]
    if len(names) <= _MOST_FIELDS and all(map(is_plain_name, names)):
        objects = list(starmap(_struct(tuple(names)), rows))
    else:
        objects = [dict(zip(names, row, strict=True)) for row in rows]
    return _encoder.encode_lines(objects).split(b"\n")[:-1]


@lru_cache(16)
def _struct(names: tuple[str, ...]) -> Any:
    fields = [f"f{at}" for at in range(len(names))]
    told = dict(zip(fields, names, strict=True))
    return msgspec.defstruct("Row", fields, rename=told, gc=False, frozen=True)


def _values(name: str, column: Any) -> list[Any]:
    kind = column.type
    if kind in _AS_OF_NUMPY or (pa.types.is_integer(kind) and not column.null_count):
        return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
    try:
        return _plain(column).to_pylist(maps_as_pydicts="strict")  # type: ignore[no-any-return]
    except UsageError as error:
        raise UsageError(f"column {name!r}: {error}") from None
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise type(error)(f"column {name!r} ({kind}): {reason}") from error


def in_microseconds(column: Any) -> Any:
    """Return times as Python has them; where pandas is, its own would come of nanoseconds.

    A time without a zone is taken as UTC.

    Raises:
        ArrowException: a duration is not of whole microseconds, or a time beyond what they reach.
    """
    if pa.types.is_duration(column.type):
        return column.cast(pa.duration("us"))
    target = _target(column.type)
    if target == column.type:
        return column
    return pc.cast(column, options=pc.CastOptions(target, allow_time_truncate=True))


def _plain(column: Any) -> Any:
    """Return a column that Python can hold as it is; raises UsageError, too."""
    if isinstance(column, pa.ExtensionArray):
        known = column.type.extension_name in _EXTENSIONS
        return column if known else _plain(column.storage)
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode())
    if pa.types.is_run_end_encoded(column.type):
        return _plain(pc.run_end_decode(column))
    return in_microseconds(column)


def _target(kind: Any) -> Any:
    """Return the type as which a type is read."""
    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_dictionary(kind):
        return _target(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_target(field.type)) for field in kind])
    for is_kind, make in _LISTS:
        if is_kind(kind):
            return make(kind.value_field.with_type(_target(kind.value_type)))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_target(kind.value_type)), kind.list_size)
    if types.is_map(kind):
        if not (types.is_string(kind.key_type) or types.is_large_string(kind.key_type)):
            raise UsageError(f"of type {kind}; expected texts as the keys of a map")
        return pa.map_(kind.key_type, _target(kind.item_type))
    if types.is_union(kind) or types.is_interval(kind):
        raise UsageError(f"of type {kind}, which is not read; write it as another")
    return kind


_EXTENSIONS = ("arrow.uuid", "arrow.bool8")
_LISTS = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)
