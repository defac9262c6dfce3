"""Shift of the inputs: how far the newest rows are, column by column, from the first ones."""

from __future__ import annotations

from math import log
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from model.drift.alarm import demand
from model.fold import Fold

Row: TypeAlias = tuple[jax.Array, jax.Array]
"""(values: f32[N], known: bool[]): a row of N columns, passed over if it is unknown."""

_BINS = 10
_LEAST_SHARE = 1e-4  # of an empty bin: its logarithm is finite
_KEY_OF_NAN = 0x7FC00000


class Rows(NamedTuple):
    """Hold the reference and the newest rows; what is not finite is kept as NaN."""

    rows: jax.Array  # f32[2 W, N]: the first W, then a ring of the newest W; zeros before
    n: jax.Array  # i32[]: rows met; when they are many, as many less as leave all else the same


class Shift(NamedTuple):
    """Say which columns moved; all are zeros at an event that does not compare."""

    compared: jax.Array  # bool[]
    moved: jax.Array  # bool[N]: `psi` and `ks` are both above their thresholds
    psi: jax.Array  # f32[N]: population stability index, 0 for the same shares
    ks: jax.Array  # f32[N]: Kolmogorov-Smirnov statistic, 0 to 1
    ks_threshold: jax.Array  # f32[N]: infinite where a window has no value of the column
    order: jax.Array  # i32[N]: the columns, the one with the highest `psi` first


def make_shift(
    columns: int,
    *,
    window: int = 512,
    every: int = 256,
    psi_threshold: float = 0.25,
    alpha: float = 0.001,
) -> Fold[Rows, Row, Shift]:
    """Make the fold that compares the newest rows with the first ones, column by column.

    The first `window` rows are the reference for good: start anew for another. From the row on
    that completes as many others, the newest `window` rows are compared with them at each
    `every`-th row; the rest only write a row. What is NaN or infinite is not seen: a column is
    compared by the values it has, and all is 0 where a window has none of it.

    The population stability index is the sum of (q - p) ln(q / p) over 10 bins with the shares p
    of the reference and q of the newest, both at least 0.0001. The bins end at those values of the
    reference that reach its deciles (numpy's `inverted_cdf`), each with its end; of ends that are
    equal all but one bin are empty. The Kolmogorov-Smirnov statistic is how far the two empirical
    distribution functions are apart at most, and its threshold sqrt(-ln(a / 2) (1/n + 1/m) / 2) for
    n and m values, a being `alpha` over the columns (Bonferroni). Values that differ in the last
    bit only count as equal. A column has moved if the second says that it is more than chance, for
    rows that do not depend on one another, and the first that it is much.

    Args:
        columns: N, at least 1.
        window: W, rows in the reference and in what is compared with it, at least 10; the state
            holds 8 W N bytes.
        every: rows from one comparison to the next, at least 1.
        psi_threshold: at least 0; up to 0.1 is called no shift, above 0.25 a major one. Without a
            shift it is 18 / W on average.
        alpha: chance that chance alone exceeds a Kolmogorov-Smirnov threshold, above 0 and below 1.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Siddiqi 2006, Credit risk scorecards (index, its rule of thumb). Yurdakul 2018, Statistical
        properties of population stability index (its mean). Smirnov 1948, Table for estimating the
        goodness of fit of empirical distributions, Annals of Mathematical Statistics 19.
    """
    demand(
        "Shift",
        ("columns", columns, columns >= 1, "at least 1"),
        ("window", window, window >= _BINS, f"at least {_BINS}"),
        ("every", every, every >= 1, "at least 1"),
        ("psi_threshold", psi_threshold, psi_threshold >= 0, "a number of at least 0"),
        ("alpha", alpha, 0 < alpha < 1, "a number between 0 and 1"),
    )
    full = 2 * window
    scale = -0.5 * log(alpha / columns / 2.0)

    def compare(rows: jax.Array) -> Shift:
        n, m, psi, ks = distances(rows[:window], rows[window:])
        ks_threshold = jnp.sqrt(scale * (1.0 / n + 1.0 / m))
        return Shift(
            compared=jnp.bool_(True),
            moved=(psi > psi_threshold) & (ks > ks_threshold),
            psi=psi,
            ks=ks,
            ks_threshold=ks_threshold,
            order=jnp.argsort(-psi).astype(jnp.int32),
        )

    def nothing(rows: jax.Array) -> Shift:
        shapes = jax.eval_shape(compare, rows)
        return Shift(*(jnp.zeros(leaf.shape, leaf.dtype) for leaf in shapes))

    def update(state: Rows, row: Row) -> tuple[Rows, Shift]:
        values, known = row
        place = jnp.where(state.n < window, state.n, window + state.n % window)
        values = jnp.where(jnp.isfinite(values), values, jnp.nan)
        values = jnp.where(known, values, state.rows[place])
        rows = lax.dynamic_update_slice(state.rows, values[None], (place, jnp.int32(0)))
        n = state.n + known
        compares = known & (n >= full) & ((n - full) % every == 0)
        shift = lax.cond(compares, compare, nothing, rows)
        return Rows(rows, jnp.where(n == full + window * every, full, n)), shift

    return Fold(lambda: Rows(jnp.zeros((full, columns), jnp.float32), jnp.int32(0)), update)


