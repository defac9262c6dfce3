"""How many opinions become one: added up by weights that are learned, at two paces.

For classes the sum is a geometric mixture of distributions (Mattern 2013, "Linear and geometric
mixtures - analysis"; Mahoney 2005, "Adaptive weighing of context models"). It can be better than
its best member, and leaves one that has become wrong. Weights that move slowly are nearer to the
best ones while the world stands still, fast ones when it moves; and while labels are few, one
member may be better than any mixture. So the mixtures of both paces and all members are averaged by
how likely each has made the labels, a little trust always being shared out (fixed share: Herbster &
Warmuth 1998, "Tracking the best expert"). The last members may be heard alone only: those that are
right or wrong as they are, and would be noise in a sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from headrace.model import scale
from headrace.model.losses import log_probabilities, mixed_slope
from headrace.model.spec import Spec
from headrace.model.xla import once

RATES = np.array([0.001, 0.005], np.float32)
GOAL_RATES = np.array([0.01, 0.05], np.float32)
FLOOR = -7.0  # of a logarithm of a probability: no member rules a class out for the others
SHARED = 1e-3  # of the trust, at each step
ALONE = 0.1  # of what is shared, for members by themselves
STERN, SOON = 5.0, 100.0  # so much more does a number's error count at first; half at so many
HEAVIEST = 10.0  # times that a row counts at most: a step of numbers is stable up to 20
LEAST = 1e-6  # of a label's probability, where trust is concerned


class Mixture(NamedTuple):
    """Hold what is thought of N members, of which S are added up."""

    weights: Array  # f32[2, S]  of the opinions of the first ones, at each pace
    trust: Array  # f32[2 + N]  in the mixture at either pace, and in each member; adds up to one
    labels: Array  # f32[]  that were learned, at most 2^24


class Mixed(NamedTuple):
    """Hold what came of opinions about K rows."""

    combined: Array  # f32[K, O]
    per_rate: Array  # f32[2, K, O]  at either pace


def gate(spec: Spec, said: Array) -> Array:
    """Let through what is an opinion f32[N, K, O], whoever has it; else nothing is said: 0."""
    low, high = (FLOOR, jnp.inf) if spec.classes else (-scale.CLIP, scale.CLIP)
    return jnp.where(jnp.isfinite(said), jnp.clip(said, low, high), 0.0)


def opinion(spec: Spec, outputs: Array) -> Array:
    """Turn outputs f32[..., O] into logarithms of probabilities, or goals, which are bounded."""
    if spec.classes:
        return jnp.maximum(log_probabilities(spec, outputs), FLOOR)
    return jnp.clip(outputs, -scale.CLIP, scale.CLIP)


def init(added: int, alone: int = 0) -> Mixture:
    """Start with the mean of the opinions that are added up."""
    weights = jnp.full((len(RATES), added), 1.0 / added)
    return Mixture(weights, _shares(added + alone), jnp.float32(0.0))


def mix(spec: Spec, state: Mixture, said: Array) -> Mixed:
    """Add opinions f32[N, K, O] up; a member that is alone is heard as it is."""
    if len(said) == 1:
        return Mixed(said[0], jnp.broadcast_to(said, (len(RATES), *said.shape[1:])))
    each = jnp.einsum("pn,nko->pko", state.weights, _added(state, said))
    heard = jnp.concatenate([each, said])
    if not spec.classes:
        return Mixed(jnp.einsum("p,pko->ko", state.trust, heard), each)
    chances = jnp.einsum("p,pko->ko", state.trust, jax.nn.softmax(heard))
    return Mixed(jnp.log(jnp.maximum(chances, 1e-30)), each)


def learn(
    spec: Spec,
    state: Mixture,
    said: Array,
    each: Array,
    label: Array,
    boost: Array | float,
    apply: Array | bool,
    weight: Array | None = None,
) -> Mixture:
    """Move the weights against the slopes of their mixtures' losses, and trust towards the better.

    Of one row: opinions f32[N, 1, O], `each` what was mixed of them at either pace, f32[2, 1, O],
    and the class index or goal f32[1], NaN = teaches nothing. Unless `apply`, nothing moves. A
    `weight` f32[1] says how much the row counts: HEAVIEST times at most.

    Goals have no scale that is known beforehand: there the step is that of normalised least mean
    squares (Nagumo & Noda 1967). And the first errors of numbers count for more than later ones, as
    with a learning rate that falls from a high one (Cesa-Bianchi & Lugosi 2006, "Prediction,
    learning, and games", section 2.3): so whoever is right at first is heard at once.
    """
    known = ~jnp.isnan(label)
    goal = jnp.where(known, label, 0.0)
    heavy = None if weight is None else jnp.minimum(weight, HEAVIEST)
    slope = jnp.where(known[:, None], mixed_slope(spec, each, goal, heavy), 0.0)
    added = _added(state, said)
    pull = jnp.einsum("nko,pko->pn", added, slope)
    heard = jnp.concatenate([each, said])
    if spec.classes:
        right = (goal[:, None] == jnp.arange(spec.classes)) * jax.nn.softmax(heard)
        rates: Array | NDArray[Any] = RATES
        losses = -jnp.log(jnp.maximum(right.sum(2), LEAST))
    else:
        rates = GOAL_RATES / (jnp.square(added).sum(0).mean() + 0.1)
        losses = jnp.abs(heard[..., spec.outputs // 2] - goal)
        losses = losses * (1.0 + STERN / (1.0 + state.labels / SOON))
    if heavy is not None:
        losses = losses * heavy
    # Once: or XLA contracts product and difference in the program of one capacity, not of another.
    lost = once(jnp.where(known, losses, 0.0)[:, 0])
    trust = state.trust * jnp.exp(lost.min() - lost)
    trust = (1.0 - SHARED) * trust / trust.sum() + SHARED * _shares(len(said))
    weights = state.weights - boost * rates[:, None] * pull
    learned = Mixture(weights, trust, state.labels + 1.0)
    apply = apply & known[0]
    kept: Mixture = jax.tree.map(lambda new, old: jnp.where(apply, new, old), learned, state)
    return kept


def unbiased(state: Mixture) -> Mixture:
    """Share the trust out anew."""
    return state._replace(trust=_shares(len(state.trust) - len(RATES)))


def total(state: Mixture) -> NDArray[Any]:
    """Wait for a mixture, and give the weight of each member, f32[N]."""
    paces, alone = np.split(np.asarray(state.trust), [len(RATES)])
    weights: NDArray[Any] = alone.copy()
    weights[: state.weights.shape[1]] += paces @ np.asarray(state.weights)
    return weights


def _added(state: Mixture, said: Array) -> Array:
    return said[: state.weights.shape[1]]


def _shares(members: int) -> Array:
    """Share trust out among the paces and the members."""
    paces = jnp.full(len(RATES), (1.0 - ALONE) / len(RATES))
    return jnp.append(paces, jnp.full(members, ALONE / members))
