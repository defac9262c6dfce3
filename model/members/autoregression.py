"""How numbers go on: an opinion that knows nothing but the entity's last steps.

The next step is a weighted sum of the last ones: an autoregression of differences (ARI(p, 1): Box &
Jenkins 1970) whose weights are found by recursive least squares with forgetting (Haykin 2002,
"Adaptive filter theory", ch. 9), so they are right after tens of labels where a gradient takes
thousands. Spikes teach little: a label that is missed by far weighs less (Huber 1964), and no step
is longer than three standard deviations.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model import scale, target
from headrace.model.members.member import Asked, Labels, by_row
from headrace.model.spec import Spec
from headrace.model.target import TargetState

KEPT = 0.9995  # of what was learned, after each label
PRIOR = 0.1  # variance of a weight that nothing is known of
DRIFT = 3e-7  # what is added to that of each weight after each label; rounding takes up to 1e-7
NEAR = 0.5  # a miss, in deviations of the rest, that still weighs as much as a smaller one
LONGEST = 3.0  # of a step, in the same


class AutoregressionState(NamedTuple):
    """Hold the weights of P steps; P is 0 for classes."""

    weights: Array  # f32[P]  newest step first
    spread: Array  # f32[P, P]  what is not known of them yet


def names(spec: Spec) -> list[str]:
    """Name the opinion, which is of numbers."""
    return [] if spec.classes else ["autoregression"]


def init(spec: Spec) -> AutoregressionState:
    """Start with the opinion that there will be no step."""
    steps = spec.past_labels - 1
    return AutoregressionState(jnp.zeros(steps), PRIOR * jnp.eye(steps))


def predict(spec: Spec, state: AutoregressionState, asked: Asked) -> Array:
    """Return an opinion f32[1, K, O] about rows by the P + 1 labels known last."""
    goals, past = asked.target, asked.past
    on = target.again(goals, past[:, 0]) + _steps(goals, past) @ state.weights
    bounded = jnp.clip(on, -scale.CLIP, scale.CLIP)
    return jnp.broadcast_to(bounded[:, None], (1, len(past), spec.outputs))


def update(
    spec: Spec, state: AutoregressionState, row: Asked, labels: Labels
) -> AutoregressionState:
    """Take in a row's goal, which followed the P + 1 labels known last; NaN teaches nothing."""
    goals, past, goal = row.target, row.past, labels.goal
    (weights, spread), step = state, _steps(goals, past)
    miss = goal - target.again(goals, past[:1])[0] - step @ weights
    reach = spread @ step
    weight = jnp.minimum(1.0, NEAR / jnp.maximum(jnp.abs(miss), 1e-30))
    share = weight / (KEPT + weight * (step @ reach))
    # Each entry and its mirror image come of the same operations on the same numbers, so the spread
    # is symmetric to the bit, and by DRIFT positive: else forgetting multiplies what rounding left
    # until nothing else is there (Bierman 1977, "Factorization methods", ch. 5).
    spread = (spread - share * (reach[:, None] * reach)) / KEPT + DRIFT * jnp.eye(len(step))
    shrunk = jnp.sqrt(jnp.minimum(1.0, PRIOR / jnp.maximum(jnp.diagonal(spread), 1e-30)))
    learned = AutoregressionState(
        weights + share * miss * reach, spread * (shrunk[:, None] * shrunk)
    )
    known = ~jnp.isnan(goal) & ~jnp.isnan(past[0])
    return AutoregressionState(
        *(jnp.where(known, new, old) for new, old in zip(learned, state, strict=True))
    )


def _steps(goals: TargetState, past: Array) -> Array:
    """Return steps f32[..., P] between labels, in deviations of the rest; an unknown one is 0."""
    apart = past[..., :-1] - past[..., 1:]
    steps = scale.transform(goals.rest, apart[..., None], jnp.zeros(1))[..., 0]
    return jnp.clip(steps, -LONGEST, LONGEST)


MEMBER = by_row(names, init, predict, update, resets=True)
