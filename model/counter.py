"""Counts that no stream comes to the end of: 64 bits in two halves, for XLA has 32 by default."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

_MOST = np.iinfo(np.int32).max


def zero(*shape: int) -> Array:
    """Start at 0, u32[*shape, 2]: the low halves, then the high ones."""
    return jnp.zeros((*shape, 2), jnp.uint32)


def add(counter: Array, more: Array) -> Array:
    """Count `more`, bool[*shape] or whole numbers from 0 to 2^31."""
    low, high = counter[..., 0], counter[..., 1]
    after = low + jnp.asarray(more).astype(jnp.uint32)
    return jnp.stack([after, high + (after < low)], -1)


def clipped(counter: Array) -> Array:
    """Return the count, or 2^31 - 1 if it is beyond, i32[*shape]."""
    beyond = (counter[..., 1] > 0) | (counter[..., 0] > _MOST)
    return jnp.where(beyond, jnp.uint32(_MOST), counter[..., 0]).astype(jnp.int32)


def value(counter: Any) -> NDArray[np.int64]:
    """Wait for counters, and give their counts."""
    halves = np.asarray(counter).astype(np.int64)
    return np.asarray(halves[..., 0] + (halves[..., 1] << 32))
