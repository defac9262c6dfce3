"""The pool: learners of several kinds on the same rows.

Networks that differ in their rate and in what they see, hashed logistic (or linear) regression,
what the last labels say by themselves, and the votes of a row's neighbours: each says what it
thinks, and `mixture` makes one opinion of all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from model import autoregression, embed, losses, mixture, neighbours, persistence, scale
from model.mixture import Mixed, Mixture
from model.networks import Network, Params, Seen
from model.optimizer import Optimizer
from model.spec import Spec

FLOOR = -7.0  # of a logarithm of a probability: no member rules a class out for the others


class Contender(NamedTuple):
    """Hold what tells one pool from another that learns from the same rows beside it."""

    params: Params  # of the networks, stacked
    optimizer: Any  # what each network's optimizer remembers
    mixture: Mixture  # of the members' opinions


class Views(NamedTuple):
    """Hold the rows that an opinion is asked about."""

    inputs: Array  # f32[K, I]
    ids: Array  # u32[K, S]
    past: Array  # f32[K, P]  the entity's last known labels, newest first, NaN = none

    @property
    def last(self) -> Array:
        """Give the label known last, f32[K]."""
        return self.past[:, 0]


class Lesson(NamedTuple):
    """Hold what the open chunk would teach, had it its last row."""

    rows: Views
    found: Array  # f32[K, S, E+O]  the table's rows of the ids
    label: Array  # f32[K]  class index or goal, NaN = teaches nothing
    share: Array  # f32[K, 1]  of each row in the step
    gradient: Any  # of the networks' parameters, and of the table's rows
    at: Array  # i32[K, S]  the table's rows
    said: Array  # f32[N, K, O]  what each member said about the rows
    mixed: Mixed


class Heard(NamedTuple):
    """Hold what of a lesson others learn from."""

    rows: Views
    found: Array  # f32[K, S, E+O]
    label: Array  # f32[K]
    share: Array  # f32[K, 1]
    said: Array  # f32[N - M, K, O]  by those members that are not networks
    mixed: Array  # f32[K, O]


def names(spec: Spec) -> list[str]:
    """Name the members in the order of their weights."""
    whole = "row and past" if spec.past_inputs else "row"
    views = ("row", whole) if spec.views == 2 else (whole,)
    rates = [f"{rate:g}" for rate in spec.rates]
    if len(set(rates)) < len(rates):
        rates = [f"{rate}, seed {at}" for at, rate in enumerate(rates)]
    networks = [f"{view}, rate {rate}" for view in views for rate in rates]
    return [
        *networks,
        *(["words"] if spec.ids else []),
        *([persistence.NAME] if persistence.kept(spec) else []),
        *([] if spec.classes else [autoregression.NAME]),
        *(neighbours.VOTES if spec.neighbours else []),
    ]


def contender(spec: Spec, network: Network, optimizer: Optimizer) -> Contender:
    """Draw each network's parameters, and give the mean of all opinions equal weights."""
    each = [network.init(spec.seed + at) for at in range(spec.networks)]
    params: Params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return Contender(params, optimizer.init(params), mixture.init(len(names(spec))))


def sight(spec: Spec) -> np.ndarray[Any, Any]:
    """Say which inputs a network sees, f32[M, I]: those of the first view only the row itself."""
    past = np.ones((len(spec.rates), spec.inputs), np.float32)
    if spec.views == 1:
        return past
    row = past.copy()
    row[:, spec.row_inputs :] = 0.0
    return np.concatenate([row, past])


def rates(spec: Spec) -> np.ndarray[Any, Any]:
    """Give the learning rate of each network, f32[M]."""
    return np.tile(np.asarray(spec.rates, np.float32), spec.views)


