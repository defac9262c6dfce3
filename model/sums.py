"""Sums that stay accurate over millions of events in float32, and scalars in one vector."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

N_MAX = 2.0**24
"""A float32 counts to here."""


def add(total: jax.Array, error: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Add `x` to the sum `total + error`, and return it as such a pair again.

    All three are f32 of one shape. `error` stays below half a unit in the last place of `total`, so
    the pair holds about 48 bits: a count is exact up to 2^47. Finite as long as `total` is.

    References:
        Knuth 1969, The Art of Computer Programming 2, 4.2.2 (two-sum); Dekker 1971, A
        floating-point technique for extending the available precision.
    """
    rough = total + x
    taken = rough - total
    error = error + ((total - (rough - taken)) + (x - taken))
    total = rough + error
    return total, error - (total - rough)


def subtract(x: jax.Array, total: jax.Array, error: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `x - (total + error)` as a pair like it."""
    return add(x, -error, -total)


def average(
    mean: jax.Array, error: jax.Array, x: jax.Array, n: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Move the pair `mean + error` to the value `x` by the n-th part of the way between them.

    So the mean of n - 1 values becomes that of n, exact to the last place of a float32 or better.
    """
    off, _ = subtract(x, mean, error)
    return add(mean, error, off / n)


def pack(*arrays: jax.Array) -> jax.Array:
    """Stack arrays of one shape and type along a new first axis.

    It does what `jnp.stack` does, by selection: on a CPU a small kernel costs more than what it
    computes, so state travels best in few arrays, and XLA compiles a select to vector code where
    a concatenation becomes branches that compute each part apart (measured: 2 to 7 times slower).
    """
    place = np.arange(len(arrays)).reshape(-1, *(1,) * jnp.ndim(arrays[0]))
    return choose(place, arrays)


def choose(place: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """Return `arrays[k]` where `place` is k; all are broadcast against each other."""
    chosen = jnp.broadcast_to(arrays[0], np.broadcast_shapes(place.shape, jnp.shape(arrays[0])))
    for k, array in enumerate(arrays[1:], start=1):
        chosen = jnp.where(place == k, array, chosen)
    return chosen


def select(
    condition: jax.Array, yes: Sequence[jax.Array], no: Sequence[jax.Array]
) -> list[jax.Array]:
    """Choose one of two tuples of arrays, part by part."""
    return [jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True)]


def once(array: jax.Array) -> jax.Array:
    """Return the array, computed just once: XLA would compute it again for each cell it enters."""
    barred: jax.Array = lax.optimization_barrier(array)  # type: ignore[no-untyped-call]
    return barred
