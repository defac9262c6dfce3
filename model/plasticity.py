"""Whether networks are still able to learn, and what is done when they lose it.

A hidden unit that is 0 for all rows has no gradient: it never comes back by itself. Networks that
learn for long lose one unit after the other (Dohare et al. 2024, "Loss of plasticity in deep
continual learning", Nature 632).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model.networks import Params
from headrace.model.optimizer import AdamState
from headrace.model.pool import Contender
from headrace.model.spec import Spec

RECENT = 1000.0  # rows that the share in which a unit is active remembers
DEAD = 1e-3  # such a share, which is e^-7 nearly


Units = tuple[Array, ...]  # [M, U] of each hidden layer, from the first one on


def fade(spec: Spec, active: Units, newest: Units, apply: Array) -> Units:
    """Move shares of rows, f32, towards those of the newest chunk, if that may be."""
    share = jnp.where(apply, min(1.0, spec.chunk / RECENT), 0.0)
    return tuple(old + share * (new - old) for old, new in zip(active, newest, strict=True))


def worn(active: Units) -> Units:
    """Choose the hidden units that begin anew, bool: those that are dead."""
    return tuple(layer < DEAD for layer in active)


def count(chosen: Units) -> Array:
    """Count chosen units, i32[]."""
    return sum((layer.sum() for layer in chosen), jnp.int32(0))


def put(active: Units, chosen: Units) -> Units:
    """Take chosen units, which begin anew, for active ones."""
    return tuple(jnp.where(new, 1.0, old) for old, new in zip(active, chosen, strict=True))


def revive(champion: Contender, fresh: Contender, dead: Units, turn: Array) -> Contender:
    """Begin some hidden units, bool, anew: what they go by is drawn, what they say is nothing.

    So the network says what it said (continual backpropagation, as in Dohare et al. 2024). Weights
    are those of `fresh` networks, at each `turn` i32[] of another of their units. Adam takes a new
    weight for one like the others of its layer; other optimizers remember what they did.
    """
    drawn = [jnp.roll(kernel, turn, (0, 2)) for kernel in _kernels(fresh.params)]
    zeros = [jnp.zeros_like(kernel) for kernel in drawn]
    params = _renewed(champion.params, dead, drawn, zeros)

    def like_others(squares: Params) -> Params:
        means = [
            jnp.broadcast_to(kernel.mean((1, 2), keepdims=True), kernel.shape)
            for kernel in _kernels(squares)
        ]
        return _renewed(squares, dead, means, means)

    state: Any = champion.optimizer
    if isinstance(state, AdamState):
        state = state._replace(squares=like_others(state.squares))
    elif isinstance(state, Params) and isinstance(state.last, AdamState):
        both = like_others(Params(state.below.squares, state.last.squares))
        state = type(state)(
            state.below._replace(squares=both.below), state.last._replace(squares=both.last)
        )
    return champion._replace(params=params, optimizer=state)


def plasticity(champion: Contender, active: Units) -> dict[str, float | None]:
    """Return how able to learn the networks are: what is lost in networks that learn for long.

    Returns:
        dead_units: the share of hidden units, in [0, 1], that were 0 in all of the newest rows,
            some seven times RECENT; None without any.
        weights: the root mean square of all weights, which grows where learning slows down.
    """
    dead = np.concatenate([np.asarray(layer).ravel() < DEAD for layer in (*active, np.ones(0))])
    weights = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(champion.params)]
    return {
        "dead_units": float(dead.mean()) if dead.size else None,
        "weights": float(np.sqrt(np.square(np.concatenate(weights)).mean())),
    }


def _renewed(params: Params, dead: Units, inward: list[Array], outward: list[Array]) -> Params:
    """Put other weights, by layer, in place of those into and out of some units."""
    kernels = _kernels(params)
    for layer, chosen in enumerate(dead):
        kernels[layer] = jnp.where(chosen[:, None], inward[layer], kernels[layer])
        after = kernels[layer + 1]
        rows = jnp.pad(chosen, ((0, 0), (0, after.shape[1] - chosen.shape[1])))
        kernels[layer + 1] = jnp.where(rows[..., None], outward[layer + 1], after)
    *layers, last = kernels
    head: dict[str, Any] = params.below["head"] | {
        "layers": {at: {"kernel": kernel} for at, kernel in enumerate(layers)}
    }
    return Params(params.below | {"head": head}, last.mT)


def _kernels(params: Params) -> list[Array]:
    """Return the weights [M, I, O] of each dense layer, the last one included."""
    layers = params.below["head"]["layers"]
    return [*(layers[at]["kernel"] for at in range(len(layers))), params.last.mT]
