"""Data frames as columns of numbers, texts and booleans, for estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORDS_OF_A_TEXT = 3  # on average, from which on a column holds texts, and no categories
_TYPES = "numbers, texts or booleans"


def table_of(X: Any) -> pa.Table:
    """Return a data frame as a table of Arrow."""
    if not type(X).__module__.startswith("pandas"):
        return pa.table(X)
    try:
        return pa.Table.from_pandas(X, preserve_index=False)
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        for at, name in enumerate(X.columns):
            kinds = sorted({type(each).__name__ for each in X.iloc[:, at].dropna()})
            if len(kinds) > 1:
                raise ValueError(
                    f"the column {name!r} holds {', '.join(kinds)}: expected one of {_TYPES}"
                ) from error
        raise


def column_of(name: str, column: Any) -> pa.Array:
    """Check a column of a data frame: return numbers as float64, texts and booleans as such."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type) or _is_number(values.type):
        values = values.cast(pa.float64(), safe=False)  # rounded, as numbers of an array are
        if np.isinf(values.to_numpy(zero_copy_only=False)).any():
            raise ValueError(f"Input X contains infinity, in the column {name!r}")
    elif _is_text(values.type):
        values = values.cast(pa.string())
    elif not pa.types.is_boolean(values.type):
        raise ValueError(f"the column {name!r} holds {values.type}: expected one of {_TYPES}")
    return values


def alike(name: str, column: pa.Array, first: pa.DataType) -> pa.Array:
    """Return a later column as one of the first type, or raise ValueError."""
    if column.type == first:
        return column
    if not np.all(pc.is_null(column, nan_is_null=True)):
        raise ValueError(
            f"the column {name!r} holds {_told(column.type)}: "
            f"expected {_told(first)}, as when it first came"
        )
    return pa.nulls(len(column), first)


def _told(kind: pa.DataType) -> str:
    return "numbers" if _is_number(kind) else "texts" if _is_text(kind) else "booleans"


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def kind_of(column: pa.Array) -> str:
    """Return which kind of feature a column is."""
    if _is_number(column.type):
        return "number"
    if not _is_text(column.type):
        return "category"
    words = [len(value.split()) for value in column.to_pylist() if value is not None]
    return "text" if sum(words) >= WORDS_OF_A_TEXT * max(len(words), 1) else "category"
