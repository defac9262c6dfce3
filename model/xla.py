"""What makes XLA write fast code: selections, values computed once, reads before writes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


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
    chosen = jnp.broadcast_to(arrays[0], np.broadcast_shapes(place.shape, arrays[0].shape))
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


def order_after(value: jax.Array, index: jax.Array) -> jax.Array:
    """Return `index`, known to XLA only once `value` is: what is read is read before a write.

    Without that order XLA copies the whole array for each event.
    """
    first = value.reshape(-1)[0].astype(jnp.float32)
    never = (first != first) & (first == first)
    return index + never.astype(index.dtype)
