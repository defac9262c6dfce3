"""One network of the pool by itself: the one that weighs most, for PyTorch or Keras.

It is not the predictor: it maps standardised inputs to logits, or deviations of numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model import mixture, pool
from headrace.model.networks.seen import flat_width
from headrace.model.spec import Activation, Spec
from headrace.model.state import State
from headrace.stream.storage import tensors
from headrace.stream.task import keras_file
from headrace.stream.training import keras_models
from headrace.stream.training.asking import Frozen

Arrays = dict[str, NDArray[np.float32]]


class Shape(NamedTuple):
    """Say what a network looks like."""

    inputs: int
    hidden: tuple[int, ...]  # units of each layer
    outputs: int
    activation: Activation
    direct: int  # the first input that the last layer sees, too: those before it are pixels


def shape_of(spec: Spec) -> Shape:
    """Return the shape that all networks of a spec have.

    Raises:
        NotImplementedError: they are neither `linear` nor `mlp`.
    """
    if spec.network not in ("linear", "mlp"):
        raise NotImplementedError(
            f"model.network = {spec.network!r}: expected 'linear' or 'mlp', whose weights can be "
            "taken out and in"
        )
    if spec.network == "linear":
        return Shape(spec.inputs, (), spec.outputs, spec.activation, 0)
    first = spec.pixels if spec.hidden else 0
    return Shape(flat_width(spec), spec.hidden, spec.outputs, spec.activation, first)


def weights_of(spec: Spec, params: Any, at: int) -> Arrays:
    """Return the weights of a network by the names that they have in `headrace.torch.Network`.

    Args:
        params: of the pool's networks, stacked.
        at: the network's place among them.

    Raises:
        NotImplementedError: as `shape_of`.
    """
    found: dict[str, Any] = {}
    for layer in range(len(shape_of(spec).hidden)):
        kernel = params.below["head"]["layers"][layer]["kernel"][at]
        found |= {f"hidden.{layer}.weight": kernel[:-1].T, f"hidden.{layer}.bias": kernel[-1]}
    last = params.last[at]
    found |= {"output.weight": last[:, :-1], "output.bias": last[:, -1]}
    return {name: np.array(array, np.float32, order="C") for name, array in found.items()}


def heaviest(spec: Spec, state: State) -> tuple[int, str, float]:
    """Return the network that weighs most: place and name in the pool, and weight in [0, 1]."""
    weights = mixture.total(state.champion.mixture)[: spec.networks]
    at = int(np.argmax(weights))
    return at, pool.names(spec)[at], float(weights[at])


def write_torch(frozen: Frozen, path: Path) -> None:
    """Write the weights for `headrace.torch.Network.load_state_dict`, as safetensors."""
    spec, at = frozen.learner.spec, heaviest(frozen.learner.spec, frozen.state)[0]
    packed = tensors.pack(weights_of(spec, frozen.state.champion.params, at))
    path.write_bytes(b"".join(packed))


def write_keras(frozen: Frozen, path: Path) -> None:
    """Write the task's Keras model with what it learned, or a model of the same dense layers."""
    spec, params = frozen.learner.spec, frozen.state.champion.params
    at = heaviest(spec, frozen.state)[0]
    name = frozen.task.model.network
    if name and keras_file.is_keras(name):
        head = params.below.get("head", {})
        first, hidden = (
            [np.asarray(each["kernel"][at]) for _, each in sorted(layers.items())]
            for layers in (params.below.get("first", {}), head.get("layers", {}))
        )
        last = np.asarray(params.last[at]).T
        keras_models.save(keras_file.content(name), path, first, hidden, last)
        return
    shape, found = shape_of(spec), weights_of(spec, params, at)
    if shape.activation == "gelu":
        raise NotImplementedError("Keras has no such gelu in a file that is safe to load")
    layers = [
        (found[f"{layer}.weight"].T, found[f"{layer}.bias"])
        for layer in [*(f"hidden.{at}" for at in range(len(shape.hidden))), "output"]
    ]
    keras_models.dense_network(
        path, shape.inputs, shape.direct, shape.activation, layers[:-1], layers[-1]
    )
