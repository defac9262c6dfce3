"""Keras models as networks of the pool: the last Dense layer apart, everything before it below.

All networks of a pool begin with the weights of the model.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpy.typing import NDArray

from headrace.model import networks
from headrace.model.networks import Features, Seen
from headrace.model.networks.perceptron import times, with_one
from headrace.model.networks.seen import flat, flat_width
from headrace.model.networks.window import window
from headrace.model.spec import LOADED, Spec
from headrace.stream.errors import TaskError
from headrace.stream.task import keras_file
from headrace.stream.training.keras_models import Split, load

ACTIVATIONS = {"cross_entropy": ("linear", "softmax"), "bce": ("linear", "sigmoid")}

Source = Callable[[Spec, Seen], Array]


def use(name: str) -> None:
    """Let specs name a Keras model by its identity; `name` is what stands in a task.

    Raises:
        TaskError: Keras is missing or runs on another backend; the model cannot be learned.
    """
    known = keras_file.identity(name)
    if known in networks.NETWORKS:
        return
    try:
        model = load(keras_file.content(name))
    except ValueError as error:
        raise TaskError(f"{_shown(name)}: {error}") from error
    networks.register(known, lambda spec, _: KerasNetwork(model, spec, _shown(name)))


def _shown(name: str) -> str:
    path = keras_file.path(name)
    return f"model.network = {LOADED + path!r}" if path else "network: the Keras model"


class Weights(nnx.Module):
    """Hold one matrix."""

    def __init__(self, kernel: NDArray[np.float32]) -> None:
        self.kernel = nnx.Param(jnp.asarray(kernel))


class Head(nnx.Module):
    """Be the dense layers at the end, as a `Perceptron` is: dead units are found there."""

    def __init__(self, model: Split) -> None:
        self.model = model
        self.layers = nnx.List(Weights(layer.kernel) for layer in model.hidden)
        self.widths = tuple(layer.kernel.shape[1] for layer in model.hidden)
        self.features = len(model.last.kernel)

    def __call__(self, rows: Array) -> Features:
        """Map rows f32[K, I]."""
        hidden: list[Array] = []
        for layer, weights in zip(self.model.hidden, self.layers, strict=True):
            rows = with_one(rows) if layer.biased else rows
            rows = layer.activation(times(rows, weights.kernel[...]))
            hidden.append(rows)
        return Features(with_one(rows) if self.model.last.biased else rows, tuple(hidden))

    def last(self, _: nnx.Rngs) -> Array:
        """Return the weights of the last layer, f32[O, F]."""
        return jnp.asarray(self.model.last.kernel.T)


class KerasNetwork(nnx.Module):
    """Be a Keras model without its last layer.

    Raises:
        TaskError: its inputs or outputs are not those of a spec.
    """

    def __init__(self, model: Split, spec: Spec, shown: str) -> None:
        try:
            _check_outputs(model, spec)
            self.sources = tuple(_source(spec, shape) for shape in model.inputs)
        except ValueError as error:
            raise TaskError(f"{shown}: {error}") from error
        self.model, self.spec = model, spec
        self.first = nnx.List(map(Weights, model.weights))
        self.head = Head(model)

    def __call__(self, seen: Seen) -> Features:
        """Return the features of rows."""
        model, shapes = self.model, self.model.shapes
        rows = [source(self.spec, seen) for source in self.sources]
        weights = [
            matrix.kernel[...].reshape(shape)
            for matrix, shape in zip(self.first, shapes, strict=True)
        ]
        made, _ = model.first.stateless_call(weights, [*model.frozen], rows, training=False)
        return self.head(made)


def _check_outputs(model: Split, spec: Spec) -> None:
    loss, units = spec.objective, model.last.kernel.shape[1]
    if units != spec.outputs:
        why = "one for each class" if spec.classes else f"as the loss {loss} asks for"
        raise ValueError(f"its last layer has {units} units, expected {spec.outputs}, {why}")
    expected = ACTIVATIONS.get(loss, ("linear",))
    if model.activation not in expected:
        raise ValueError(
            f"its last layer has the activation {model.activation}, expected "
            f"{' or '.join(expected)} with model.loss = {loss!r}"
        )


def _source(spec: Spec, shape: tuple[int, ...]) -> Source:
    """Return what gives an input of a shape."""
    offers: list[tuple[str, tuple[int, ...], Source]] = [
        ("all inputs of a row", (flat_width(spec),), lambda _, seen: flat(seen))
    ]
    if spec.pixels:
        height, width, channels = spec.image
        shapes = [spec.image, (spec.pixels,), *([(height, width)] if channels == 1 else [])]
        offers += [("the image", each, _image(each)) for each in shapes]
    if spec.numeric:
        offers.append(("the numbers", (spec.numeric,), _numbers))
    if spec.numeric and spec.numeric_lags:
        rows = (spec.numeric_lags + 1, 2 * spec.numeric)
        offers.append(("the window", rows, window))
    for _, offered, source in offers:
        if offered == shape:
            return source
    expected = ", ".join(f"{offered} ({what})" for what, offered, _ in offers)
    raise ValueError(f"an input of it has the shape {shape}, expected one of {expected}")


def _image(shape: tuple[int, ...]) -> Source:
    return lambda spec, seen: seen.dense[:, : spec.pixels].reshape(-1, *shape)


def _numbers(spec: Spec, seen: Seen) -> Array:
    return seen.dense[:, spec.pixels : spec.columns]
