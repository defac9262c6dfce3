"""What every drift detector takes and gives."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Observed: TypeAlias = tuple[jax.Array, jax.Array]
"""(x: f32[], known: bool[]): a value to watch; passed over if it is unknown or not finite."""


class Alarm(NamedTuple):
    """Say whether the world drifted at this event, and by which numbers.

    The numbers are zeros unless it fired or warns. The statistic is at least the threshold, which
    is that of the warning at a warning; what the two are is said where the detector is made.
    """

    fired: jax.Array  # bool[]
    warning: jax.Array  # bool[]: close to an alarm; never at one, nor where a detector has none
    before: jax.Array  # f32[]: mean of the watched value before the change
    after: jax.Array  # f32[]: mean of it since
    statistic: jax.Array  # f32[]
    threshold: jax.Array  # f32[]: in the units of the statistic
    window: jax.Array  # f32[]: how many values the statistic is of


LIMIT = 1e15
"""Watched values are clipped to plus and minus this, so that sums of their squares stay finite."""


def usable(observed: Observed) -> tuple[jax.Array, jax.Array]:
    """Return the value clipped to `LIMIT`, 0 if it is passed over, and whether it counts."""
    x, known = observed
    counts = known & jnp.isfinite(x)
    return jnp.where(counts, jnp.clip(x, -LIMIT, LIMIT), jnp.float32(0.0)), counts


def share(observed: Observed) -> tuple[jax.Array, jax.Array]:
    """Return the value clipped to 0 and 1, 0 if it is passed over, and whether it counts."""
    x, counts = usable(observed)
    return jnp.clip(x, 0.0, 1.0), counts


def evident(alarm: Alarm) -> Alarm:
    """Return the alarm, its numbers zeros if it neither fired nor warns."""
    shown = alarm.fired | alarm.warning
    return Alarm(*alarm[:2], *(jnp.where(shown, number, 0.0) for number in alarm[2:]))


def quiet() -> Alarm:
    """Return the alarm that did not fire."""
    return Alarm(jnp.bool_(False), jnp.bool_(False), *(jnp.float32(0.0) for _ in Alarm._fields[2:]))


def demand(detector: str, *demands: tuple[str, float, bool, str]) -> None:
    """Raise ValueError for the first (name, value, whether it fits, what is expected) unfit."""
    for name, value, fits, expected in demands:
        if not fits:
            raise ValueError(f"{detector}'s {name} is {value}: expected {expected}")
