"""Where numbers are counted from and in which unit, so that float32 keeps the digits that change.

Prices beside 1e9, Unix times, coordinates and cents differ in digits that a float32 does not have,
and squares of 1e30 are none at all. So a column goes into the core less its origin and over its
unit, both of float64. They are 0 and 1 unless that would cost too much, which is asked again at
rows 1, 2, 4, 8, ... and every CHECKED rows: of rows, not of micro-batches, so nothing depends on
how a stream is cut. What the state holds is converted when they change (`rebase`).

Where a column was rounded to nothing, or a stray value was among the first ones, which nothing
could be held against then, what is known of it begins anew (`Change.anew`).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from headrace.model import late_scores, members
from headrace.model.aggregates import within
from headrace.model.metrics import METRICS
from headrace.model.metrics.regression import UNITS
from headrace.model.scale import ScaleState
from headrace.model.spec import Spec
from headrace.model.state import State
from headrace.model.waiting import LABELS

Floats = NDArray[np.float64]

CHECKED = 4096  # rows from one check to the next, once they are so far apart
NEWEST = 5  # known values of a column that are looked at: their median is not one stray value
LOST = 2.0**-12  # of their spread, now or at the last check, that rounding may take
RANGE = 2.0**40  # of a spread, in units: its square is far from both ends of float32
FARTHEST = 1e15  # from the origin, in units
FIRST = 64  # rows among which a stray value is looked for
STRAY = 2.0**10  # times the spread of the newest values, that makes it one
LARGEST = 1e300
POWER = 1000  # of two, of a unit at most
_FLOAT32 = float(np.finfo(np.float32).max)


class Frame:
    """Hold origin and unit of each numeric column, and behind them those of a regression's label.

    Attributes:
        origin: float64[C].
        unit: float64[C], powers of two.
    """

    def __init__(self, spec: Spec, held: Floats | None = None) -> None:
        """Start with 0 and 1, or with what `as_array` held."""
        held = np.array(blank(spec) if held is None else held)
        self.origin, self.unit, self._spread, rows = held[:4]
        self._middle, self._ends, self._newest = held[4], held[5:7], held[7:]
        self._rows = int(rows[0]) if len(rows) else 0
        self._summed = np.zeros(len(self.origin), bool)  # columns that are counted from 0
        self._summed[[at for each, at in spec.aggregated if each.statistic == "sum"]] = True

    def as_array(self) -> Floats:
        """Return everything that the next rows depend on, as float64[7 + NEWEST, C]."""
        rows = np.full_like(self.origin, self._rows)
        first = [self.origin, self.unit, self._spread, rows, self._middle]
        return np.concatenate([first, self._ends, self._newest])

    def copy(self) -> Frame:
        """Return another one that is the same."""
        return copy(self)  # what it holds is replaced, and never changed

    @property
    def is_plain(self) -> bool:
        """Return whether numbers are counted as they come: from 0, in ones."""
        return bool((self.origin == 0.0).all() and (self.unit == 1.0).all())

    @property
    def looks_next(self) -> bool:
        """Return whether it looks at the next row, and may change before it."""
        return bool(_checks(self._rows, 1))

    def stretches(self, values: Floats) -> Iterator[tuple[int, int, Change | None]]:
        """Take rows float64[n, C] in, NaN = missing; cut them where something changes.

        Yields:
            the first row and the end of a stretch, and what changes before it if anything does.
        """
        first, change = 0, None
        for row in _checks(self._rows, len(values)) if values.size else ():
            newest = _latest(self._newest, values[: row + 1])
            anew = self._strays(newest, values[: row + 1])
            moved = self._moved(newest)
            if moved or anew.any():
                if row > first:
                    yield first, row, change
                    first, change = row, None
                change = change or Change(self.copy(), np.zeros_like(anew), newest)
                self.origin, self.unit, lost = moved or (self.origin, self.unit, anew)
                change = change._replace(anew=change.anew | anew | lost, newest=newest)
        if values.size:
            self._newest = _latest(self._newest, values)
            self._strays(self._newest, values)
        self._rows += len(values)
        yield first, len(values), change

    def to_internal(self, values: Floats) -> NDArray[np.float32]:
        """Turn values float64[..., C] into what the core takes, within FARTHEST."""
        with np.errstate(over="ignore"):
            apart = (values - self.origin) / self.unit
        bounded: Floats = apart.clip(-FARTHEST, FARTHEST)
        return bounded.astype(np.float32) + np.float32(0)  # -0 is 0

    def to_external(self, published: NDArray[np.float32]) -> Floats:
        """Turn numbers of the label's column, of any shape, back."""
        found: Floats = published.astype(np.float64) * self.unit[-1] + self.origin[-1]
        return found

    def _strays(self, newest: Floats, values: Floats) -> NDArray[np.bool_]:
        """Say in which columns the first values lie much farther apart than the newest ones."""
        early = values[: max(FIRST - self._rows, 0)]
        low, high = np.fmin.reduce([self._ends[0], *early]), np.fmax.reduce([self._ends[1], *early])
        self._ends = np.array([low, high])
        if self._rows + len(values) > FIRST:
            return np.zeros(len(self.origin), bool)
        few = np.isnan(newest).any(0) | (self._rows + len(values) <= NEWEST)
        spread = _spread(newest)
        found: NDArray[np.bool_] = ~few & (spread > 0) & (high - low > STRAY * spread)
        return found

    def _moved(self, newest: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]] | None:
        """Return another origin and unit, and which columns were lost, if these cost too much.

        Rounding takes nothing from a column that has stood still since the last check, whatever it
        takes from the value; one that moves in steps is as wide as its last step.
        """
        now, middle = _spread(newest), _medians(newest)
        step, first = np.abs(middle - self._middle), np.isnan(self._middle)
        spread = np.maximum(now, self._spread)
        spread = np.where((spread > 0) | first, spread, step)
        known = ~np.isnan(newest).all(0)
        self._spread, self._middle = now, np.where(known, middle, self._middle)
        with np.errstate(invalid="ignore", over="ignore"):
            exact = (newest - self.origin) / self.unit
            lost = np.abs(exact.clip(-FARTHEST, FARTHEST).astype(np.float32) - exact) * self.unit
        lost = np.fmax.reduce(lost)
        size = spread / self.unit
        odd = (spread > 0) & ((size > RANGE) | (size < 1 / RANGE))
        move = (lost > LOST * spread) & ((spread > 0) | first) & ~self._summed | odd
        if not move.any():
            return None
        power = np.floor(np.log2(np.where(spread > 0, spread, 1.0)))
        unit = np.where(odd, np.exp2(power.clip(-POWER, POWER)), self.unit)
        origin = np.where(move & ~self._summed, middle, self.origin)
        return origin, unit, (lost > now) & (now > 0) & ~self._summed


