"""Labels that come by themselves, after the events that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.stream.rows.rows import Rows, take
from headrace.stream.task.labels import Policy


class LateLabel(NamedTuple):
    """Hold the label of an event that came before it, and what names that event."""

    id: str | int
    key: bytes | None
    partition: int
    offset: int
    time_ms: int
    label: float  # class index or value, NEW_CLASS = the next
    new_class: str | None
    weight: float = 1.0  # by how much more or less it teaches than its event says


Placed = tuple[int, LateLabel]
"""A label, and how many of the rows come before it."""


class Truth(msgspec.Struct, omit_defaults=True):
    """Count what became of labels, and of rows that wait for one.

    labels == scored - implied + rescored + relearned + repeated + unasked + refused + held, and of
    rows: predicted == scored + expired + those that wait.
    """

    labels: int = 0  # that came, within their event or by themselves
    scored: int = 0  # rows: the first label of each
    implied: int = 0  # of these, rows that expired and were given a label for that
    expired: int = 0  # rows that were given none
    rescored: int = 0  # labels that corrected another: its row was scored again
    relearned: int = 0  # labels that corrected another: its row was scored and learned again
    repeated: int = 0  # labels that came again, and say the same
    unasked: int = 0  # labels that answer no row: of an entity's first events, with a horizon
    refused: int = 0  # labels that are none, or whose row is not there
    held: int = 0  # labels that wait for their event, less those that did before

    @property
    def balanced(self) -> bool:
        """Return whether all labels are accounted for."""
        corrected = self.rescored + self.relearned
        kept = corrected + self.unasked + self.repeated + self.refused + self.held
        return self.labels == self.scored - self.implied + kept

    def count_correction(self, policy: Policy) -> None:
        """Count a label that took the place of another."""
        if policy == "rescore":
            self.rescored += 1
        else:
            self.relearned += 1

    def add(self, other: Truth) -> None:
        """Add counts of what came next."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def by_arrival(rows: Rows) -> Rows:
    """Return the rows of one micro-batch in the order in which Kafka got them.

    Those of one partition stay in their order, whatever its clock says.
    """
    partitions = np.array(rows.partition)
    if len(partitions) < 2 or (partitions == partitions[0]).all():
        return rows
    arrived_ms = rows.arrived_ms.copy()
    for partition in np.unique(partitions):
        own = partitions == partition
        arrived_ms[own] = np.maximum.accumulate(arrived_ms[own])
    return take(rows, np.argsort(arrived_ms, kind="stable").tolist())


def placed(rows: Rows, labels: Sequence[LateLabel], arrived_ms: Sequence[int]) -> list[Placed]:
    """Put labels between the rows of one micro-batch, by when Kafka got them.

    A label comes behind the last row that came no later; among themselves they keep their order.

    Args:
        arrived_ms: Kafka's timestamps of the labels.
    """
    earliest = np.minimum.accumulate(rows.arrived_ms[::-1])[::-1]  # of a row and those behind it
    places = np.searchsorted(earliest, np.array(arrived_ms, np.int64), side="right")
    if (places[1:] >= places[:-1]).all():
        return [*zip(places.tolist(), labels, strict=True)]
    order = np.argsort(places, kind="stable")
    return [(place, labels[at]) for place, at in zip(places[order].tolist(), order, strict=True)]


def labels_of(rows: Rows) -> list[LateLabel | None]:
    """Return the label of each row that brings one."""
    columns = (
        rows.id,
        rows.key,
        rows.partition,
        rows.offset,
        rows.time_ms.tolist(),
        rows.label.tolist(),
        rows.new_class,
    )
    found = map(LateLabel._make, zip(*columns, repeat(1.0, len(rows.id)), strict=True))
    if not np.isnan(rows.label).any():
        return [*found]
    return [each if each.label == each.label else None for each in found]


def unlabelled(rows: Rows) -> Rows:
    """Return rows that bring no label."""
    none: list[str | None] = [None] * len(rows.new_class)
    return rows._replace(label=np.full_like(rows.label, np.nan), new_class=none)


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
    columns: Any = zip(*(label for _, label in labels), strict=True)
    told = LateLabel(*columns) if labels else None
    found: dict[str, Any] = {}
    for name, column in rows._asdict().items():
        late = getattr(told, name, None)
        if isinstance(column, list):
            merged: Any = np.empty(count, object)
            merged[of_rows], merged[of_labels] = column, late
            merged = merged.tolist()
        else:
            blank = np.nan if name == "numeric" else 0
            merged = np.full((count, *column.shape[1:]), blank, column.dtype)
            merged[of_rows] = column
            if late is not None:
                merged[of_labels] = np.array(late)[:, None] if name == "weight" else late
        found[name] = merged
    return Rows(**found), is_label
