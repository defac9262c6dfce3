"""What every metric is made of: sums of terms, over all events and over a fading window."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from model import sums

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


def add(tally: jax.Array, terms: jax.Array, fade: float) -> jax.Array:
    """Add the terms of one event, f32[*shape]."""
    total, lost = sums.add(tally[0], tally[1], terms)
    return sums.pack(total, lost, fade * tally[2] + terms)


def spans(tally: jax.Array) -> dict[str, np.ndarray]:
    """Return the sums over "all" events and over the fading "window", f64[*shape] each."""
    total, lost, fading = np.asarray(tally, np.float64)
    return {"all": total + lost, "window": fading}
