"""The pool: learners of several kinds on the same rows.

Networks that differ in their rate and in what they see, means of their weights, and the `members`,
which are no networks: each says what it thinks, and `mixture` makes one opinion of all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model import members, mixture
from headrace.model.mixture import Mixture
from headrace.model.networks import Network, Params
from headrace.model.optimizer import make_optimizer
from headrace.model.spec import Spec

SEEDS = 1 << 63  # that a random key can be made of
MEMORY, MEMORY_OF_IMAGES = 500.0, 3000.0  # rows over which means of weights fade
WIDE = 32
PAUSE = 8  # rows that means rest before they move again
EXPLODED = 1e4  # an output, in logits or deviations, that no sound network comes to


class Mean(NamedTuple):
    """Hold the means of weights over time."""

    params: Params  # of the networks that are `averaged`, stacked
    since: Array  # i32[]  rows learned since they moved


class Contender(NamedTuple):
    """Hold what tells one pool from another that learns from the same rows beside it."""

    params: Params  # of the networks, stacked
    optimizer: Any  # what each network's optimizer remembers
    mean: Mean
    mixture: Mixture  # of the members' opinions


class PoolInputs(NamedTuple):
    """Hold the rows that an opinion is asked about."""

    inputs: Array  # f32[K, I]
    ids: Array  # u32[K, S]
    past: Array  # f32[K, P]  the entity's last known labels, newest first, NaN = none

    @property
    def last(self) -> Array:
        """Return the label known last, f32[K]."""
        return self.past[:, 0]


def names(spec: Spec) -> list[str]:
    """Name the members in the order of their weights."""
    rates = [f"{rate:g}" for rate in spec.rates]
    if len(set(rates)) < len(rates):
        rates = [f"{rate}, seed {at}" for at, rate in enumerate(rates)]
    networks = [f"{view}, rate {rate}" for view in spec.views for rate in rates]
    return [
        *networks,
        *(f"mean of {name}" for name in networks[averaged(spec)]),
        *(name for member in members.speaking(spec).values() for name in member.names(spec)),
    ]


def averaged(spec: Spec) -> slice:
    """Choose the networks of which the mean weights are a member, too.

    Weights shake as they learn from row to row, and their mean does not (Polyak & Juditsky 1992,
    "Acceleration of stochastic approximation by averaging"). The slowest networks have most of it:
    means of the faster ones add little. Of images, where there are most weights, all have one; of
    networks that are all of one rate, none, for whoever asks for these asks for speed. Quantiles
    have none: a mean comes after, and intervals would be too wide for long.
    """
    if (len(set(spec.rates)) == 1 and not spec.pixels) or spec.objective == "pinball":
        return slice(0)
    if spec.pixels:
        return slice(None)
    return slice(spec.rates.index(min(spec.rates)), None, len(spec.rates))


def average(spec: Spec, mean: Mean, newest: Params, labels: Array, apply: Array) -> Mean:
    """Move means towards the newest weights of their networks, unless nothing may move.

    They fade over MEMORY rows, and over half of all there were while `labels` f32[] are few. As
    they move slowly they need not move with each row, which would take a twentieth of all time.
    """
    rows = MEMORY_OF_IMAGES if spec.pixels else MEMORY
    since = mean.since + jnp.where(apply, spec.chunk, 0)
    due = since >= PAUSE
    share = jnp.minimum(since * jnp.maximum(1.0 / rows, 2.0 / (labels + 1.0)), 1.0)

    def move(_: Any, old: Params) -> Params:
        moved: Params = jax.tree.map(
            lambda mean, new: mean + share * (new[averaged(spec)] - mean), old, newest
        )
        return moved

    # A loop of one round or none: a choice between weights would copy them.
    params = lax.fori_loop(0, due.astype(jnp.int32), move, mean.params)
    return Mean(params, jnp.where(due, 0, since))


def alone(spec: Spec) -> int:
    """Count the last opinions, which are heard alone."""
    found = members.speaking(spec).values()
    return sum(len(member.names(spec)) for member in found if member.alone)


def resettable(spec: Spec) -> list[str]:
    """Name what begins anew when it is lost: networks, and members that say so."""
    found = members.resetting(spec).values()
    return [*names(spec)[: spec.networks], *(", ".join(each.names(spec)) for each in found)]


def contender(spec: Spec, network: Network) -> Contender:
    """Draw each network's parameters, and give the mean of all opinions equal weights."""
    keys = [jax.random.key((spec.seed + at) % SEEDS) for at in range(spec.networks)]
    params = jax.vmap(network.init)(jnp.stack(keys))
    remember = make_optimizer(spec).init
    remembered = remember(params)
    if spec.chunk > 1:
        below = remember(params.below) if params.below else {}
        remembered = Params(below, remember(params.last))
    added = len(names(spec)) - alone(spec)
    mean = Mean(jax.tree.map(lambda leaf: leaf[averaged(spec)], params), jnp.int32(0))
    return Contender(params, remembered, mean, mixture.init(added, alone(spec)))


