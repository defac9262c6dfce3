"""Which label follows which: an opinion that knows nothing but the last label.

Of classes, counts of label pairs that fade, so a stream that repeats itself is never predicted
worse than by repeating its last label for long, and one that alternates is seen through as well. Of
numbers, the last one again.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from headrace.model import target
from headrace.model.members.member import Asked, Labels, by_row
from headrace.model.spec import Spec

MOST_CLASSES = 64  # the counts take the square of it
KEPT = 0.99  # of a label's successors when there is another
PRIOR = 0.5


def names(spec: Spec) -> list[str]:
    """Name the opinion, unless there are too many classes."""
    return ["last label"] if spec.classes <= MOST_CLASSES else []


def init(spec: Spec) -> Array:
    """Start with no pairs, f32[C + 1, C]; the last line is for rows without a last label."""
    counted = spec.classes and names(spec)
    return jnp.zeros((spec.classes + 1, spec.classes) if counted else (0, 0))


def predict(spec: Spec, counts: Array, asked: Asked) -> Array:
    """Return an opinion f32[1, K, O] about rows by the labels known last."""
    last = asked.past[:, 0]
    if not spec.classes:
        again = target.again(asked.target, last)
        return jnp.broadcast_to(again[:, None], (1, len(last), spec.outputs))
    lines = counts[_places(counts, last)] + PRIOR
    return jnp.log(lines / lines.sum(1, keepdims=True))[None]


def update(spec: Spec, counts: Array, row: Asked, labels: Labels) -> Array:
    """Count the pair of the label known last and a row's goal, unless that is NaN."""
    if not spec.classes:
        return counts
    line = jnp.arange(counts.shape[0]) == _places(counts, row.past[0])
    line = (line & ~jnp.isnan(labels.goal))[:, None]
    return jnp.where(line, KEPT * counts + (jnp.arange(counts.shape[1]) == labels.goal), counts)


def _places(counts: Array, last: Array) -> Array:
    return jnp.where(jnp.isnan(last), counts.shape[1], last).astype(jnp.int32)


MEMBER = by_row(names, init, predict, update)
