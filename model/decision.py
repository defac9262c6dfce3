"""Which class is predicted, where misses do not cost alike: decided on probabilities.

The class of the least expected cost is predicted (Elkan 2001, "The foundations of cost-sensitive
learning"). Learning and the published probabilities know nothing of costs: they are those of the
stream, so costs may change without learning anew.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from headrace.model.spec import Spec
from headrace.model.xla import once

MEMORY = 100_000.0  # labels by which shares of the classes are known


def init(spec: Spec) -> Array:
    """Start without labels, f32[C if balanced else 0]."""
    return jnp.zeros(spec.classes if spec.balanced else 0)


def count(spec: Spec, counts: Array, label: Array) -> Array:
    """Count a label f32[], a class index or NaN, in counts f32[C] that fade over MEMORY labels."""
    if not spec.balanced:
        return counts
    kept = jnp.where(jnp.isnan(label), 1.0, 1.0 - 1.0 / MEMORY)
    return counts * kept + (label == jnp.arange(spec.classes))


def decide(spec: Spec, counts: Array, chances: Array) -> Array:
    """Choose a class i32[] that may be, by probabilities f32[C]; the lowest of equals.

    By `spec.costs`; or, where classes are balanced, as if a miss of a class cost the more the
    rarer it is, in proportion; else the likeliest.
    """
    if spec.costs:
        expected = once(chances @ jnp.asarray(spec.costs, jnp.float32))
        return jnp.argmin(jnp.where(chances > 0.0, expected, jnp.inf)).astype(jnp.int32)
    if spec.balanced:
        chances = jnp.where(chances > 0.0, chances / jnp.maximum(counts, 1.0), 0.0)
    return jnp.argmax(chances).astype(jnp.int32)
