"""What every drift detector takes and gives."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Observed: TypeAlias = tuple[jax.Array, jax.Array]
"""(x: f32[], known: bool[]): a value to watch; passed over if it is unknown or not finite."""


class Alarm(NamedTuple):
    """Say whether the world drifted at this event, and from where to where; zeros unless it did."""

    fired: jax.Array  # bool[]
    before: jax.Array  # f32[]: mean of the watched value before the change
    after: jax.Array  # f32[]: mean of it since


LIMIT = 1e15
"""Watched values are clipped to plus and minus this, so that sums of their squares stay finite."""


def usable(observed: Observed) -> tuple[jax.Array, jax.Array]:
    """Return the value clipped to `LIMIT`, 0 if it is passed over, and whether it counts."""
    x, known = observed
    counts = known & jnp.isfinite(x)
    return jnp.where(counts, jnp.clip(x, -LIMIT, LIMIT), jnp.float32(0.0)), counts


def quiet() -> Alarm:
    """Return the alarm that did not fire."""
    return Alarm(jnp.bool_(False), jnp.float32(0.0), jnp.float32(0.0))
