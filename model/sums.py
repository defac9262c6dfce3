"""Sums that stay accurate over millions of events in float32."""

from __future__ import annotations

import jax

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