def distances(
    reference: jax.Array, newest: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Compare two f32[W, N] column by column.

    Returns:
        How many values of the reference and of the newest are not NaN, their population stability
        index and their Kolmogorov-Smirnov statistic, each f32[N]. The last two are 0 where either
        has no value.
    """
    n, m = (jnp.sum(~jnp.isnan(part), axis=0)[:, None] for part in (reference, newest))
    keys = jnp.concatenate([_key(reference), _key(newest) | 1]).T
    keys = lax.sort(keys, dimension=1, is_stable=False)
    met = jnp.minimum(np.arange(1, keys.shape[1] + 1), n + m)
    met_old = jnp.cumsum((keys < _KEY_OF_NAN) & (keys & 1 == 0), axis=1)
    some, some_old = jnp.maximum(m, 1), jnp.maximum(n, 1)
    distance = jnp.abs(met_old / some_old - (met - met_old) / some)
    # of equal values the last counts: only there all of them are met
    last = jnp.pad(keys[:, 1:] >> 1 != keys[:, :-1] >> 1, ((0, 0), (0, 1)), constant_values=True)
    ks = jnp.max(jnp.where(last, distance, 0.0), axis=1)

    deciles = -(-np.arange(1, _BINS) * n // _BINS)
    ends = jnp.sum(met_old[:, None] < deciles[..., None], axis=2)
    ends = jnp.take_along_axis(keys, ends, axis=1) | 1
    below = jnp.sum(keys[:, None] <= ends[..., None], axis=2)
    below_old = jnp.take_along_axis(met_old, below - 1, axis=1)
    p, q = _shares(below_old / some_old), _shares((below - below_old) / some)
    psi = jnp.sum((q - p) * jnp.log(q / p), axis=1)

    n, m = n[:, 0].astype(jnp.float32), m[:, 0].astype(jnp.float32)
    seen = (n > 0) & (m > 0)
    return n, m, jnp.where(seen, psi, 0.0), jnp.where(seen, ks, 0.0)


def _key(values: jax.Array) -> jax.Array:
    """Return even integers in the order of the values, NaN last: XLA sorts these far faster."""
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return jnp.where(jnp.isnan(values), _KEY_OF_NAN, ordered & ~1)


def _shares(below: jax.Array) -> jax.Array:
    """Return the shares f32[N, 10] of the bins from those below their ends f32[N, 9]."""
    edges = jnp.pad(below, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1)))
    return jnp.maximum(jnp.diff(edges, axis=1), _LEAST_SHARE)
