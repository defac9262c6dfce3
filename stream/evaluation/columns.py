"""Columns that a learner should not be given: leaks of the target, constants, copies, row ids.

And whether rows are in the order of their times.

Rows are looked at in blocks. The first one raises suspicions, later ones are asked about these
alone, so that a long file costs little more than a short one, and memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stream.evaluation import leaks
from headrace.stream.evaluation.leaks import Evidence
from headrace.stream.evaluation.scores import counted, shown
from headrace.stream.evaluation.time_order import TimeOrder
from headrace.stream.rows.absent import id_columns
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.task.features import Number

BLOCK_ROWS = 8192
BLOCK_CELLS = 2_000_000  # of wide rows there are fewer in a block
FEWEST = 50  # rows from which anything is said of a column
UNIQUE_FROM = 0.9  # share of a category's values that are different
MOST_NAMED = 5  # columns in a line
TOO_GOOD = 0.01  # of the best baseline's error: a score that is better is told
GOOD_FROM = 1000  # rows that are scored
TELLS = 0.5  # share of the labels, from which a column is named beside such a score


@dataclass
class _Block:
    """Hold consecutive rows until there are enough of them."""

    numeric: list[NDArray[np.float64]] = field(default_factory=list)
    ids: list[NDArray[np.uint32]] = field(default_factory=list)
    entity: list[NDArray[np.uint32]] = field(default_factory=list)
    label: list[NDArray[np.float64]] = field(default_factory=list)
    rows: int = 0


class ColumnCheck:
    """Watch the columns that a task learns from, rows after rows; `warnings` says what was found.

    A leak says what is predicted: with `target.horizon` the label that comes so many events of the
    entity later. There, what says the row's own label is a good input, also if it tells the other.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._numbers = [*task.of_kind(Number)]
        self._groups = id_columns(task)
        self._names = [*self._numbers, *self._groups]
        width = len(self._numbers) + task.spec.single_ids + sum(w for _, w in self._groups.values())
        self._most = max(FEWEST, min(BLOCK_ROWS, BLOCK_CELLS // max(width, 1)))
        self._block, self._first = _Block(), True
        self._rows = 0
        self._order = TimeOrder(task)
        self._constant: dict[str, NDArray[Any]] = {}  # the first row's, of those that stay
        self._suspects: dict[str, Evidence] = {}
        self._present: dict[str, Evidence] = {}  # of suspects, where the label is not the row's own
        self._copies: dict[tuple[str, str], int] = {}  # rows in which the two were the same
        self._ids: dict[str, int] = {}
        self._counters: dict[str, float] = {}
        self._alone: dict[str, float] = {}
        self._entities = 0.0

    def add(self, rows: Rows) -> None:
        """Take the next rows, those without a label too."""
        self._order.add(rows)
        count = len(rows.id)
        if not count or not self._names:
            return
        self._watch_constants(rows)
        self._rows += count
        if not self._first and not self._suspects and not self._copies:
            return
        for start in range(0, count, self._most):
            part = slice(start, start + self._most)
            block = self._block
            block.numeric.append(rows.numeric[part, : len(self._numbers)])
            block.ids.append(rows.ids[part])
            block.entity.append(rows.entity[part])
            block.label.append(rows.label[part])
            block.rows += len(block.label[-1])
            if block.rows >= self._most:
                self._close()

    def warnings(self) -> list[str]:
        """Return a line for each kind of finding: the columns, what was seen, what to do."""
        order = self._order.lines()
        if self._rows < FEWEST:
            return order
        if self._block.rows >= FEWEST or (self._first and self._block.rows):
            self._close()
        target, rows = self._target, self._rows
        found = [
            f"{name}: {evidence.words(target)}; if it is known only with {target}, it is a leak: "
            f"leave it out (--drop {self._field(name)})"
            for name, evidence in self._suspects.items()
            if evidence.holds and not (name in self._present and self._present[name].holds)
        ]
        if constant := [*self._constant]:
            found.append(
                f"{_named(constant)}: the same in all {rows:,} rows, which teaches nothing"
            )
        found += [
            f"{second}: the same as {first} in {count:,} rows; leave one of them out"
            for (first, second), count in self._copies.items()
            if not {first, second} & self._constant.keys()
        ]
        found += [
            f"{name}: {count:,} different values in {self._known[name]:,} rows, expected values "
            "that come again; an id is no feature: leave it out, or name it by input.id"
            for name, count in self._ids.items()
        ]
        found += [
            f"{name}: changes by {step:g} from each row to the next, so it only numbers the rows; "
            "leave it out, or name it by input.id or input.time"
            for name, step in self._counters.items()
        ]
        if self._entities > UNIQUE_FROM:
            found.append(
                f"input.entity = {self._task.input.entity!r}: {self._entities:.0%} of the rows are "
                "of an entity of their own, expected entities that come again: no lags are known"
            )
        return [*order, *found]

    def best(self) -> str | None:
        """Say which column alone tells the most labels, and how many; or that none tells half."""
        name = max(self._alone, key=self._alone.__getitem__, default=None)
        if name is None:
            return None
        if self._alone[name] < TELLS:
            return f"no column alone tells {self._target} in most rows"
        return f"{name} alone tells {self._target} in {100 * self._alone[name]:.1f} % of the rows"

    @property
    def _target(self) -> str:
        """Call what is predicted by its name."""
        field, horizon = self._task.target.field, self._task.target.horizon
        return f"{field} {counted(horizon, 'event')} ahead" if horizon else field

    def _field(self, name: str) -> str:
        return self._task.features[name].field or name  # type: ignore[union-attr]

    def _column(self, name: str, values: NDArray[Any]) -> leaks.Column:
        if name in self._groups:
            return leaks.Column.of_ids(values)
        return leaks.Column.of_numbers(values[:, 0])

    def _watch_constants(self, rows: Rows) -> None:
        """Forget, of what has been constant so far, the columns that are no longer."""
        values = self._split(rows.numeric, rows.ids)
        if not self._rows:
            self._constant = {name: each[:1] for name, each in values.items()}
        self._constant = {
            name: first
            for name, first in self._constant.items()
            if bool(((values[name] == first) | (values[name] != values[name])).all())
            and bool(((values[name] != values[name]) == (first != first)).all())
        }

    def _split(self, numeric: NDArray[Any], ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the part of the rows that each column takes, [n, width]."""
        found = {name: numeric[:, at : at + 1] for at, name in enumerate(self._numbers)}
        return found | {name: ids[:, s : s + w] for name, (s, w) in self._groups.items()}

    def _close(self) -> None:
        """Look through a whole block."""
        block, self._block = self._block, _Block()
        numeric, ids = np.concatenate(block.numeric), np.concatenate(block.ids)
        label = np.concatenate(block.label)
        wanted: Iterable[str] = self._names
        if not self._first:
            asked = {*self._suspects, *(name for pair in self._copies for name in pair)}
            wanted = [name for name in self._names if name in asked]  # in the order of before
        parts = self._split(numeric, ids)
        columns = {
            name: self._column(name, parts[name]) for name in wanted if name not in self._constant
        }
        self._look_for_leaks(columns, label, np.concatenate(block.entity))
        if self._first:
            self._known = {name: int(column.known.sum()) for name, column in columns.items()}
            self._copies = leaks.copies(columns)
            self._ids = leaks.unique(
                {name: columns[name] for name in columns if name in self._task.single}, UNIQUE_FROM
            )
            self._counters = leaks.counters(columns)
            if self._task.input.entity and block.rows >= leaks.FEWEST_UNIQUE:
                entity = np.concatenate(block.entity)
                self._entities = len(np.unique(entity, axis=0)) / block.rows
        else:
            same = leaks.copies(columns)
            self._copies = {
                pair: count + same[pair] for pair, count in self._copies.items() if pair in same
            }
        self._first = False

    def _look_for_leaks(
        self,
        columns: dict[str, leaks.Column],
        label: NDArray[np.float64],
        entity: NDArray[np.uint32],
    ) -> None:
        horizon = self._task.target.horizon
        predicted = label_ahead(label, entity, horizon)
        if self._first:
            self._suspects = self._evidence(columns, predicted)
            self._alone = {name: each.share for name, each in self._suspects.items()}
        else:
            self._suspects = self._more(self._suspects, columns, predicted)
        self._suspects = {n: each for n, each in self._suspects.items() if each.holds}
        if horizon:
            asked = {name: columns[name] for name in self._suspects if name in columns}
            known = {name: each for name, each in self._present.items() if name in asked}
            new = {name: each for name, each in asked.items() if name not in known}
            self._present = self._more(known, asked, label) | self._evidence(new, label)

    def _evidence(
        self, columns: dict[str, leaks.Column], label: NDArray[np.float64]
    ) -> dict[str, Evidence]:
        """Return what each column of a block says of labels."""
        known = ~np.isnan(label) & (label >= 0 if self._task.spec.classes else True)
        target = leaks.Target.of(label[known], is_class=bool(self._task.spec.classes))
        return {name: target.evidence(column.take(known)) for name, column in columns.items()}

    def _more(
        self,
        before: dict[str, Evidence],
        columns: dict[str, leaks.Column],
        label: NDArray[np.float64],
    ) -> dict[str, Evidence]:
        """Return evidence of the blocks before and of this one."""
        found = self._evidence({n: each for n, each in columns.items() if n in before}, label)
        return {n: each + found[n] if n in found else each for n, each in before.items()}


def label_ahead(
    label: NDArray[np.float64], entity: NDArray[np.uint32], horizon: int
) -> NDArray[np.float64]:
    """Return the label that each row predicts: that of its entity so many rows later.

    Args:
        label: of the rows, [n].
        entity: hashes, [n, 2].
        horizon: 0 is the row's own.

    Returns:
        [n]; NaN where it is not among the rows.
    """
    if not horizon:
        return label
    order = np.lexsort(entity.T)  # stable: rows of one entity stay in order
    asked, answered = order[:-horizon], order[horizon:]
    same = (entity[asked] == entity[answered]).all(1)
    found = np.full(len(label), np.nan)
    found[asked[same]] = label[answered[same]]
    return found


def too_good(report: dict[str, Any]) -> str | None:
    """Say which score is too good to be true, next to the best baseline, if one is."""
    metric = "accuracy" if "accuracy" in report["all"] else "mae"
    scores = [report["window"], *(each["window"] for each in report["baselines"].values())]
    misses = [each.get(metric) for each in scores]
    if None in misses or report["all"]["events"] < GOOD_FROM:
        return None
    ours, *theirs = [1.0 - miss if metric == "accuracy" else miss for miss in misses]
    if not ours < TOO_GOOD * min(theirs):
        return None
    return f"{metric} {shown(misses[0])} in the newest rows"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
