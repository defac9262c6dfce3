"""Which label follows which: an opinion that knows nothing but the last label.

Of classes, counts of label pairs that fade, so a stream that repeats itself is never predicted
worse than by repeating its last label for long, and one that alternates is seen through as well. Of
numbers, the last one again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from model import target
from model.spec import Spec
from model.target import TargetState

NAME = "last label"
MOST_CLASSES = 64  # the counts take the square of it
KEPT = 0.99  # of a label's successors when there is another
PRIOR = 0.5


def kept(spec: Spec) -> bool:
    """Say whether there is this opinion."""
    return spec.classes <= MOST_CLASSES


def init(spec: Spec) -> Array:
    """Start with no pairs, f32[C + 1, C]; the last line is for rows without a last label."""
    counted = spec.classes and kept(spec)
    return jnp.zeros((spec.classes + 1, spec.classes) if counted else (0, 0))


def say(spec: Spec, counts: Array, goals: TargetState, last: Array) -> Array:
    """Give an output f32[1, K, O] after the labels f32[K], NaN = none: of classes, logarithms."""
    if not spec.classes:
        again = target.again(goals, last)
        return jnp.broadcast_to(again[:, None], (1, len(last), spec.outputs))
    lines = counts[_places(counts, last)] + PRIOR
    return jnp.log(lines / lines.sum(1, keepdims=True))[None]


def learn(counts: Array, last: Array, labels: Array, apply: Array) -> Array:
    """Count pairs of last labels f32[K] and labels f32[K]; those whose label is NaN are not."""
    known = apply & ~jnp.isnan(labels)
    rows = jax.nn.one_hot(_places(counts, last), counts.shape[0]) * known[:, None]
    labels = jax.nn.one_hot(jnp.where(known, labels, 0.0).astype(jnp.int32), counts.shape[1])
    return counts * jnp.power(KEPT, rows.sum(0))[:, None] + rows.T @ labels


def _places(counts: Array, last: Array) -> Array:
    return jnp.where(jnp.isnan(last), counts.shape[1], last).astype(jnp.int32)
