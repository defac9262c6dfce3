"""The weights of one network of a learner's pool, out and in, as arrays with PyTorch's names.

A network is `linear` or `mlp`: dense layers, and a last one that sees the last hidden units and,
beside them, the inputs themselves (wide and deep). What headrace keeps as the weight of an input
that is always 1 is a bias here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from headrace.export import network as network_of_pool
from headrace.export.network import Shape as Shape
from headrace.learner import CAPACITY, Learner
from headrace.model import embed, ladder, pool, target
from headrace.model.inputs import load_row
from headrace.model.spec import Spec
from headrace.model.state import State, named
from headrace.stream.errors import EventError, UsageError
from headrace.stream.training.plugins import learner_of
from headrace.tables import rows_of

Arrays = Mapping[str, NDArray[np.float32]]
_BELOW = "champion.params.below['head']['layers'][{}]['kernel']"
_LAST = "champion.params.last"


class Examples(NamedTuple):
    """Hold what a network is given of n rows."""

    inputs: NDArray[np.float32]  # [n, I]
    added: NDArray[np.float32]  # [n, O]  what words and categories say; added to what it puts out
    goals: NDArray[np.float32]  # [n]  the class, or what it should put out; NaN = unknown


def shape_of(learner: Learner) -> Shape:
    """Return the shape that all networks of a learner have.

    Raises:
        UsageError: they are neither `linear` nor `mlp`.
    """
    try:
        return network_of_pool.shape_of(learner.task.spec)
    except NotImplementedError as error:
        raise UsageError(str(error)) from error


def read(learner: Learner, network: int | str) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a network, by name; see `write`.

    Raises:
        UsageError: there is no such network, or it is neither `linear` nor `mlp`.
    """
    shape_of(learner)
    at = _place(learner, network)
    with learner.turn:
        state = learner._trainer.frozen().state
    return network_of_pool.weights_of(learner.task.spec, state.champion.params, at)


def write(learner: Learner, network: int | str, weights: Arrays) -> None:
    """Give a network other weights; its optimizer begins anew, and so does the mean of its weights.

    Args:
        network: its place in the pool, or its name there, as in `learner.metrics["members"]`.
        weights: `hidden.<layer>.weight` f32[units, inputs] and `.bias` f32[units] for each layer,
            `output.weight` f32[O, units + inputs] and `output.bias` f32[O].

    Raises:
        UsageError: the weights are of another shape or not finite; there is no such network, or it
            is neither `linear` nor `mlp`. Nothing has changed.
    """
    spec, at = learner.task.spec, _place(learner, network)
    _check(weights, read(learner, network))
    with learner.turn:
        trainer = learner._trainer
        state = {name: np.array(array) for name, array in trainer.snapshot().tensors().items()}
        for name, leaf in named(learner_of(learner.task).init()):
            if name.startswith(("champion.optimizer.", "active[")):
                state[name][at] = leaf[at]
        for name, values in _as_kept(spec, weights).items():
            state[name][at] = values
            means = [*range(spec.networks)][pool.averaged(spec)]
            if at in means:
                state[name.replace("params", "mean.params", 1)][means.index(at)] = values
        trainer.restore(state, trainer.learned)
        learner._asked = None


def examples(learner: Learner, table: Any, network: int | str) -> Examples:
    """Return what a network would be given of each row of a table if it came next.

    Nothing is learned, and rows know nothing of each other. Inputs are standardised, and lags and
    means are those, of the moments that the learner knows now.

    Args:
        table: as of `Learner.predict_then_learn`; labels that stand there make the goals. With a
            horizon none is known.

    Raises:
        UsageError, EventError: it is no table; a row would be refused.
    """
    shape_of(learner)
    spec, at, found = learner.task.spec, _place(learner, network), list[Examples]()
    sees = jnp.asarray(pool.sight(spec)[at])
    raws = rows_of(table, CAPACITY)
    with learner.turn:
        trainer = learner._trainer
        while batch := list(islice(raws, CAPACITY)):
            rows, refused = learner._reader.read(batch, learner.events)
            for letter in refused:
                raise EventError(letter.code, letter.detail)
            label = trainer.classes.indices(rows.label, rows.new_class)
            if learner.task.target.horizon and not spec.horizon:  # it is an earlier row's
                label = np.full_like(label, np.nan)
            rows = rows._replace(label=label)
            packed = trainer.batch(rows)
            given = _look(spec)(trainer._state, packed, sees)
            found.append(Examples(*(np.asarray(each)[: len(rows.id)] for each in given)))
    if not found:
        shape = shape_of(learner)
        empty = (0, shape.inputs), (0, shape.outputs), (0,)
        return Examples(*(np.zeros(size, np.float32) for size in empty))
    return Examples(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@lru_cache(2)
def _look(spec: Spec) -> Any:
    def one(state: State, batch: Any, sees: Array, row: Array) -> tuple[Array, Array, Array]:
        at = jnp.int32(0)
        chunk = load_row(spec, state, batch, row, at).chunk
        ids = chunk.ids[at][None]
        vectors, added = embed.features(spec, embed.look_up(spec, state.table, ids), ids)
        inputs = chunk.inputs[at] * sees
        if spec.network == "mlp":
            inputs = jnp.concatenate([inputs, vectors.single[0], vectors.bags[0]])
        label = ladder.to_internal_labels(spec, state.ladder, chunk.label[at])
        last = ladder.to_internal_labels(spec, state.ladder, chunk.past[at][:1])
        goal = label if spec.classes else target.goal(state.target, label[None], last)[0]
        goal = jnp.where(jnp.isnan(label) | bool(spec.horizon), jnp.nan, goal)
        return inputs, added[0], goal

    @jax.jit
    def look(state: State, batch: Any, sees: Array) -> Any:
        return lax.map(lambda row: one(state, batch, sees, row), jnp.arange(len(batch.label)))

    return look


def _place(learner: Learner, network: int | str) -> int:
    names = pool.names(learner.task.spec)[: learner.task.spec.networks]
    if network in names:
        return names.index(str(network))
    if type(network) is int and 0 <= network < len(names):
        return network
    known = ", ".join(f"{at} ({name})" for at, name in enumerate(names))
    raise UsageError(f"network = {network!r}: expected one of {known}")


def _check(weights: Arrays, wanted: Arrays) -> None:
    for name in [*wanted, *weights]:
        if name not in wanted or name not in weights:
            fault = "missing" if name in wanted else "unknown"
            raise UsageError(f"{name}: {fault}; expected {', '.join(wanted)}")
    for name, array in weights.items():
        if array.shape != wanted[name].shape:
            shapes = [*array.shape], [*wanted[name].shape]
            raise UsageError(f"{name}: has the shape {shapes[0]}, expected {shapes[1]}")
        if not np.isfinite(array).all():
            raise UsageError(f"{name}: holds what is not finite; expected finite numbers")


def _as_kept(spec: Spec, weights: Arrays) -> dict[str, NDArray[np.float32]]:
    """Return weights by the names of a state, biases as weights of an input that is always 1."""
    output = np.column_stack([weights["output.weight"], weights["output.bias"]])
    kept = {_LAST: output.astype(np.float32)}
    for layer in range(sum(name.endswith(".weight") for name in weights) - 1):
        kernel = [weights[f"hidden.{layer}.weight"].T, weights[f"hidden.{layer}.bias"]]
        kept[_BELOW.format(layer)] = np.vstack(kernel).astype(np.float32)
    return kept
