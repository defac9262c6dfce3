"""Running standardisation that follows a moving stream, and survives what is far out of it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

MEMORY = 10_000.0
CLIP = 8.0
FAR_OUT = 100.0  # deviations from the mean
SETTLED = 10.0  # values before one can be called far out
COUNTS = 30.0  # deviations, that one far out counts as
DOUBT = 0.9  # of what was seen, that still counts after a value far out
PERSISTS = 5.0  # values far out in a row, after which they are where the column is now
LARGEST = 1e18  # its square is a float32


class ScaleState(NamedTuple):
    """Hold the running moments of N columns."""

    seen: Array  # f32[N]  values behind the moments, at most MEMORY
    mean: Array  # f32[N]
    variance: Array  # f32[N]
    run: Array  # f32[N]  values far out, one after the other, up to now
    stray: Array  # f32[N]  the newest value far out


def init(columns: int) -> ScaleState:
    """Start with nothing known about `columns` columns."""
    return ScaleState(*jnp.zeros((len(ScaleState._fields), columns)))


def update(state: ScaleState, values: Array, together: int = 1) -> ScaleState:
    """Take in rows f32[K, N]; NaN counts as not seen, and so many values `together` as one.

    Moments merge as in Chan, Golub & LeVeque (1983), "Algorithms for computing the sample
    variance". The older share counts as MEMORY rows at most, so that old regimes fade. A value far
    out is moved to COUNTS deviations from the mean (winsorised: Tukey 1962, "The future of data
    analysis"), so an outlier of any size does little; and it casts doubt on what was seen, so that
    new ones soon count for more than the old. After PERSISTS of them in a row the level has moved:
    the newest is the mean, and the variance grows to the square of the last step at least.
    """
    known, width = ~jnp.isnan(values), deviation(state)
    apart = values - state.mean
    reach = jnp.where(state.seen < SETTLED, LARGEST, FAR_OUT * width)
    far = known & (jnp.abs(apart) > reach)
    strays = far.sum(0)
    newest = jnp.where(far, values, 0.0).sum(0) / jnp.maximum(strays, 1)
    run = jnp.where((known & ~far).any(0), 0.0, state.run + strays)
    persists = run >= PERSISTS
    step = jnp.square(newest - state.stray)
    values = jnp.where(far, state.mean + jnp.clip(apart, -COUNTS * width, COUNTS * width), values)
    state = state._replace(seen=state.seen * jnp.power(DOUBT, strays))
    count = known.sum(0).astype(jnp.float32)
    new, divisor = count / together, jnp.maximum(count, 1.0)
    new_mean = jnp.where(known, values, 0.0).sum(0) / divisor
    new_variance = jnp.where(known, jnp.square(values - new_mean), 0.0).sum(0) / divisor
    total = state.seen + new
    share = new / jnp.maximum(total, 1.0)
    delta = new_mean - state.mean
    variance = (1.0 - share) * (state.variance + jnp.square(delta) * share) + share * new_variance
    return ScaleState(
        seen=jnp.where(persists, SETTLED, jnp.minimum(total, MEMORY)),
        mean=jnp.where(persists, newest, state.mean + delta * share),
        variance=jnp.where(persists, jnp.maximum(state.variance, step), variance),
        run=jnp.where(persists, 0.0, run),
        stray=jnp.where(strays > 0, newest, state.stray),
    )


def deviation(state: ScaleState) -> Array:
    """Return the standard deviation f32[N], floored well above the rounding of the mean."""
    return jnp.maximum(jnp.sqrt(state.variance), 1e-6 * jnp.abs(state.mean) + 1e-12)


def transform(state: ScaleState, values: Array, centre: Array | None = None) -> Array:
    """Standardise f32[..., N] into [-CLIP, CLIP], around the mean unless another centre is given.

    A missing value or centre, or an unknown column, gives 0.
    """
    values = jnp.clip(values, -LARGEST, LARGEST)
    apart = values - (state.mean if centre is None else centre)
    scaled = jnp.clip(apart / deviation(state), -CLIP, CLIP)
    return jnp.where(jnp.isnan(apart) | (state.seen < 2.0), 0.0, scaled)
