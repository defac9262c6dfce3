"""Keras models: loaded from what a file holds, and taken apart at their last Dense layer.

Keras is imported when a task names a model, and no earlier. A model is what its file holds, whether
a task named the file or a program gave the model: it is vetted before Keras sees it, and loaded in
safe mode.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import subjaxprs
from numpy.typing import NDArray

from headrace.model.registry import told
from headrace.stream.errors import TaskError
from headrace.stream.task import keras_file

BACKEND = "KERAS_BACKEND"
MOST_VALUES = 1 << 24  # of an array that a model makes of one row


class Dense(NamedTuple):
    """Hold a Dense layer."""

    kernel: NDArray[np.float32]  # [I (+ 1), U]; the last row is its bias, if it has one
    biased: bool
    activation: Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Split:
    """Hold a model in parts: what comes first, dense layers in a row, and the last layer."""

    first: Any  # the Keras model of `inputs` to what the dense layers see
    inputs: tuple[tuple[int, ...], ...]  # shapes without the axis of rows
    weights: tuple[NDArray[np.float32], ...]  # of `first`, each as a matrix
    shapes: tuple[tuple[int, ...], ...]  # of them in `first`
    frozen: tuple[NDArray[Any], ...]  # its weights that are not learned
    hidden: tuple[Dense, ...]
    last: Dense
    activation: str  # of what the last layer says


def load(data: bytes) -> Split:
    """Load vetted bytes of a file, and take the model apart.

    Raises:
        ValueError: Keras is missing or runs on another backend; the model is none that can be
            learned row by row.
    """
    return _split(_load(data))


def given(model: Any) -> str:
    """Keep a Keras model that a program gives, as it is now, and return its identity.

    Raises:
        TaskError: it is none, or cannot be learned.
    """
    try:
        keras = _keras()
        if not isinstance(model, keras.Model):
            raise ValueError(f"is a {type(model).__name__}, expected a Keras model")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            try:
                model.save(path)
            except Exception as error:  # whatever a layer of a stranger's does
                raise ValueError(f"cannot be saved: {told(error)}") from error
            return keras_file.hold(path.read_bytes())
    except ValueError as error:
        raise TaskError(f"network: {error}") from error


@cache
def _keras() -> Any:
    """Import Keras with JAX under it."""
    before = os.environ.get(BACKEND)
    os.environ[BACKEND] = "jax"
    try:
        import keras
    except ImportError as error:
        raise ValueError(keras_file.MISSING) from error
    finally:
        os.environ.pop(BACKEND)
        os.environ.update({BACKEND: before} if before else {})
    if (backend := keras.config.backend()) != "jax":
        raise ValueError(
            f"Keras was imported with the backend {backend!r}, expected 'jax': set {BACKEND}=jax "
            "before this program imports Keras"
        )
    return keras


def _load(data: bytes) -> Any:
    """Load a file that was vetted.

    It is built without its weights first: what it declares has to be what the file holds.
    """
    keras = _keras()
    config, weights, held = keras_file.parts(data)
    try:
        with keras.StatelessScope(initialize_variables=False):
            blank = keras.saving.deserialize_keras_object(deepcopy(config), safe_mode=True)
        declared = sum(prod(variable.shape) for variable in blank.weights)
        if declared != held:
            raise ValueError(f"it declares {declared:,} weights, and the file holds {held:,}")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
                file.writestr("config.json", json.dumps(config))
                file.writestr("model.weights.h5", weights)
            return keras.saving.load_model(path, safe_mode=True, compile=False)
    except Exception as error:  # Keras has any for a file that is not what it should be
        reason: BaseException = error
        while reason.__cause__ or reason.__context__:
            reason = reason.__cause__ or reason.__context__ or reason
        why = (str(reason).strip() or type(reason).__name__).splitlines()[0][:300]
        raise ValueError(f"Keras cannot load it: {why}") from error


class _Layers(NamedTuple):
    """Hold the layers of a model: a model of what comes first, and the Dense layers behind it."""

    model: Any
    first: Any
    hidden: list[Any]
    last: Any
    activation: str


def _layers(model: Any) -> _Layers:
    """Take a model apart; its layers stay its own.

    Raises:
        ValueError: it has another form than one that can be learned row by row.
    """
    keras = _keras()
    if not getattr(model, "inputs", None) or any(each.shape[0] for each in model.inputs):
        raise ValueError("it does not say the shape of its inputs: begin it with an Input")
    if len(model.outputs) != 1:
        raise ValueError(f"it has {len(model.outputs)} outputs, expected one")
    inputs = [*model.inputs]
    model = keras.Model(inputs, model.outputs[0])  # a Sequential, or one with named inputs
    last, features, activation = _last_dense(model)
    _check_state(model)
    _check_variables(model)
    hidden: list[Any] = []
    while _is_hidden(model, layer := _made_by(features)[0], features):
        hidden.insert(0, layer)
        features = _made_by(features)[1]
    return _Layers(model, keras.Model(inputs, features), hidden, last, activation)


def _split(model: Any) -> Split:
    _, first, hidden, last, activation = _layers(model)
    learned = [np.asarray(variable.value) for variable in first.trainable_variables]
    return Split(
        first,
        tuple(tuple(each.shape[1:]) for each in first.inputs),
        tuple(value.reshape(-1, (1, *value.shape)[-1]) for value in learned),
        tuple(value.shape for value in learned),
        tuple(np.asarray(variable.value) for variable in first.non_trainable_variables),
        tuple(map(_dense, hidden)),
        _dense(last),
        activation,
    )


def save(
    data: bytes,
    path: Path,
    first: Sequence[NDArray[Any]],
    hidden: Sequence[NDArray[Any]],
    last: NDArray[Any],
) -> None:
    """Write the model that vetted bytes of a file hold, with other weights, those of a `Split`.

    Args:
        last: kernel of the last layer and, below it, its bias if it has one.
    """
    model = _load(data)
    layers = _layers(model)
    for variable, value in zip(layers.first.trainable_variables, first, strict=True):
        variable.assign(value.reshape(variable.shape))
    for layer, kernel in zip([*layers.hidden, layers.last], [*hidden, last], strict=True):
        layer.kernel.assign(kernel[: layer.kernel.shape[0]])
        if layer.use_bias:
            layer.bias.assign(kernel[-1])
    model.save(path)


def dense_network(
    path: Path, inputs: int, direct: int, activation: str, hidden: Sequence[Any], last: Any
) -> None:
    """Write a Keras model of dense layers, of which the last sees the inputs, too.

    Args:
        direct: the first input that the last layer sees.
        hidden, last: kernel and bias of each layer.
    """
    keras = _keras()
    given = keras.Input((inputs,))
    deep, models = given, []
    for kernel, bias in hidden:
        layer = keras.layers.Dense(len(bias), activation=activation)
        deep = layer(deep)
        models.append((layer, kernel, bias))
    seen = given[:, direct:] if direct else given
    end = keras.layers.Dense(len(last[1]))
    said = end(keras.layers.Concatenate()([deep, seen]) if hidden else seen)
    model = keras.Model(given, said)
    for layer, kernel, bias in [*models, (end, *last)]:
        layer.set_weights([kernel, bias])
    model.save(path)


def _dense(layer: Any) -> Dense:
    kernel = np.asarray(layer.kernel.value)
    if layer.use_bias:
        kernel = np.vstack([kernel, np.asarray(layer.bias.value)])
    return Dense(kernel, layer.use_bias, layer.activation)


def _last_dense(model: Any) -> tuple[Any, Any, str]:
    """Return the Dense layer that ends a model, what it sees, and the activation behind it."""
    layers = _keras().layers
    layer, seen = _made_by(model.outputs[0])
    activation = "linear"
    if isinstance(layer, layers.Softmax | layers.Activation):
        softmax = isinstance(layer, layers.Softmax)
        activation = "softmax" if softmax else layer.activation.__name__
        layer, seen = _made_by(seen)
    if type(layer) is not layers.Dense:
        raise ValueError(f"it ends in {layer.name!r} ({type(layer).__name__}), expected a Dense")
    if (own := layer.activation.__name__) != "linear":
        if activation != "linear":
            raise ValueError(f"its last layer has two activations, {own} and {activation}")
        activation = own
    if len(seen.shape) != 2:
        raise ValueError(
            f"its last layer sees {tuple(seen.shape[1:])}, expected one row of numbers"
        )
    if not layer.trainable:
        raise ValueError(f"its last layer {layer.name!r} is frozen, expected it trainable")
    if _uses(model, layer) > 1:
        raise ValueError(f"its last layer {layer.name!r} is used twice, expected once")
    return layer, seen, activation


def _made_by(tensor: Any) -> tuple[Any, Any]:
    """Return the operation that made a tensor of a model, and the first that it made it of."""
    operation, node, _ = tensor._keras_history
    return operation, next(iter(operation._inbound_nodes[node].input_tensors), None)


def _nodes(model: Any) -> list[Any]:
    """Return the uses of operations that a model is made of."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def _uses(model: Any, layer: Any) -> int:
    return sum(node.operation is layer for node in _nodes(model))


