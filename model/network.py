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
    """Map dense inputs to outputs: hidden ReLU layers, and a linear path past them.

    The linear path lets persistence and other straight-line answers be learned within a few
    events (Cheng et al. 2016, "Wide & deep learning for recommender systems"). A layer's bias is
    the weight of an input that is always 1, and the linear path is a part of the last layer's
    weights: the loop spends its time on the number of arrays, not on their sizes.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, rngs: nnx.Rngs) -> None:
        def linear(width: int, out: int, scale: float) -> nnx.Linear:
            init = nnx.initializers.variance_scaling(scale, "fan_in", "normal")
            return nnx.Linear(width, out, use_bias=False, kernel_init=init, rngs=rngs)

        widths = (inputs, *hidden)
        self.layers = nnx.List(linear(a + 1, b, 2.0) for a, b in pairwise(widths))
        self.last = linear((widths[-1] if hidden else 0) + inputs + 1, outputs, 0.01)

    def __call__(self, inputs: Array) -> Array:
        """Map f32[K, inputs] to f32[K, outputs]."""
        direct = with_one(inputs)
        deep = direct
        for layer in self.layers:
            deep = with_one(jax.nn.relu(layer(deep)))
        last = jnp.concatenate([deep[:, :-1], direct], 1) if self.layers else direct
        return jnp.asarray(self.last(last))


def with_one(rows: Array) -> Array:
    """Append a column of ones."""
    return jnp.concatenate([rows, jnp.ones((len(rows), 1))], 1)


class Network(NamedTuple):
    """Hold `init(seed) -> params` and `apply(params, inputs f32[K, I]) -> f32[K, O]`."""

    init: Callable[[int], Params]
    apply: Callable[[Params, Array], Array]


def make_network(spec: Spec, inputs: int) -> Network:
    """Make the pure network of a spec for `inputs` dense inputs."""

    def build(seed: int) -> Perceptron:
        return Perceptron(inputs, spec.hidden, spec.outputs, nnx.Rngs(seed))

    graph = nnx.split(nnx.eval_shape(lambda: build(0)))[0]

    def init(seed: int) -> Params:
        return dict(nnx.to_pure_dict(nnx.split(build(seed))[1]))

    def apply(params: Params, inputs: Array) -> Array:
        return jnp.asarray(nnx.merge(graph, params)(inputs))

    return Network(init, apply)