class Change(NamedTuple):
    """Hold what changes before a row: its frame, and in which columns what was known is no good."""

    before: Frame
    anew: NDArray[np.bool_]  # [C]
    newest: Floats  # [NEWEST, C]


def blank(spec: Spec) -> Floats:
    """Return what a frame holds at first, float64[7 + NEWEST, C]."""
    columns = spec.numeric + (not spec.classes)
    return np.concatenate(
        [
            np.zeros((1, columns)),
            np.ones((1, columns)),
            np.zeros((2, columns)),
            np.full((3 + NEWEST, columns), np.nan),
        ]
    )


def moved_from(before: Frame, values: Any, after: Frame, columns: Any = -1) -> Any:
    """Convert what is counted in one frame to another, as float32."""
    whole = values.astype(np.float64) * before.unit[columns]
    whole += before.origin[columns] - after.origin[columns]
    return _float32(whole / after.unit[columns])


def rebase(spec: Spec, state: State, change: Change, after: Frame) -> State:
    """Convert a state from one frame to another; waits for the state."""
    before, middle = change.before, _medians(change.newest)
    spread = _spread(change.newest) / after.unit
    middle = (middle - after.origin) / after.unit

    def moved(leaf: Any, columns: Any) -> Any:
        return moved_from(before, np.asarray(leaf), after, columns)

    def scaled(leaf: Any, columns: Any, power: Any = 1) -> Any:
        with np.errstate(over="ignore"):
            factor = (before.unit[columns] / after.unit[columns]) ** power
        return _float32(np.asarray(leaf, np.float64) * np.minimum(factor, LARGEST))

    def level(known: ScaleState, columns: Any) -> ScaleState:
        mean: Any = np.where(np.asarray(known.seen) > 0, moved(known.mean, columns), 0)
        kept = known._replace(
            mean=mean,
            variance=scaled(known.variance, columns, 2),
            stray=moved(known.stray, columns),
        )
        return anew(kept, columns, middle[columns])

    def anew(known: ScaleState, columns: Any, mean: Any) -> ScaleState:
        begins = change.anew[columns]
        fresh: Any = (NEWEST, mean, np.square(spread[columns]), 0, mean)
        return ScaleState(
            *(
                _float32(np.where(begins, new, old))
                for new, old in zip(fresh, map(np.asarray, known), strict=True)
            )
        )

    numbers, label = slice(0, spec.numeric), slice(spec.numeric, None)
    slots, chunk = state.memory.slots, state.chunk
    rows: Any = np.array(state.shift.rows)
    rows[:, numbers] = moved(rows[:, numbers], numbers)
    slots = slots._replace(
        windows=_windows(spec, slots.windows, before, after),
        numeric=moved(slots.numeric, numbers),
        fading=moved(slots.fading, numbers),
    )
    chunk = chunk._replace(numeric=moved(chunk.numeric, numbers))
    state = state._replace(inputs=level(state.inputs, numbers))
    memory = state.memory
    if not spec.classes:
        goals, metrics = state.target, state.metrics
        rows[:, label] = moved(rows[:, label], label)
        rest = goals.rest._replace(
            mean=scaled(goals.rest.mean, label),
            variance=scaled(goals.rest.variance, label, 2),
            stray=scaled(goals.rest.stray, label),
        )
        share, typical = np.asarray(state.interval)
        together: Any = scaled(goals.together, -1, 2)
        interval: Any = np.array([share, scaled(typical, -1)])
        if change.anew[-1]:
            together, interval = np.zeros(2, np.float32), np.full(2, np.nan, np.float32)
        slots = slots._replace(labels=moved(slots.labels, -1), past=moved(slots.past, -1))
        chunk = chunk._replace(
            label=moved(chunk.label, -1),
            said=moved(chunk.said, -1),
            past=moved(chunk.past, -1),
            due_past=moved(chunk.due_past, -1),
        )
        memory = memory._replace(published=moved(memory.published, -1))
        late = {*LABELS} & state.waiting.keys()
        waits = state.waiting | {name: moved(state.waiting[name], -1) for name in late}
        pairs, fading = np.split(np.asarray(metrics.means, np.float64), [4])
        exact = pairs.reshape(2, 2).sum(1) * before.unit[-1] + before.origin[-1] - after.origin[-1]
        high = _float32(exact / after.unit[-1])
        low = _float32(exact / after.unit[-1] - high)
        known = np.asarray(metrics.sums)[0, :2] > 0  # a label, one that was scored
        means = np.append(np.column_stack([high, low]), moved(fading, -1))
        means = np.where(np.append(known.repeat(2), known[1]), means, np.float32(0))
        state = state._replace(
            target=goals._replace(
                level=level(goals.level, label),
                rest=anew(rest, label, np.zeros(1)),
                together=together,
            ),
            interval=interval,
            metrics=metrics._replace(
                sums=scaled(metrics.sums, -1, UNITS),
                means=means,
            ),
            further={
                name: METRICS[name].convert(
                    state.further[name], lambda leaf, power=1: scaled(leaf, -1, power)
                )
                for name in spec.metrics
            },
            members={
                name: member.convert(state.members[name], lambda leaf: moved(leaf, -1))
                for name, member in members.of(spec).items()
            },
            waiting=waits,
            late={
                name: scaled(leaf, -1, late_scores.UNITS) if name in late_scores.SUMS else leaf
                for name, leaf in state.late.items()
            },
            zero=jnp.asarray(_float32(after.origin[-1] / after.unit[-1])),
        )
    state = state._replace(
        memory=memory._replace(slots=slots),
        chunk=chunk,
        shift=state.shift._replace(rows=rows),
    )
    converted: State = jax.tree.map(jax.device_put, state)
    return converted


