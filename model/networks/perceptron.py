"""Dense layers: the multilayer perceptron that is a network, or the end of one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from headrace.model.networks.seen import Seen, flat, flat_width
from headrace.model.spec import Activation, Spec

ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
}


class Features(NamedTuple):
    """Hold what is made of K rows."""

    seen: Array  # f32[K, F]  what the last, linear layer sees
    hidden: tuple[Array, ...]  # f32[K, U]  the units of each hidden layer, from the first one on


class Perceptron(nnx.Module):
    """Map rows to features: what hidden `units` make of them, and behind it the rows themselves.

    The linear path past the hidden layers lets persistence and other straight-line answers be
    learned within a few events (Cheng et al. 2016, "Wide & deep learning for recommender
    systems"). The first inputs, which come of an image, have none: no pixel says anything by
    itself, and all of them together are much noise. A layer's bias is the weight of an input that
    is always 1.
    """

    def __init__(
        self, spec: Spec, inputs: int, hidden: tuple[int, ...], rngs: nnx.Rngs, image: int = 0
    ) -> None:
        widths = (inputs, *hidden)
        self.spec = spec
        self.layers = nnx.List(dense(a, b, gain(spec), rngs) for a, b in pairwise(widths))
        self.widths = hidden
        self.first = image if hidden else 0
        self.features = sum(hidden[-1:]) + inputs - self.first + 1

    def __call__(self, rows: Array) -> Features:
        """Map rows f32[K, inputs]."""
        direct = with_one(rows)
        deep = direct
        hidden: list[Array] = []
        for layer in self.layers:
            hidden.append(activate(self.spec, layer(deep)))
            deep = with_one(hidden[-1])
        features = jnp.concatenate([*hidden[-1:], direct[:, self.first :]], 1)
        return Features(features, tuple(hidden))

    def last(self, rngs: nnx.Rngs) -> Array:
        """Draw the linear map of features to outputs, f32[O, F], that a network begins with."""
        return dense(self.features - 1, self.spec.outputs, 0.01, rngs).kernel[...].T


class Mlp(nnx.Module):
    """See everything as one flat row (Rumelhart, Hinton & Williams 1986)."""

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.head = Perceptron(spec, flat_width(spec), spec.hidden, rngs, spec.pixels)

    def __call__(self, seen: Seen) -> Features:
        """Return the features of rows."""
        return self.head(flat(seen))


def dense(width: int, out: int, scale: float, rngs: nnx.Rngs) -> nnx.Linear:
    """Make a layer for rows `with_one`: its bias is a row of its kernel."""
    init = nnx.initializers.variance_scaling(scale, "fan_in", "normal")
    return nnx.Linear(width + 1, out, use_bias=False, kernel_init=init, dot_general=_dot, rngs=rngs)


def _dot(rows: Array, weights: Array, *_dimensions: Any, **_precision: Any) -> Array:
    """Stand in a layer for `lax.dot_general`."""
    return jnp.asarray(times(rows, weights))


@jax.custom_vjp
def times(rows: Array, weights: Array) -> Array:
    """Multiply rows f32[..., I] by weights f32[I, O]."""
    return rows @ weights


def _back(known: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    """Write the products of the way back such that XLA makes vector code of them.

    Of one row all is laid out as it lies; of many, what has to be is turned round before a product.
    """
    rows, weights = known
    flat_rows, flat_slope = (values.reshape(-1, values.shape[-1]) for values in (rows, slope))
    if len(flat_rows) == 1:
        return slope @ weights.T, flat_rows.T * flat_slope
    turned = jax.lax.optimization_barrier((weights.T, flat_rows.T))  # type: ignore[no-untyped-call]
    return slope @ turned[0], turned[1] @ flat_slope


times.defvjp(lambda rows, weights: (rows @ weights, (rows, weights)), _back)


def gain(spec: Spec) -> float:
    """Return how much weights amplify: twice where half of what they give is cut off (He 2015)."""
    return 2.0 if spec.activation in ("relu", "gelu") else 1.0


def activate(spec: Spec, answers: Array) -> Array:
    """Bend the answers of a hidden layer."""
    return ACTIVATIONS[spec.activation](answers)


def with_one(rows: Array) -> Array:
    """Append a column of ones to f32[..., I]."""
    return jnp.concatenate([rows, jnp.ones((*rows.shape[:-1], 1))], -1)
