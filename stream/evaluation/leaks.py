"""What one column says of the target, and columns of each other: tests over a block of rows.

A column *tells* a row's label if the label can be had from the rows whose values are next to the
row's own. The order of the rows in the file tells labels that way, too, and so does the commonest
label: a column is suspected that leaves a hundredth of what these two leave (of numbers, a
twentieth). So neither a clock beside a slow target, nor a rare class, is taken for a leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST_HARD = 20  # labels that neither the rows' order nor the commonest label tell
FEWEST_UNIQUE = 200  # rows from which values that never come again are ids
LEFT = {True: 0.01, False: 0.05}  # of classes and of numbers: what a leak leaves of what is hard
TOLERANCE = 0.01  # of the target's median distance from its median: closer is told

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """Hold a column of a block: numbers, or ids that are only the same or not."""

    values: NDArray[Any]  # [n]
    known: Flags  # [n]
    ordered: bool

    @classmethod
    def of_numbers(cls, values: NDArray[np.float64]) -> Column:
        """Make one of numbers [n]; NaN is missing."""
        return cls(values, ~np.isnan(values), True)

    @classmethod
    def of_ids(cls, ids: NDArray[np.uint32]) -> Column:
        """Make one of rows of hashed ids [n, w]; of zeros alone it is missing."""
        if ids.shape[1] == 1:
            values: NDArray[Any] = ids[:, 0]
        else:
            whole = np.ascontiguousarray(ids)
            rows = whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))).ravel()
            _, values = np.unique(rows, return_inverse=True)
        return cls(values, np.asarray(ids.any(1)), False)

    def take(self, places: Flags) -> Column:
        """Return some of its rows."""
        return Column(self.values[places], self.known[places], self.ordered)


@dataclass(frozen=True)
class Evidence:
    """Hold what a column says of the target, over the rows that have both.

    Attributes:
        told, untold: rows whose label the column alone tells, or does not.
        hard: how many would be left untold without it.
        same: every value is the label.
        monotone: rows sorted by the column are sorted by the target, too.
        coarse: each label goes with one value of the column.
        turns, changes, spread: evidence for these: how often both turn round from row to row, how
            often the column changes, and how many rows have another value than the commonest.
    """

    is_class: bool
    rows: int = 0
    told: int = 0
    untold: int = 0
    hard: float = 0.0
    same: bool = False
    monotone: bool = False
    coarse: bool = False
    turns: int = 0
    changes: int = 0
    spread: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        if not other.rows:
            return self
        return Evidence(
            self.is_class,
            *(getattr(self, n) + getattr(other, n) for n in ("rows", "told", "untold", "hard")),
            *(getattr(self, n) and getattr(other, n) for n in ("same", "monotone", "coarse")),
            *(getattr(self, n) + getattr(other, n) for n in ("turns", "changes", "spread")),
        )

    @property
    def share(self) -> float:
        """Return which share of the rows the column alone tells."""
        return self.told / self.rows if self.rows else 0.0

    @property
    def _tells(self) -> bool:
        enough = self.hard >= FEWEST_HARD and self.told + self.untold >= self.rows / 2
        return enough and self.untold <= LEFT[self.is_class] * self.hard

    @property
    def holds(self) -> bool:
        """Return whether the column is the target, or a function of it, or it is one of it."""
        return (
            (self.same and self.spread >= FEWEST_HARD)
            or (self.monotone and self.turns >= FEWEST_HARD)
            or self._tells
            or (self.coarse and self.changes >= FEWEST_HARD)
        )

    def words(self, target: str) -> str:
        """Say what was found, as a fact about the rows."""
        rows = f"{self.rows:,} rows"
        if self.same and self.spread >= FEWEST_HARD:
            return f"is equal to the target {target} in all {rows}"
        if self.monotone and self.turns >= FEWEST_HARD:
            return f"sorts all {rows} as the target {target} does"
        if self._tells:
            share = 100 * self.told / (self.told + self.untold)
            return f"alone tells the target {target} in {share:.4g} % of {rows}"
        return f"has one value for each {target} in all {rows}"


@dataclass(frozen=True)
class Target:
    """Hold the labels of a block, and how hard they are without any column."""

    labels: NDArray[np.float64]  # [n]
    is_class: bool
    tolerance: float
    hard: float  # share of the rows that neither their order nor the commonest label tell

    @classmethod
    def of(cls, labels: NDArray[np.float64], *, is_class: bool) -> Target:
        """Measure labels [n]: indices of classes, or numbers."""
        if len(labels) < 3:
            return cls(labels, is_class, 0.0, 0.0)
        if is_class:
            tolerance, usual = 0.0, float(np.bincount(labels.astype(np.int64)).argmax())
        else:
            usual = float(np.median(labels))
            off = np.abs(labels - usual)
            tolerance = TOLERANCE * (float(np.median(off)) or float(off.mean()))
        rows = np.arange(len(labels), dtype=np.float64)
        untold = int((~_told(rows, labels, is_class, tolerance, ordered=True)[0]).sum())
        hard = min(untold / (len(labels) - 2), float((np.abs(labels - usual) > tolerance).mean()))
        return cls(labels, is_class, tolerance, hard)

    def evidence(self, column: Column) -> Evidence:
        """Say what a column of the same rows says of them."""
        x, y = column.values[column.known], self.labels[column.known]
        count = len(y)
        hard = self.hard if count == len(self.labels) else Target.of(y, is_class=self.is_class).hard
        if count < 3 or not hard:
            return Evidence(self.is_class)
        order = np.argsort(x, kind="stable")
        sorted_x, sorted_y = x[order], y[order]
        starts = np.flatnonzero(np.concatenate([[True], sorted_x[1:] != sorted_x[:-1]]))
        told, asked = _told(
            sorted_x, sorted_y, self.is_class, self.tolerance, ordered=column.ordered
        )
        changes = int((x[1:] != x[:-1]).sum())
        numbers = column.ordered and not self.is_class
        return Evidence(
            self.is_class,
            rows=count,
            told=int((told & asked).sum()),
            untold=int((~told & asked).sum()),
            hard=hard * int(asked.sum()),
            same=numbers and bool((x == y).all()),
            monotone=numbers and _monotone(sorted_y, starts),
            coarse=len(starts) > 1 and self._is_coarse(x, y, column.ordered, len(starts)),
            turns=min(_turns(x), _turns(y)) if numbers else 0,
            changes=changes,
            spread=count - int(np.diff(np.append(starts, count)).max()),
        )

    def _is_coarse(self, x: NDArray[Any], y: NDArray[Any], ordered: bool, distinct: int) -> bool:
        """Return whether the column is a function of the target that puts labels together."""
        if not self.is_class and (ordered or distinct > len(x) / 5 or _turns(y) < FEWEST_HARD):
            return False
        order = np.lexsort((x, y))
        x, y = x[order], y[order]
        differs = x[1:] != x[:-1]
        if self.is_class:
            return len(np.unique(y)) > 2 and not bool((differs & (y[1:] == y[:-1])).any())
        return int(differs.sum()) == distinct - 1


def _told(
    x: NDArray[Any],
    y: NDArray[np.float64],
    is_class: bool,
    tolerance: float,
    *,
    ordered: bool,
) -> tuple[Flags, Flags]:
    """Return which labels the rows next to them tell, and of which that can be asked.

    Args:
        x: sorted.
        y: the labels in that order.

    Returns:
        both for all rows but the first and the last.
    """
    before, here, after = x[:-2], x[1:-1], x[2:]
    last, now, following = y[:-2], y[1:-1], y[2:]
    as_last, as_next = before == here, after == here
    if not ordered:
        said = np.where(as_last, last, following)
        return np.abs(said - now) <= tolerance, as_last | as_next
    with np.errstate(all="ignore"):  # of equal values, which are told by each other
        if is_class:
            between = np.where(here - before <= after - here, last, following)
        else:
            between = last + (here - before) / (after - before) * (following - last)
    said = np.where(as_last, last, np.where(as_next, following, between))
    return np.abs(said - now) <= tolerance, np.ones(len(now), np.bool_)


def _monotone(sorted_y: NDArray[np.float64], starts: NDArray[np.intp]) -> bool:
    """Return whether labels, in the order of a column, never fall, or never rise."""
    if len(starts) < 2:
        return False
    least, most = np.minimum.reduceat(sorted_y, starts), np.maximum.reduceat(sorted_y, starts)
    return bool((most[:-1] <= least[1:]).all() or (least[:-1] >= most[1:]).all())


def _turns(values: NDArray[Any]) -> int:
    """Count how often a series turns round."""
    steps = np.sign(np.diff(values))
    steps = steps[steps != 0]
    return int((steps[1:] != steps[:-1]).sum())


def copies(columns: Mapping[str, Column]) -> dict[tuple[str, str], int]:
    """Return pairs of columns that are the same, or of ids only named otherwise; in how many rows.

    Of a column that has several copies, each is paired with the first.
    """
    first: dict[tuple[bool, bytes], str] = {}
    found = {}
    for name, column in columns.items():
        values, count = column.values, len(column.values)
        if not column.ordered:
            distinct, came, places = np.unique(values, return_index=True, return_inverse=True)
            if len(distinct) > count / 2:
                continue
            values = np.argsort(np.argsort(came))[places]
        key = (column.ordered, np.where(column.known, values, np.nan).tobytes())
        other = first.setdefault(key, name)
        if other != name:
            _, counts = np.unique(values[column.known], return_counts=True)
            if counts.size and int(column.known.sum()) - int(counts.max()) >= FEWEST_HARD:
                found[other, name] = count
    return found


def unique(columns: Mapping[str, Column], most: float) -> dict[str, int]:
    """Return columns whose values, in more than this share, never come again: how many values."""
    found = {}
    for name, column in columns.items():
        known = column.values[column.known]
        distinct = len(np.unique(known))
        if len(known) >= FEWEST_UNIQUE and distinct > most * len(known):
            found[name] = distinct
    return found


def counters(columns: Mapping[str, Column]) -> dict[str, float]:
    """Return columns of numbers that change by the same from each row to the next: by how much."""
    found = {}
    for name, column in columns.items():
        if column.ordered and len(column.values) >= FEWEST_HARD and column.known.all():
            steps = np.diff(column.values)
            if steps[0] and (steps == steps[0]).all():
                found[name] = float(steps[0])
    return found
