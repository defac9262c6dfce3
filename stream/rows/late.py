"""Labels that come by themselves, after the events that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.rows.rows import Rows


class LateLabel(NamedTuple):
    """Hold the label of an event that came before it, and what names that event."""

    id: str | int
    key: bytes | None
    partition: int
    offset: int
    time_ms: int
    label: float  # class index or value, NEW_CLASS = the next
    new_class: str | None


def without_labels(rows: Rows) -> tuple[Rows, list[LateLabel | None]]:
    """Return rows that bring no label, and the label of each that brought one."""
    columns = (
        rows.id,
        rows.key,
        rows.partition,
        rows.offset,
        rows.time_ms.tolist(),
        rows.label.tolist(),
        rows.new_class,
    )
    labels = [
        LateLabel(*each) if each[5] == each[5] else None for each in zip(*columns, strict=True)
    ]
    bare = rows._replace(
        label=np.full_like(rows.label, np.nan), new_class=[None] * len(rows.new_class)
    )
    return bare, labels


def interleaved(
    rows: Rows, labels: Sequence[tuple[int, LateLabel]]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Put labels between rows.

    Args:
        labels: each with how many of the rows come before it, in order.

    Returns:
        rows, those of labels empty but for what a label has, and which of them are labels.
    """
    count = len(rows.id) + len(labels)
    is_label = np.zeros(count, bool)
    is_label[[before + at for at, (before, _) in enumerate(labels)]] = True
    of_rows, of_labels = np.flatnonzero(~is_label), np.flatnonzero(is_label)
    told = [label for _, label in labels]
    found: dict[str, Any] = {}
    for name, column in rows._asdict().items():
        late = [getattr(label, name, None) for label in told]
        if isinstance(column, list):
            merged: Any = [None] * count
            for places, values in ((of_rows, column), (of_labels, late)):
                for place, value in zip(places.tolist(), values, strict=True):
                    merged[place] = value
        else:
            blank = np.nan if name == "numeric" else 0
            merged = np.full((count, *column.shape[1:]), blank, column.dtype)
            merged[of_rows] = column
            if name in LateLabel._fields:
                merged[of_labels] = late
        found[name] = merged
    return Rows(**found), is_label
