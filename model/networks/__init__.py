"""The networks by name: modules of Flax NNX that map what is seen of rows to outputs.

A network is a module made of a spec and random keys that maps `Seen` to f32[K, O]; a new one is a
file here, an entry in NETWORKS and a name in the spec. `make_network` splits the module once and
hands out plain dicts and a pure function, so that the compiled loop never walks an NNX object
graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from model.networks.cnn1d import Cnn1d
from model.networks.cnn2d import Cnn2d
from model.networks.gru import Gru
from model.networks.linear import Linear
from model.networks.perceptron import Mlp
from model.networks.seen import Seen
from model.networks.textbag import TextBag
from model.networks.textcnn import TextCnn
from model.spec import NetworkName, Spec

__all__ = ["NETWORKS", "Network", "Params", "Seen", "make_network"]

Params = dict[str, Any]

NETWORKS: dict[NetworkName, Callable[[Spec, nnx.Rngs], Any]] = {
    "mlp": Mlp,
    "linear": Linear,
    "cnn1d": Cnn1d,
    "cnn2d": Cnn2d,
    "gru": Gru,
    "textbag": TextBag,
    "textcnn": TextCnn,
}


class Network(NamedTuple):
    """Hold `init(seed) -> params` and `apply(params, seen) -> f32[K, O]`."""

    init: Callable[[int], Params]
    apply: Callable[[Params, Seen], Array]


def make_network(spec: Spec) -> Network:
    """Make the pure network that a spec names."""

    def build(seed: int) -> Any:
        return NETWORKS[spec.network](spec, nnx.Rngs(seed))

    graph = nnx.split(nnx.eval_shape(lambda: build(0)))[0]

    def init(seed: int) -> Params:
        return dict(nnx.to_pure_dict(nnx.split(build(seed))[1]))

    def apply(params: Params, seen: Seen) -> Array:
        return jnp.asarray(nnx.merge(graph, params)(seen))

    return Network(init, apply)