def bits(contender: Contender) -> Array:
    """Return all that a contender is as one array u32[P], which is copied and chosen in one go."""
    leaves = jax.tree.leaves(contender)
    return jnp.concatenate([lax.bitcast_convert_type(leaf, jnp.uint32).ravel() for leaf in leaves])


def read_bits(found: Array, like: Contender) -> Contender:
    """Make a contender of its `bits`; it has the shape of another."""
    leaves, shape = jax.tree.flatten(like)
    parts = jnp.split(found, np.cumsum([leaf.size for leaf in leaves])[:-1])
    read = [
        lax.bitcast_convert_type(part.reshape(leaf.shape), leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    contender: Contender = jax.tree.unflatten(shape, read)
    return contender


def sight(spec: Spec) -> np.ndarray[Any, Any]:
    """Return which inputs a network sees, f32[M, I], by its view."""
    made = np.ones(spec.numeric, bool)
    made[spec.plain] = False
    rows = 2 + 2 * spec.numeric_lags + len(spec.traces)  # of N inputs each
    encoded = np.zeros(spec.inputs, bool)
    encoded[spec.pixels : spec.pixels + rows * spec.numeric] = np.tile(made, rows)

    def inputs(view: str) -> np.ndarray[Any, Any]:
        sees = np.ones(spec.inputs, np.float32)
        if not view.endswith("past"):
            sees[spec.row_inputs :] = 0.0
        if not view.startswith("encoded"):
            sees[encoded] = 0.0
        return sees

    return np.repeat([inputs(view) for view in spec.views], len(spec.rates), 0)


def rates(spec: Spec) -> np.ndarray[Any, Any]:
    """Return the learning rate of each network, f32[M]."""
    return np.tile(np.asarray(spec.rates, np.float32), len(spec.views))


def paces(spec: Spec, params: Params, rates: Array) -> Params:
    """Return the rates of each layer's weights, f32[M], which are less where networks see an image.

    A step moves each of a unit's I weights as far as any other, so it moves what a unit says by
    sqrt(I) where its inputs have nothing in common, and by I where all say the same. The rates are
    those of WIDE inputs; of more, each has less, as if they had nothing in common (Yang & Hu 2021,
    "Tensor programs IV: feature learning in infinite-width neural networks", has the other end).
    """

    def pace(inputs: int) -> Array:
        return rates * (min(1.0, (WIDE / inputs) ** 0.5) if spec.pixels else 1.0)

    below = jax.tree.map(lambda kernel: pace(kernel.shape[-2]), params.below)
    return Params(below, pace(params.last.shape[-1]))


def silenced(outputs: Array) -> tuple[Array, Array]:
    """Let networks that have lost themselves say nothing: 0 for all outputs f32[M, K, O].

    Returns:
        the outputs, and which networks said what is not finite or has exploded, bool[M].
    """
    sound = (jnp.abs(outputs) < EXPLODED).all((1, 2))
    return jnp.where(sound[:, None, None], outputs, 0.0), ~sound
