"""Shift of the inputs: how far the newest rows are, column by column, from the first ones.

Rows are noted one by one, which costs next to nothing; what they say is asked for when it matters.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FIRST = 512  # rows that others are compared with
NEWEST = 128  # rows that are compared: few, for an alarm comes soon
PSI_THRESHOLD = 0.25  # up to 0.1 is called no shift, above 0.25 a major one
ALPHA = 0.001  # chance that chance alone exceeds a Kolmogorov-Smirnov threshold

_BINS = 10
_LEAST_SHARE = 1e-4  # of an empty bin: its logarithm is finite


class Rows(NamedTuple):
    """Hold the first and the newest rows of N columns; what is not finite is kept as NaN."""

    rows: jax.Array  # f32[FIRST + NEWEST, N]: the first ones, then a ring of the newest
    n: jax.Array  # i32[]: rows met
    anew: jax.Array  # bool[]: whether the next row is the first one


class Shift(NamedTuple):
    """Say which columns moved; all are zeros while there are no two windows to compare."""

    moved: jax.Array  # bool[N]: `psi` and `ks` are both above their thresholds
    psi: jax.Array  # f32[N]: population stability index, 0 for the same shares
    ks: jax.Array  # f32[N]: Kolmogorov-Smirnov statistic, 0 to 1
    ks_threshold: jax.Array  # f32[N]: infinite where a window has no value of the column


def init(columns: int) -> Rows:
    """Start with no rows of N columns, at least 0."""
    return Rows(jnp.zeros((FIRST + NEWEST, columns)), jnp.int32(0), jnp.bool_(False))


def note(state: Rows, row: jax.Array) -> Rows:
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


def restart(state: Rows, now: jax.Array) -> Rows:
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


def distances(
    reference: jax.Array, newest: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Compare f32[W, N] and f32[R, N] column by column.

    Each value is compared with each, which is fast enough now and then, and takes XLA less time to
    compile than to sort.

    Returns:
        How many values of the reference and of the newest are not NaN, their population stability
        index and their Kolmogorov-Smirnov statistic, each f32[N]. The last two are 0 where either
        has no value.
    """
    old = np.arange(len(reference) + len(newest)) < len(reference)

    def one(values: jax.Array) -> tuple[jax.Array, ...]:
        known = ~jnp.isnan(values)
        parts = jnp.stack([known & old, known & ~old]).astype(jnp.float32)
        n, m = parts.sum(1)
        below = values <= values[:, None]  # by each value: which are not above it
        met_old, met_new = jnp.einsum("pj,ij->pi", parts, below.astype(jnp.float32))
        p_met, p_new = met_old / jnp.maximum(n, 1.0), met_new / jnp.maximum(m, 1.0)
        ks = jnp.max(jnp.where(known, jnp.abs(p_met - p_new), 0.0))
        deciles = jnp.ceil(jnp.arange(1, _BINS) * n / _BINS)
        reach = known & old & (met_old >= deciles[:, None])
        ends = jnp.min(jnp.where(reach, values, jnp.inf), axis=1)
        counts = jnp.einsum("pj,ej->pe", parts, (values <= ends[:, None]).astype(jnp.float32))
        p, q = _shares(counts[0] / jnp.maximum(n, 1.0)), _shares(counts[1] / jnp.maximum(m, 1.0))
        psi = jnp.sum((q - p) * jnp.log(q / p))
        seen = (n > 0) & (m > 0)
        return n, m, jnp.where(seen, psi, 0.0), jnp.where(seen, ks, 0.0)

    n, m, psi, ks = lax.map(one, jnp.concatenate([reference, newest]).T)
    return n, m, psi, ks


def _shares(below: jax.Array) -> jax.Array:
    """Return the shares f32[10] of the bins from those below their ends f32[9]."""
    edges = jnp.pad(below, (1, 1), constant_values=(0, 1))
    return jnp.maximum(jnp.diff(edges), _LEAST_SHARE)
