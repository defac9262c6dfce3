"""Which label follows which: an opinion that knows nothing but the last label.

Of classes, counts of label pairs that fade, so a stream that repeats itself is never predicted
worse than by repeating its last label for long, and one that alternates is seen through as well. Of
numbers, the last one again.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from headrace.model import target
from headrace.model.spec import Spec
from headrace.model.target import TargetState

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


def learn(counts: Array, last: Array, label: Array) -> Array:
    """Count the pair of a last label f32[] and a label f32[], unless that is NaN."""
    line = jnp.arange(counts.shape[0]) == _places(counts, last)
    line = (line & ~jnp.isnan(label))[:, None]
    return jnp.where(line, KEPT * counts + (jnp.arange(counts.shape[1]) == label), counts)


def _places(counts: Array, last: Array) -> Array:
    return jnp.where(jnp.isnan(last), counts.shape[1], last).astype(jnp.int32)
