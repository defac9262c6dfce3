"""Shift of the inputs: how far the newest rows are, column by column, from the first ones.

Rows are noted one by one, which costs next to nothing; what they say is asked for when it matters.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

FIRST = 512  # rows that others are compared with
NEWEST = 128  # rows that are compared: few, for an alarm comes soon
PSI_THRESHOLD = 0.25  # up to 0.1 is called no shift, above 0.25 a major one
ALPHA = 0.001  # chance that chance alone exceeds a Kolmogorov-Smirnov threshold

_BINS = 10
_LEAST_SHARE = 1e-4  # of an empty bin: its logarithm is finite


class Rows(NamedTuple):
    """Hold the first and the newest rows of N columns; what is not finite is kept as NaN."""

    rows: Array  # f32[FIRST + NEWEST, N]: the first ones, then a ring of the newest
    n: Array  # i32[]: rows met
    anew: Array  # bool[]: whether the next row is the first one


class Shift(NamedTuple):
    """Say which columns moved; all are zeros while there are no two windows to compare."""

    moved: Array  # bool[N]: `psi` and `ks` are both above their thresholds
    psi: Array  # f32[N]: population stability index, 0 for the same shares
    ks: Array  # f32[N]: Kolmogorov-Smirnov statistic, 0 to 1
    ks_threshold: Array  # f32[N]: infinite where a window has no value of the column


def init(columns: int) -> Rows:
    """Start with no rows of N columns, at least 0."""
    return Rows(jnp.zeros((FIRST + NEWEST, columns)), jnp.int32(0), jnp.bool_(False))


def note(state: Rows, row: Array) -> Rows:
    """Write a row f32[N] down; what is NaN or infinite counts as not seen.

    The first FIRST rows are the reference until there are others.
    """
    before = jnp.where(state.anew, 0, state.n)
    place = jnp.where(before < FIRST, before, FIRST + before % NEWEST)
    n = before + 1
    return Rows(
        rows=state.rows.at[place].set(jnp.where(jnp.isfinite(row), row, jnp.nan)),
        n=jnp.where(n == FIRST + 2 * NEWEST, FIRST + NEWEST, n),
        anew=jnp.bool_(False),
    )


def restart(state: Rows, now: Array) -> Rows:
    """Let the next rows be the first ones, if `now`."""
    return state._replace(anew=state.anew | now)


def compare(state: Rows) -> Shift:
    """Compare the newest rows that are not among the first ones with these, column by column.

    A column is compared by the values it has, and all is 0 where a window has none of it.

    The population stability index is the sum of (q - p) ln(q / p) over 10 bins with the shares p
    of the reference and q of the newest, both at least 0.0001. The bins end at those values of the
    reference that reach its deciles (numpy's `inverted_cdf`), each with its end; of ends that are
    equal all but one bin are empty. The Kolmogorov-Smirnov statistic is how far the two empirical
    distribution functions are apart at most, and its threshold sqrt(-ln(a / 2) (1/n + 1/m) / 2) for
    n and m values, a being ALPHA over the columns (Bonferroni). A column has moved if the second
    says that it is more than chance, for rows that do not depend on one another, and the first that
    it is much: without a shift the index is 9 / n + 9 / m on average.

    References:
        Siddiqi 2006, Credit risk scorecards (index, its rule of thumb). Yurdakul 2018, Statistical
        properties of population stability index (its mean). Smirnov 1948, Table for estimating the
        goodness of fit of empirical distributions, Annals of Mathematical Statistics 19.
    """
    columns = state.rows.shape[1]
    there = (jnp.arange(NEWEST) < state.n - FIRST)[:, None]
    newest = jnp.where(there, state.rows[FIRST:], jnp.nan)
    n, m, psi, ks = distances(state.rows[:FIRST], newest)
    scale = -0.5 * log(ALPHA / max(columns, 1) / 2.0)
    ks_threshold = jnp.sqrt(scale * (1.0 / n + 1.0 / m))
    moved = (psi > PSI_THRESHOLD) & (ks > ks_threshold)
    return Shift(moved, psi, ks, ks_threshold)


def distances(reference: Array, newest: Array) -> tuple[Array, Array, Array, Array]:
    """Compare f32[W, N] and f32[R, N] column by column.

    Each value is compared with each: XLA takes less time to compile that than to compile a sort.

    Returns:
        How many values of the reference and of the newest are not NaN, their population stability
        index and their Kolmogorov-Smirnov statistic, each f32[N]. The last two are 0 where either
        has no value.
    """
    values = jnp.concatenate([reference, newest]).T
    known, old = ~jnp.isnan(values), np.arange(values.shape[1]) < len(reference)
    parts = jnp.stack([known & old, known & ~old]).astype(jnp.float32)
    n, m = counts = parts.sum(2)
    most = jnp.maximum(counts, 1.0)

    def meet(at: Array, met: Array) -> Array:
        """Count the value of each column at a place where it is not above others."""
        value, which = (lax.dynamic_slice_in_dim(x, at, 1, -1) for x in (values, parts))
        return met + (value <= values) * which

    met = lax.fori_loop(0, values.shape[1], meet, jnp.zeros(parts.shape))
    p, q = met / most[..., None]
    ks = jnp.max(jnp.where(known, jnp.abs(p - q), 0.0), axis=1)

    def cut(decile: Array, below: Array) -> Array:
        """Count the values up to a decile of the reference."""
        reach = (parts[0] > 0) & (met[0] >= jnp.ceil(decile * n / _BINS)[:, None])
        end = jnp.min(jnp.where(reach, values, jnp.inf), axis=1, keepdims=True)
        return below.at[decile].set(((values <= end) * parts).sum(2))

    ends = jnp.zeros((_BINS + 1, *counts.shape)).at[-1].set(counts)
    shares = jnp.diff(lax.fori_loop(1, _BINS, cut, ends), axis=0) / most
    p, q = jnp.maximum(shares, _LEAST_SHARE).swapaxes(0, 1)
    psi = jnp.sum((q - p) * jnp.log(q / p), axis=0)
    seen = (n > 0) & (m > 0)
    return n, m, jnp.where(seen, psi, 0.0), jnp.where(seen, ks, 0.0)
