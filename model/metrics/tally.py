"""What every metric is made of: sums of terms, over all events and over a fading window."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import sums, xla

FADED = 1e-3  # what is left of an event that is no longer in the window


def fading_factor(window: int) -> float:
    """Return what is kept of a fading sum at each event, so that the weights add up to `window`.

    Args:
        window: effective number of events, at least 1.

    Raises:
        ValueError: window is below 1.

    References:
        Gama, Sebastião, Rodrigues 2013, On evaluating stream learning algorithms, Machine
        Learning 90.
    """
    if window < 1:
        raise ValueError(f"the metrics' window is {window} events: expected at least 1, say 1000")
    return 1 - 1 / window


def empty(*shape: int) -> jax.Array:
    """Return the sums of no events for terms of this shape, f32[3, *shape].

    The three are the sum over all events, what float32 lost of it, and the fading sum. A count
    is exact up to 2^47 events.
    """
    return jnp.zeros((3, *shape), jnp.float32)


def weights(counts: jax.Array, fade: float) -> tuple[jax.Array, jax.Array]:
    """Return what each of K rows weighs, by bool[K] that says which ones count: one at least.

    Returns:
        f32[2, K], 1 in the sum over all and `fade` to the number of later rows that count in the
        fading sum, 0 for a row that does not count; and f32[], what is kept of the fading sum.
    """
    k = len(counts)
    if k == 1:
        return jnp.ones((2, 1), jnp.float32), jnp.float32(fade)
    powers = jnp.asarray(fade ** np.arange(k + 1), jnp.float32)
    later = jnp.sum(np.triu(np.ones((k, k), bool), 1) & counts, axis=1, dtype=jnp.int32)
    faded = jnp.where(counts, powers[later], 0.0)
    return xla.pack(counts.astype(jnp.float32), faded), powers[jnp.sum(counts, dtype=jnp.int32)]


def add(tally: jax.Array, terms: jax.Array, weights: jax.Array, kept: jax.Array) -> jax.Array:
    """Add the terms of K rows, finite f32[K, *shape], by their `weights`."""
    if len(terms) == 1:  # of weight 1
        each = faded = terms[0]
    else:
        each, faded = jnp.tensordot(weights, terms, 1, precision="highest")
    total, lost = sums.add(tally[0], tally[1], each)
    return xla.pack(total, lost, kept * tally[2] + faded)


def spans(tally: jax.Array) -> dict[str, np.ndarray]:
    """Return the sums over "all" events and over the fading "window", f64[*shape] each."""
    total, lost, fading = np.asarray(tally, np.float64)
    return {"all": total + lost, "window": fading}