def _is_hidden(model: Any, layer: Any, tensor: Any) -> bool:
    """Return whether a tensor is the units of a dense layer, that one layer sees and no more."""
    dense = type(layer) is _keras().layers.Dense and layer.trainable and len(tensor.shape) == 2
    seen = [node for node in _nodes(model) if any(one is tensor for one in node.input_tensors)]
    return bool(dense and _uses(model, layer) == len(seen) == 1)


def _operations(model: Any) -> list[Any]:
    return [*model._flatten_layers(include_self=False)]


def _check_variables(model: Any) -> None:
    for layer in _operations(model):
        if (policy := layer.dtype_policy.name) != "float32":
            raise ValueError(f"layer {layer.name!r} has dtype {policy}, expected float32")
    for each in model.inputs:
        if each.dtype != "float32":
            raise ValueError(f"its input {each.name!r} has dtype {each.dtype}, expected float32")
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            raise ValueError(f"{variable.path} has a constraint, expected none")
        if variable.dtype != "float32":
            raise ValueError(f"{variable.path} is {variable.dtype}, expected float32")


def _check_state(model: Any) -> None:
    """Make sure that a model is a function of rows and weights, and not too large a one."""

    def call(trainable: Any, other: Any, rows: Any) -> Any:
        output, after, losses = model.stateless_call(
            trainable, other, rows, training=True, return_losses=True
        )
        moved = zip(model.non_trainable_variables, other, after, strict=True)
        if state := [variable.path for variable, old, new in moved if new is not old]:
            raise ValueError(
                f"it has running state, {state[0]}: predictions have to depend on weights that are "
                "learned; leave the layer out, or freeze it (trainable = False)"
            )
        if losses:
            raise ValueError("it has regularizers: the loss is that of the task; set them to None")
        return output

    variables = [
        [variable.value for variable in some]
        for some in (model.trainable_variables, model.non_trainable_variables)
    ]
    rows = [jnp.zeros((1, *each.shape[1:])) for each in model.inputs]
    try:
        program = jax.make_jaxpr(call)(*variables, rows)
    except Exception as error:
        why = str(error) if type(error) is ValueError else f"JAX cannot trace it: {told(error)}"
        raise ValueError(why) from error
    if (most := _widest(program.jaxpr)) > MOST_VALUES:
        raise ValueError(f"it makes {most:,} numbers of one row, expected {MOST_VALUES:,} at most")


def _widest(program: Any) -> int:
    """Return the size of the largest array in a program."""
    sizes: list[int] = [prod(made.aval.shape) for step in program.eqns for made in step.outvars]
    inner = [_widest(each) for each in subjaxprs(program)]
    return max([0, *sizes, *inner])
