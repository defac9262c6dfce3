"""The network: a multilayer perceptron beside a linear path, defined in Flax NNX.

`make_network` splits the module once and hands out plain dicts and a pure function, so that the
compiled loop never walks an NNX object graph.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from model.spec import Spec

Params = dict[str, Any]


class Perceptron(nnx.Module):
    """Map dense inputs to outputs: hidden ReLU layers, plus a linear map of the inputs.

    The linear path lets persistence and other straight-line answers be learned within a few
    events (Cheng et al. 2016, "Wide & deep learning for recommender systems").
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, rngs: nnx.Rngs) -> None:
        widths = (inputs, *hidden)
        he = nnx.initializers.he_normal()
        self.layers = nnx.List(
            nnx.Linear(a, b, kernel_init=he, rngs=rngs) for a, b in pairwise(widths)
        )
        small = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.head = nnx.Linear(widths[-1], outputs, kernel_init=small, rngs=rngs)
        self.skip = nnx.Linear(
            inputs, outputs, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=rngs
        )

    def __call__(self, inputs: Array) -> Array:
        """Map f32[K, inputs] to f32[K, outputs]."""
        deep = inputs
        for layer in self.layers:
            deep = jax.nn.relu(layer(deep))
        return jnp.asarray(self.head(deep) + self.skip(inputs))


class Network(NamedTuple):
    """Hold `init(seed) -> params` and `apply(params, inputs f32[K, I]) -> f32[K, O]`."""

    init: Callable[[], Params]
    apply: Callable[[Params, Array], Array]


def make_network(spec: Spec, inputs: int) -> Network:
    """Make the pure network of a spec for `inputs` dense inputs."""

    def build() -> Perceptron:
        return Perceptron(inputs, spec.hidden, spec.outputs, nnx.Rngs(spec.seed))

    graph = nnx.split(nnx.eval_shape(build))[0]

    def init() -> Params:
        return dict(nnx.to_pure_dict(nnx.split(build())[1]))

    def apply(params: Params, inputs: Array) -> Array:
        return jnp.asarray(nnx.merge(graph, params)(inputs))

    return Network(init, apply)
