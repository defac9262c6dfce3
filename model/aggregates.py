"""Aggregates of an entity's events within a time: counts, sums, means, extremes, distinct values.

The time is cut in BUCKETS parts, each with what is known of its events, the newest in a ring: so
an aggregate covers between 15/16 of its time and all of it, up to the event itself, in memory that
does not grow (pane-based windows: Li et al. 2005, "No pane, no gain: efficient evaluation of
sliding-window aggregates over data streams"). Time is that of events; one that comes too late for
its part, by 15/16 of the time or more, sees what is left there and adds nothing. What lies LATE
parts after an event, or a day, was told by a clock that was wrong, and is given up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model import sums
from headrace.model.spec import Aggregate, Spec, Statistic
from headrace.model.xla import choose, pack

BUCKETS = 16
LATE = BUCKETS * BUCKETS
WORDS = 4  # of 32 bits, in which a bucket notes which values it met: some 600 are told apart
DAY = 86_400_000  # milliseconds
NEVER = np.int32(np.iinfo(np.int32).min)


class Known(NamedTuple):
    """Hold what is known of an entity, for A aggregates within a time and D counts of distinct."""

    part: Array  # i32[A, BUCKETS]  of all time, modulo 2^32, that a bucket is of; NEVER = none yet
    events: Array  # u32[A, BUCKETS]  that it counts: those whose number is known; 0 = none yet
    total: Array  # f32[A, BUCKETS]  their sum, or their extreme
    lost: Array  # f32[A, BUCKETS]  what rounding took from the sum
    met: Array  # u32[D, BUCKETS, WORDS]  which values it met, by a part of their hash
    last: Array  # i32[3 or 0]  day and millisecond of the newest event, and whether there is one


def nothing(spec: Spec) -> Known:
    """Start with no events."""
    count = len(within(spec))
    return Known(
        part=jnp.full((count, BUCKETS), NEVER, jnp.int32),
        events=jnp.zeros((count, BUCKETS), jnp.uint32),
        total=jnp.zeros((count, BUCKETS)),
        lost=jnp.zeros((count, BUCKETS)),
        met=jnp.zeros((len(_chosen(spec, "distinct")), BUCKETS, WORDS), jnp.uint32),
        last=jnp.zeros(3 if _chosen(spec, "since_last") else 0, jnp.int32),
    )


def clock(spec: Spec, time_ms: np.ndarray) -> np.ndarray:
    """Return what `add` goes by, i32[n, T], of times i64[n] in milliseconds since 1970."""
    parts = clock_parts(spec, time_ms)
    whole = np.stack(parts, 1) if parts else np.zeros((len(time_ms), 0), np.int64)
    return whole.astype(np.int32)  # modulo 2^32


def clock_parts(spec: Spec, time_ms: Any) -> list[Any]:
    """Return the columns of the `clock` of times i64[n], which are arrays of any kind.

    First the part of all time that an event is in, for each aggregate within a time; then its day
    and millisecond, if time since the last event is asked for.
    """
    parts = [time_ms // max(round(each.seconds * 1000 / BUCKETS), 1) for each, _ in within(spec)]
    days = [time_ms // DAY, time_ms % DAY] if _chosen(spec, "since_last") else []
    return [*parts, *days]


def add(spec: Spec, known: Known, numeric: Array, ids: Array, time: Array) -> tuple[Known, Array]:
    """Take in an event: its numbers f32[N], ids u32[S] and clock i32[T].

    The last numbers are those that the aggregates are of, NaN where there is none.

    Returns:
        what is known then, and the numbers with the aggregates in their columns: counts, distinct
        values and seconds as log(1 + x), all else in the unit of its column; NaN where there is no
        number to say it of.
    """
    columns, said = within(spec), dict[int, Array]()
    if columns:
        known, found = _add_within(columns, known, numeric, ids, time[: len(columns)])
        said |= {column: one for (_, column), one in zip(columns, found, strict=True)}
    for _, column in _chosen(spec, "since_last"):
        now, (day, millisecond, there) = time[len(columns) :], known.last
        apart = (now[0] - day) * np.float32(DAY / 1000) + (now[1] - millisecond) / 1000.0
        said[column] = jnp.where(there > 0, jnp.log1p(jnp.maximum(apart, 0.0)), jnp.nan)
        last = pack(now[0], now[1], jnp.int32(1))
        newest = (there == 0) | (apart > 0.0) | (apart < -DAY / 1000)
        known = known._replace(last=jnp.where(newest, last, known.last))
    first = spec.numeric - len(said)
    place = np.maximum(np.arange(spec.numeric) - first + 1, 0)
    return known, choose(place, [numeric, *(said[column] for column in sorted(said))])


def _add_within(
    columns: list[tuple[Aggregate, int]], known: Known, numeric: Array, ids: Array, part: Array
) -> tuple[Known, list[Array]]:
    """Put an event into the bucket of its part, and say what the buckets of its time hold."""
    value = jnp.stack([_value(*each, numeric, ids) for each in columns])[:, None]
    apart = part[:, None] - known.part
    here = jnp.arange(BUCKETS) == jnp.mod(part, BUCKETS)[:, None]
    anew = here & ((known.part == NEVER) | (apart > 0) | (apart <= -LATE))
    takes = (anew | (here & (apart == 0))) & ~jnp.isnan(value)
    events = jnp.where(anew, jnp.uint32(0), known.events)
    total, lost = (jnp.where(anew, 0.0, old) for old in (known.total, known.lost))
    first = events == 0
    plus, left = sums.add(total, lost, value)
    folds = [_FOLDS.get(each.statistic) for each, _ in columns]
    folded = jnp.stack([f(total[at], value[at]) if f else plus[at] for at, f in enumerate(folds)])
    summed = np.array([f is None for f in folds])[:, None]
    distinct = [at for at, (each, _) in enumerate(columns) if each.statistic == "distinct"]
    bits = _bits(ids[np.array([columns[at][0].source for at in distinct], int)])
    met = jnp.where(anew[distinct, :, None], jnp.uint32(0), known.met)
    known = known._replace(
        part=jnp.where(anew, part[:, None], known.part),
        events=events + takes.astype(jnp.uint32),
        total=jnp.where(takes, jnp.where(first, value, folded), total),
        lost=jnp.where(takes & summed & ~first, left, lost),
        met=jnp.where(takes[distinct, :, None], met | bits[:, None], met),
    )
    apart = part[:, None] - known.part
    there = (known.part != NEVER) & (apart >= 0) & (apart < BUCKETS) & (known.events > 0)
    said = []
    for at, (each, _) in enumerate(columns):
        number = jnp.where(there[at], known.events[at].astype(jnp.float32), 0.0).sum()
        some, held = there[at].any(), known.total[at]
        match each.statistic:
            case "count":
                said.append(jnp.log1p(number))
            case "sum":
                said.append(jnp.where(there[at], held, 0.0).sum())
            case "mean":
                whole = jnp.where(there[at], held, 0.0).sum()
                said.append(jnp.where(some, whole / jnp.maximum(number, 1.0), jnp.nan))
            case "max":
                said.append(jnp.where(some, jnp.where(there[at], held, -jnp.inf).max(), jnp.nan))
            case "min":
                said.append(jnp.where(some, jnp.where(there[at], held, jnp.inf).min(), jnp.nan))
            case _:
                met = jnp.where(there[at][:, None], known.met[distinct.index(at)], jnp.uint32(0))
                said.append(jnp.log1p(_distinct(met)))
    return known, said


_FOLDS = {"max": jnp.maximum, "min": jnp.minimum}


def _value(each: Aggregate, column: int, numeric: Array, ids: Array) -> Array:
    """Return what an aggregate takes of an event, NaN for nothing."""
    match each.statistic:
        case "count":
            return jnp.ones(())
        case "distinct":
            return jnp.where(ids[each.source] != 0, 1.0, jnp.nan)
        case _:
            return jnp.asarray(numeric[column])


def _bits(ids: Array) -> Array:
    """Return the bit of each id u32[D] among those of a bucket, u32[D, WORDS]: its highest bits."""
    bit = ids >> jnp.uint32(25)
    word = (bit // 32)[:, None] == jnp.arange(WORDS)
    return jnp.where(word, jnp.uint32(1) << (bit % 32)[:, None], jnp.uint32(0))


def _distinct(met: Array) -> Array:
    """Estimate how many values set the bits of u32[BUCKETS, WORDS] (Whang et al. 1990, "A
    linear-time probabilistic counting algorithm for database applications")."""
    either = met[0]
    for one in met[1:]:
        either = either | one
    unset = 32.0 * WORDS - lax.population_count(either).astype(jnp.float32).sum()
    return -32.0 * WORDS * jnp.log(jnp.maximum(unset, 0.5) / (32.0 * WORDS))


def within(spec: Spec) -> list[tuple[Aggregate, int]]:
    """Return the aggregates within a time, and the numeric column of each."""
    return [(each, at) for each, at in spec.aggregated if each.statistic != "since_last"]


def _chosen(spec: Spec, statistic: Statistic) -> list[tuple[Aggregate, int]]:
    return [(each, at) for each, at in spec.aggregated if each.statistic == statistic]
