"""How much each input of a row moved what is predicted of it: attributions by Shapley's value.

A prediction is walked to from that of an earlier row: one input after the other takes the row's own
value, and the prediction moves by so much. The mean over earlier rows, a background, and over the
orders in which that can be done is Shapley's value (Štrumbelj & Kononenko 2014, "Explaining
prediction models and individual predictions with feature contributions"). Of these some are drawn,
each order with its reverse, which takes some of the noise away (Mitchell et al. 2022, "Sampling
permutations for Shapley value estimation"). What inputs add where they do not depend on each other
is exact whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from headrace.model.batch import Batch
from headrace.model.predictor import make_predictor
from headrace.model.spec import Spec
from headrace.model.state import State

ROWS = 128  # that are predicted for an explanation, if two walks need no more
MOST_WALKS = 32
REMEMBERED = 100  # explanations that an importance fades over
KEPT = 8  # programs


class Walks(NamedTuple):
    """Hold ways from K earlier rows to a row of F inputs, over C = 1 + K * F mixed rows.

    The first mixed row is the row itself, the next K are the earlier ones.
    """

    own: NDArray[np.bool_]  # [C, F]  whether an input has the row's own value
    origin: NDArray[np.int64]  # [C]  which earlier row the other values are of
    steps: NDArray[np.float32]  # [F, C]  what the predictions count for each input


def walks_of(inputs: int) -> int:
    """Return from how many earlier rows a row of so many inputs is walked to; an even number."""
    return max(2, min(MOST_WALKS, 2 * ((ROWS - 1) // (2 * inputs))))


def draw_walks(inputs: int, count: int, random: np.random.Generator) -> Walks:
    """Draw the order of the inputs in each of `count` walks; every other one is a reverse."""
    half = np.tile(np.arange(inputs), (count // 2, 1))
    orders = random.permuted(half, axis=1)
    orders = np.stack([orders, orders[:, ::-1]], 1).reshape(count, inputs)
    own = np.argsort(orders, 1)[:, None] < np.arange(1, inputs)[None, :, None]
    row = np.zeros((count, inputs + 1), np.int64)  # after each step; in the end it is the first one
    row[:, :-1] = 1 + np.arange(count * inputs).reshape(inputs, count).T
    steps = np.zeros((inputs, 1 + count * inputs), np.float32)
    np.add.at(steps, (orders, row[:, 1:]), 1 / count)
    np.add.at(steps, (orders, row[:, :-1]), -1 / count)
    return Walks(
        own=np.concatenate(
            [
                np.ones((1, inputs), bool),
                np.zeros((count, inputs), bool),
                own.swapaxes(0, 1).reshape(-1, inputs),
            ]
        ),
        origin=np.concatenate([[0], np.tile(np.arange(count), inputs)]),
        steps=steps,
    )


def blank(inputs: int) -> NDArray[np.float32]:
    """Return the importance of inputs before anything was explained, f32[F + 1]."""
    return np.zeros(inputs + 1, np.float32)


@lru_cache(KEPT)
def make_attributions(
    spec: Spec,
) -> Callable[[State, Batch, Any, Any], tuple[Array, Array, Array]]:
    """Return a function of a state, C mixed rows, the steps of `Walks`, and the importance so far.

    It gives the attributions f32[F, O] of the O classes' probabilities, or of the number, NaN where
    nothing is said yet; what is predicted of each mixed row, f32[C], a class's index or a number;
    and the importance f32[F + 1]: of each input the mean of the attributions' sizes, for what is
    predicted, and behind them of how many explanations.
    """
    predict = make_predictor(spec)

    @jax.jit
    def attribute(
        state: State, rows: Batch, steps: Array, importance: Array
    ) -> tuple[Array, Array, Array]:
        published = predict(state, rows)
        said = published[:, : spec.classes or 1]
        found = jnp.matmul(steps, said, precision=lax.Precision.HIGHEST)
        if spec.decides:
            answers = published[:, -1]
        else:
            answers = jnp.argmax(said, 1).astype(jnp.float32) if spec.classes else said[:, 0]
        answer = answers[0].astype(jnp.int32) if spec.classes else 0
        size, known = jnp.abs(found[:, answer]), jnp.isfinite(found).all()
        count = jnp.minimum(importance[-1] + 1.0, REMEMBERED)
        mean = importance[:-1] + (size - importance[:-1]) / count
        after = jnp.append(mean, importance[-1] + 1.0)
        return found, answers, jnp.where(known, after, importance)

    return attribute