def speak(
    spec: Spec, network: Network, params: Params, found: Array, rows: Views
) -> tuple[Array, Array]:
    """Give the outputs f32[M, K, O] of the networks and f32[0 or 1, K, O] of the hashed words.

    `found` are the table's rows f32[K, S, E+O] of the ids. What the words say alone is a part of
    what each network says, but is taught alone.
    """
    embedded, direct = embed.features(spec, found, rows.ids)
    outputs = jax.vmap(lambda one, inputs: network.apply(one, Seen(inputs, embedded)))(
        params, rows.inputs * sight(spec)[:, None]
    )
    if spec.objective == "pinball":
        outputs, direct = outputs + losses.normal(spec), direct + losses.normal(spec)
    if not spec.ids:
        return outputs, jnp.zeros((0, *outputs.shape[1:]))
    return outputs + jax.lax.stop_gradient(direct), direct[None]


def opinions(
    spec: Spec,
    outputs: Array,
    words: Array,
    again: Array,
    near: neighbours.NeighboursState,
    rows: Views,
) -> Array:
    """Bring what all members say into one array f32[N, K, O] of logarithms, or of goals.

    `again` is what the last labels say, f32[0 to 2, K, O].

    Members that have lost themselves do no harm: what is not finite counts as 0, and a goal lies
    within the bounds of standardised values.
    """
    said = jnp.concatenate([_opinion(spec, jnp.concatenate([outputs, words])), again])
    if spec.neighbours:
        own, ids = rows.inputs[:, : spec.columns], rows.ids[:, : spec.categories]
        said = jnp.concatenate([said, neighbours.vote(spec, near, own, ids)])
    return jnp.maximum(said, FLOOR) if spec.classes else said


def _opinion(spec: Spec, outputs: Array) -> Array:
    outputs = jnp.where(jnp.isfinite(outputs), outputs, 0.0)
    if spec.classes:
        return jnp.maximum(losses.log_probabilities(spec, outputs), FLOOR)
    return jnp.clip(outputs, -scale.CLIP, scale.CLIP)


def tell(spec: Spec, lesson: Lesson) -> Heard:
    """Give what others need to learn from a lesson."""
    said = lesson.said[spec.networks :]
    return Heard(lesson.rows, lesson.found, lesson.label, lesson.share, said, lesson.mixed.whole)


def nothing_heard(spec: Spec) -> Heard:
    """Give what has the shape of something heard."""
    k, others = spec.chunk, len(names(spec)) - spec.networks
    return Heard(
        rows=Views(
            jnp.zeros((k, spec.inputs)),
            jnp.zeros((k, spec.ids), jnp.uint32),
            jnp.zeros((k, spec.past_labels)),
        ),
        found=jnp.zeros((k, spec.ids, spec.embedding + spec.outputs)),
        label=jnp.full(k, jnp.nan),
        share=jnp.zeros((k, 1)),
        said=jnp.zeros((others, k, spec.outputs)),
        mixed=jnp.zeros((k, spec.outputs)),
    )


def learn_beside(
    spec: Spec,
    network: Network,
    optimizer: Optimizer,
    own: Contender,
    heard: Heard,
    rates: Array,
    learns: Array,
) -> tuple[Contender, Array]:
    """Let a contender say f32[K, O] about rows that it heard of; from them it `learns`, or not."""
    learnable = ~jnp.isnan(heard.label)
    goal, some = jnp.where(learnable, heard.label, 0.0), learnable.any() & learns

    def say(params: Params) -> Array:
        return speak(spec, network, params, heard.found, heard.rows)[0]

    outputs, pull_back = jax.vjp(say, own.params)
    said = jnp.concatenate([_opinion(spec, outputs), heard.said])
    mixed = mixture.mix(spec, own.mixture, said)
    (gradient,) = pull_back(losses.slope(spec, outputs, goal) * heard.share)
    params, inner, _ = optimizer.step(own.params, own.optimizer, gradient, rates, some)
    weighed = mixture.learn(spec, own.mixture, said, mixed.each, heard.label, 1.0, some)
    return Contender(params, inner, weighed), mixed.whole