def _windows(spec: Spec, known: Any, before: Frame, after: Frame) -> Any:
    """Convert what is known within a time: sums (of means, too) of so many events, extremes."""
    total, events = np.array(known.total, np.float64), np.asarray(known.events, np.float64)
    total += np.asarray(known.lost)
    for at, (each, column) in enumerate(within(spec)):
        terms = (events[:, at] > 0) if each.statistic in ("max", "min") else events[:, at]
        shift = before.origin[column] - after.origin[column]
        total[:, at] = (total[:, at] * before.unit[column] + terms * shift) / after.unit[column]
    kept = total.clip(-FARTHEST, FARTHEST).astype(np.float32)
    return known._replace(total=kept, lost=np.zeros_like(kept))


def _checks(rows: int, new: int) -> list[int]:
    """Return the places among new rows that are checked, after so many."""
    counts = {1 << power for power in range(CHECKED.bit_length())}
    counts |= set(range(-(-(rows + 1) // CHECKED) * CHECKED, rows + new + 1, CHECKED))
    return sorted(count - rows - 1 for count in counts if rows < count <= rows + new)


def _latest(newest: Floats, values: Floats) -> Floats:
    """Return the newest known values of each column, float64[NEWEST, C], the newest one first."""
    if len(values) >= NEWEST and not np.isnan(values[-NEWEST:]).any():
        return values[: -NEWEST - 1 : -1].copy()
    rows = np.concatenate([values[::-1], newest])
    known = ~np.isnan(rows)
    nth = known.cumsum(0)
    latest = np.full_like(newest, np.nan)
    for place in range(NEWEST):
        at = (nth > place).argmax(0)
        found = np.take_along_axis(rows, at[None], 0)[0]
        latest[place] = np.where(nth[-1] > place, found, np.nan)
    return latest


def _spread(newest: Floats) -> Floats:
    """Return how far apart each column's known values are, but for a stray one among NEWEST."""
    if np.isnan(newest).any():
        with np.errstate(invalid="ignore"):
            spread: Floats = np.fmax.reduce(newest) - np.fmin.reduce(newest)
        return np.where(np.isnan(spread), 0.0, spread)
    ranked = np.sort(newest, 0)
    trimmed: Floats = np.minimum(ranked[-2] - ranked[0], ranked[-1] - ranked[1])
    return trimmed


def _medians(newest: Floats) -> Floats:
    """Return the lower median of the known values of each column, 0 of none."""
    known = [np.sort(column[~np.isnan(column)]) for column in newest.T]
    return np.array([each[(len(each) - 1) // 2] if len(each) else 0.0 for each in known])


def _float32(values: Any) -> Any:
    """Round, and keep within the range of float32; NaN stays."""
    return np.clip(values, -_FLOAT32, _FLOAT32).astype(np.float32)
