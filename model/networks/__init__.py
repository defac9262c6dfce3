"""The networks by name: modules of Flax NNX that map what is seen of rows to features.

All of them end in one linear map of features to outputs, which is not theirs: it can learn from
each row at once while they wait for the end of a chunk. A network is a module made of a spec and
random keys that maps `Seen` to `Features` and ends in its `head`, a `Perceptron`; a new one is a
file here, an entry in NETWORKS and a name in the spec. One from elsewhere is registered, and raises
a ValueError about a spec that lacks what it reads. `make_network` splits the module once and hands
out plain dicts and pure functions, so that the compiled loop never walks an NNX object graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from headrace.model.networks.cnn1d import Cnn1d
from headrace.model.networks.cnn2d import Cnn2d
from headrace.model.networks.gru import Gru
from headrace.model.networks.linear import Linear
from headrace.model.networks.perceptron import Features, Mlp
from headrace.model.networks.seen import Seen
from headrace.model.networks.textbag import TextBag
from headrace.model.networks.textcnn import TextCnn
from headrace.model.registry import Registry
from headrace.model.spec import Spec

__all__ = [
    "NETWORKS",
    "Features",
    "Network",
    "Params",
    "Seen",
    "answer",
    "make_network",
    "register",
]

NETWORKS: Registry[Callable[[Spec, nnx.Rngs], Any]] = Registry(
    "network",
    Callable,
    "a class or function of a Spec and nnx.Rngs",
    {
        "mlp": Mlp,
        "linear": Linear,
        "cnn1d": Cnn1d,
        "cnn2d": Cnn2d,
        "gru": Gru,
        "textbag": TextBag,
        "textcnn": TextCnn,
    },
)

register = NETWORKS.register


class Params(NamedTuple):
    """Hold what a network knows."""

    below: dict[str, Any]  # of its module; empty where features are inputs
    last: Array  # f32[O, F]


class Network(NamedTuple):
    """Hold `init(key) -> params` and `features(params.below, seen) -> Features`.

    `widths` are those of the dense hidden layers. The features begin with the units of the last.
    """

    init: Callable[[Array], Params]
    features: Callable[[dict[str, Any], Seen], Features]
    widths: tuple[int, ...]


@jax.custom_vjp
def answer(last: Array, features: Array) -> Array:
    """Map features f32[K, F] to outputs f32[K, O] by the last layer f32[O, F].

    The few outputs lie apart, so that all work on the many features is vector code.
    """
    return jnp.einsum("of,kf->ko", last, features)


def _back(known: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    last, features = known
    if len(features) == 1:
        return slope.T * features, slope @ last
    turned = jax.lax.optimization_barrier(slope.T)  # type: ignore[no-untyped-call]
    return turned @ features, slope @ last


answer.defvjp(lambda last, features: (answer(last, features), (last, features)), _back)


def make_network(spec: Spec) -> Network:
    """Make the pure network that a spec names."""

    def build(rngs: nnx.Rngs) -> Any:
        return NETWORKS[spec.network](spec, rngs)

    shape = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graph, widths = nnx.split(shape)[0], tuple(shape.head.widths)

    def init(key: Array) -> Params:
        rngs = nnx.Rngs(key)
        module = build(rngs)
        last = module.head.last(rngs)
        return Params(dict(nnx.to_pure_dict(nnx.split(module)[1])), last)

    def features(below: dict[str, Any], seen: Seen) -> Features:
        made: Features = nnx.merge(graph, below)(seen)
        return made

    return Network(init, features, widths)
