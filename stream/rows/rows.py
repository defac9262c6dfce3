"""Rows: normalised events as columns, and how they are cut, picked, and read from `features`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.events import Feature
from headrace.stream.task import Task


class Rows(NamedTuple):
    """Hold normalised events as columns, in the order they came."""

    id: list[str | int]
    key: list[bytes | None]
    partition: list[int]
    offset: list[int]
    time_ms: NDArray[np.int64]  # [n]  since 1970 UTC
    numeric: NDArray[np.float64]  # [n, N]  NaN = missing; at last, what aggregates are of
    ids: NDArray[np.uint32]  # [n, S]  0 = absent
    entity: NDArray[np.uint32]  # [n, 2]
    label: NDArray[np.float64]  # [n]  class index or value, NaN = unknown, NEW_CLASS = the next
    new_class: list[str | None]  # the name of a class that the task file does not
    image: NDArray[np.uint8]  # [n, H, W, C]
    weight: NDArray[np.float64]  # [n, 0 or 1]  how much each teaches, if the task says where
    arrived_ms: NDArray[np.int64]  # [n]  Kafka's timestamp; 0 where nobody asked for it


def take(rows: Rows, places: list[int]) -> Rows:
    """Return the rows at some places."""
    columns: list[Any] = [
        column[places] if isinstance(column, np.ndarray) else [column[at] for at in places]
        for column in rows
    ]
    return Rows(*columns)


def joined(parts: Sequence[Rows], none: Rows) -> Rows:
    """Put rows together again.

    Args:
        none: what there is without parts.
    """
    if len(parts) < 2:
        return parts[0] if parts else none
    columns: list[Any] = [
        np.concatenate(column) if isinstance(column[0], np.ndarray) else [*chain(*column)]
        for column in zip(*parts, strict=True)
    ]
    return Rows(*columns)


def split(rows: Rows, most: int) -> list[Rows]:
    """Cut rows into parts of `most` rows at most."""
    count = len(rows.id)
    if count <= most:
        return [rows] if count else []
    return [take(rows, list(range(at, min(at + most, count)))) for at in range(0, count, most)]


def rows_of(task: Task, features: Sequence[Feature], keys: Sequence[bytes | None]) -> Rows:
    """Rebuild the rows that `features` records carry; records of refused events are left out.

    Raises:
        ValueError: a record's arrays do not have the sizes of this task.
    """
    kept = [
        (feature, key) for feature, key in zip(features, keys, strict=True) if not feature.reject
    ]
    spec = task.spec
    told = [feature.weight for feature, _ in kept if spec.weighted]

    def column(name: str, kind: type[Any], *shape: int) -> Any:
        joined = b"".join([getattr(feature, name) for feature, _ in kept])
        return np.frombuffer(joined, kind).reshape(len(kept), *shape)

    return Rows(
        id=[feature.id for feature, _ in kept],
        key=[key for _, key in kept],
        partition=[feature.partition for feature, _ in kept],
        offset=[feature.offset for feature, _ in kept],
        time_ms=np.array([feature.time_ms for feature, _ in kept], np.int64),
        numeric=column("numeric", np.float64, spec.numeric),
        ids=column("ids", np.uint32, spec.ids),
        entity=column("entity", np.uint32, 2),
        label=np.array([feature.label for feature, _ in kept], np.float64),
        new_class=[feature.new_class for feature, _ in kept],
        image=column("image", np.uint8, *spec.image),
        weight=np.array(told, np.float64).reshape(len(kept), int(spec.weighted)),
        arrived_ms=np.array([feature.arrived_ms for feature, _ in kept], np.int64),
    )
