"""Running standardisation that follows a moving stream."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

MEMORY = 10_000.0
CLIP = 8.0


class ScaleState(NamedTuple):
    """Hold the running moments of N columns."""

    seen: Array  # f32[N]  values behind the moments, at most MEMORY
    mean: Array  # f32[N]
    variance: Array  # f32[N]


def init(columns: int) -> ScaleState:
    """Start with nothing known about `columns` columns."""
    return ScaleState(jnp.zeros(columns), jnp.zeros(columns), jnp.zeros(columns))


def update(state: ScaleState, values: Array, together: int = 1) -> ScaleState:
    """Take in rows f32[K, N]; NaN counts as not seen, and so many values `together` as one.

    Moments merge as in Chan, Golub & LeVeque (1983), "Algorithms for computing the sample
    variance". The older share counts as MEMORY rows at most, so that old regimes fade.
    """
    known = ~jnp.isnan(values)
    count = known.sum(0).astype(jnp.float32)
    new, divisor = count / together, jnp.maximum(count, 1.0)
    new_mean = jnp.where(known, values, 0.0).sum(0) / divisor
    new_variance = jnp.where(known, jnp.square(values - new_mean), 0.0).sum(0) / divisor
    total = state.seen + new
    share = new / jnp.maximum(total, 1.0)
    delta = new_mean - state.mean
    return ScaleState(
        seen=jnp.minimum(total, MEMORY),
        mean=state.mean + delta * share,
        variance=(1.0 - share) * (state.variance + jnp.square(delta) * share)
        + share * new_variance,
    )


def deviation(state: ScaleState) -> Array:
    """Give the standard deviation f32[N], floored well above the rounding of the mean."""
    return jnp.maximum(jnp.sqrt(state.variance), 1e-6 * jnp.abs(state.mean) + 1e-12)


def transform(state: ScaleState, values: Array, centre: Array | None = None) -> Array:
    """Standardise f32[..., N] into [-CLIP, CLIP], around the mean unless another centre is given.

    A missing value or centre, or an unknown column, gives 0.
    """
    apart = values - (state.mean if centre is None else centre)
    scaled = jnp.clip(apart / deviation(state), -CLIP, CLIP)
    return jnp.where(jnp.isnan(apart) | (state.seen < 2.0), 0.0, scaled)
