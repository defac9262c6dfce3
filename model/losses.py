"""What the networks and the words are taught by: each loss as its derivative by the outputs.

The loop needs no more of a loss than that; the values are in the tests, beside optax.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model.spec import Spec


def slope(spec: Spec, outputs: Array, goal: Array, weight: Array | None = None) -> Array:
    """Return the derivative of each row's loss by its outputs f32[..., K, O]; goals are f32[K].

    It is multiplied by the `weight` of the row, f32[K], if there is one.

    Of classes: cross-entropy of a softmax, or binary cross-entropy of each class against the rest.
    Of numbers: the squared error; Huber's (1964), squared up to half a standard deviation and
    linear beyond, so that a few wild labels do not drown the rest; or the pinball losses of
    `spec.quantiles` (Koenker & Bassett 1978), added up.
    """
    match spec.objective:
        case "cross_entropy":
            return mixed_slope(spec, outputs, goal, weight)
        case "bce":
            found = jax.nn.sigmoid(outputs) - _one_hot(spec, goal)
        case "mse":
            found = 2.0 * (outputs - goal[:, None])
        case "huber":
            found = jnp.clip(outputs - goal[:, None], -0.5, 0.5)
        case "pinball":
            found = (outputs > goal[:, None]) - jnp.asarray(spec.quantiles)
    return _weighed(found, weight)


def mixed_slope(spec: Spec, mixed: Array, goal: Array, weight: Array | None = None) -> Array:
    """Return the derivative of the mixture's loss, as `slope` does.

    A mixture of classes is a distribution, whatever its members were taught by: cross-entropy.
    """
    if not spec.classes:
        return slope(spec, mixed, goal, weight)
    return _weighed(jax.nn.softmax(mixed) - _one_hot(spec, goal), weight)


def normal(spec: Spec) -> Array:
    """Return quantiles of a standard normal distribution, f32[3]: where learning them starts."""
    return jax.scipy.special.ndtri(jnp.asarray(spec.quantiles))


def around(spec: Spec, outputs: Array) -> Array:
    """Let outputs begin where learning them starts: at the quantiles of a standard normal."""
    return outputs + normal(spec) if spec.objective == "pinball" else outputs


def log_probabilities(spec: Spec, outputs: Array) -> Array:
    """Turn outputs f32[..., C] into logarithms of probabilities that add up to one.

    Classes taught one against the rest have a probability each, which are divided by their sum
    (Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability
    estimates").
    """
    if spec.objective == "bce":
        outputs = jax.nn.log_sigmoid(outputs)
    return jax.nn.log_softmax(outputs)


def _weighed(slopes: Array, weight: Array | None) -> Array:
    return slopes if weight is None else slopes * weight[:, None]


def _one_hot(spec: Spec, goal: Array) -> Array:
    return goal[:, None] == jnp.arange(spec.classes)
