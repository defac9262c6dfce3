"""How a pool predicts and learns the rows of a chunk.

The champion and its rivals go through the same function. What feeds it, the votes of neighbours and
what the last labels say, is known of each row as if all rows before it had been learned.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from headrace.model import embed, losses, mixture, networks, pool
from headrace.model.fold import walk
from headrace.model.mixture import Mixed, Mixture
from headrace.model.networks import Network, Params, Seen
from headrace.model.optimizer import Stepped, make_optimizer
from headrace.model.pool import Contender, PoolInputs
from headrace.model.spec import Spec


class ChunkInputs(NamedTuple):
    """Hold rows, and what those who are no networks say about them."""

    rows: PoolInputs
    found: Array  # f32[K, S, E+O]  the table's rows of the ids
    others: Array  # f32[N - M, K, O], less the M that are means of weights


class LabelledChunk(NamedTuple):
    """Hold a chunk that taught the champion, for others to learn from."""

    question: ChunkInputs
    label: Array  # f32[K]  class index or goal, NaN = teaches nothing
    said: Array  # f32[K, O]  by the champion
    weight: Array | None  # f32[K]  how much each row teaches, if rows say so


class Learned(NamedTuple):
    """Hold what came of training on a chunk."""

    after: Contender
    refused: Array  # i32[M]  updates of each network that were not finite
    lost: Array  # bool[M]  networks that said what nobody can hear
    active: tuple[Array, ...]  # f32[M, U] of each hidden layer: labelled rows with a unit not 0
    said: Array  # f32[K, O]  about its rows
    slow: Array  # f32[K, O]  the same, by the slow pace of the mixture alone
    answers: Array  # f32[K, O]  to what was asked beside
    gradient: Array  # f32[K, S, E+O]  of the table's rows


class ScanCarry(NamedTuple):
    """Hold what of a contender moves with each row of a chunk of several."""

    last: Array  # f32[M, O, F]
    optimizer: Any
    refused: Array  # i32[M]
    mixture: Mixture
    back: Array  # f32[M, K, F]  slopes by the features of the rows, zeros of those to come


def no_chunk(spec: Spec) -> LabelledChunk:
    """Return what has the shape of something heard."""
    networks = pool.names(spec)[: spec.networks]
    k, means = spec.chunk, len(networks[pool.averaged(spec)])
    others = len(pool.names(spec)) - spec.networks - means
    rows = PoolInputs(
        jnp.zeros((k, spec.inputs)),
        jnp.zeros((k, spec.ids), jnp.uint32),
        jnp.zeros((k, spec.past_labels)),
    )
    found = jnp.zeros((k, spec.ids, spec.embedding + spec.outputs))
    question = ChunkInputs(rows, found, jnp.zeros((others, k, spec.outputs)))
    weight = jnp.ones(k) if spec.weighted else None
    return LabelledChunk(question, jnp.full(k, jnp.nan), jnp.zeros((k, spec.outputs)), weight)


def train_chunk(
    spec: Spec,
    network: Network,
    own: Contender,
    heard: ChunkInputs,
    label: Array,
    rates: Array,
    boost: Array | float = 1.0,
    learns: Array | bool = True,
    asked: ChunkInputs | None = None,
    weight: Array | None = None,
) -> Learned:
    """Let a contender answer the K rows of a chunk, and learn their labels f32[K], NaN = none.

    Its networks' last layers and its mixture learn from each row before they answer the next. The
    layers below, which make the features of all rows in one pass, learn from the mean of the rows
    when the chunk is over. Beside each row that is heard one may be `asked`: it is answered before
    the other's label is learned. Unless it `learns`, a contender stays as it is. A `weight` f32[K]
    says how much each row teaches.
    """
    by_row, learnable, optimizer = spec.chunk > 1, ~jnp.isnan(label), make_optimizer(spec)
    goals, paces = jnp.where(learnable, label, 0.0), pool.paces(spec, own.params, boost * rates)
    (features, direct), pull_down, hidden = jax.vjp(
        lambda below, found: _features(spec, network, below, heard._replace(found=found)),
        own.params.below,
        heard.found,
        has_aux=True,
    )
    beside = _features(spec, network, own.params.below, asked)[0] if asked else None
    heard_others = _others(spec, network, own, heard)
    asked_others = _others(spec, network, own, asked) if asked else None

    def one(carry: ScanCarry, row: Array) -> tuple[ScanCarry, Any]:
        at = partial(lax.dynamic_slice_in_dim, start_index=row, slice_size=1)
        seen, goal, known = at(features, axis=1), at(goals), at(learnable)
        outputs, lost = _speak(spec, carry.last, seen, at(direct))
        said, mixed = _mix(spec, carry.mixture, outputs, at(heard_others, axis=1))
        answers = mixed.combined
        if beside and asked_others is not None:
            more, _ = _speak(spec, carry.last, at(beside[0], axis=1), at(beside[1]))
            answers = _mix(spec, carry.mixture, more, at(asked_others, axis=1))[1].combined
        heavy = None if weight is None else at(weight)
        slopes = jnp.where(known, losses.slope(spec, outputs, goal, heavy), 0.0)
        _, pull_back = jax.vjp(jax.vmap(networks.answer), carry.last, seen)
        gradient, back = pull_back(slopes)
        named = jnp.where(known, goal, jnp.nan)
        taught = mixture.learn(
            spec, carry.mixture, said, mixed.per_rate, named, boost, learns, heavy
        )
        carry = carry._replace(
            mixture=taught,
            back=lax.dynamic_update_slice_in_dim(carry.back, back, row, 1) if by_row else back,
        )
        told = mixed.combined[0], mixed.per_rate[0, 0], answers[0], lost
        if not by_row:
            return carry, (*told, gradient)
        last, inner, refused = optimizer.step(
            carry.last, carry.optimizer, gradient, paces.last, known[0] & learns
        )
        carry = carry._replace(last=last, optimizer=inner, refused=carry.refused + refused)
        return carry, (*told, ())

    first = ScanCarry(
        own.params.last,
        own.optimizer.last if by_row else (),
        jnp.zeros(spec.networks, jnp.int32),
        own.mixture,
        jnp.zeros_like(features),
    )
    carry, (said, slow, answers, lost, last) = walk(one, first, jnp.arange(spec.chunk))
    share = jnp.where(learnable, 1.0 / jnp.maximum(learnable.sum(), 1), 0.0)
    words = losses.slope(spec, losses.around(spec, direct), goals, weight) * share[:, None]
    below, of_table = pull_down((carry.back * share[:, None], words))
    some = learnable.any() & learns
    if by_row:
        moved = _move_below(spec, own, below, paces.below, some)
        params, inner = Params(moved.params, carry.last), Params(moved.state, carry.optimizer)
    else:
        moved = optimizer.step(own.params, own.optimizer, Params(below, last[0]), paces, some)
        params, inner = moved.params, moved.state
    mean = pool.average(spec, own.mean, params, own.mixture.labels, some)
    after = Contender(params, inner, mean, carry.mixture)
    refused = carry.refused + moved.refused
    active = tuple(jnp.einsum("k,mku->mu", share, layer != 0.0) for layer in hidden)
    return Learned(after, refused, lost.any(0), active, said, slow, answers, of_table)


def answer(spec: Spec, network: Network, own: Contender, asked: ChunkInputs) -> Array:
    """Let a contender answer rows that it does not learn, f32[K, O]."""
    (features, direct), _ = _features(spec, network, own.params.below, asked)
    outputs, _ = _speak(spec, own.params.last, features, direct)
    others = _others(spec, network, own, asked)
    return _mix(spec, own.mixture, outputs, others)[1].combined


def _others(spec: Spec, network: Network, own: Contender, question: ChunkInputs) -> Array:
    """Return the opinions of all but the networks, f32[N - M, K, O]: first those of their means.

    Means move when a chunk is over, so that they speak of all its rows at once.
    """
    sight = pool.sight(spec)[pool.averaged(spec)]
    if not len(sight):
        return question.others
    (features, direct), _ = _features(spec, network, own.mean.params.below, question, sight)
    outputs, _ = _speak(spec, own.mean.params.last, features, direct)
    return jnp.concatenate([mixture.opinion(spec, outputs), question.others])


def _speak(spec: Spec, last: Array, features: Array, direct: Array) -> tuple[Array, Array]:
    """Return what networks put out about rows with such features, and who is `pool.silenced`."""
    said = jax.vmap(networks.answer)(last, features)
    return pool.silenced(losses.around(spec, said + jax.lax.stop_gradient(direct)))


def _mix(spec: Spec, state: Mixture, outputs: Array, others: Array) -> tuple[Array, Mixed]:
    """Return all opinions f32[N, K, O], and what comes of them."""
    said = jnp.concatenate([mixture.opinion(spec, outputs), others])
    return said, mixture.mix(spec, state, said)


def _features(
    spec: Spec,
    network: Network,
    below: dict[str, Any],
    question: ChunkInputs,
    sight: NDArray[np.float32] | None = None,
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    """Return what networks make of rows, f32[M, K, F], and what is said of their words, f32[K, O].

    Beside both, the networks' hidden units f32[M, K, U] of each layer. Networks see what
    `pool.sight` says, or f32[M, I] does.
    """
    rows = question.rows
    embedded, direct = embed.features(spec, question.found, rows.ids)
    made = jax.vmap(lambda one, inputs: network.features(one, Seen(inputs, embedded)))(
        below, rows.inputs * (pool.sight(spec) if sight is None else sight)[:, None]
    )
    return (made.seen, direct), made.hidden


def _move_below(
    spec: Spec, own: Contender, gradient: dict[str, Any], paces: dict[str, Any], some: Array
) -> Stepped:
    """Move the layers below the last, if there are any."""
    params, state = own.params.below, own.optimizer.below
    if not gradient:
        return Stepped(params, state, jnp.zeros(spec.networks, bool))
    return make_optimizer(spec, spec.chunk).step(params, state, gradient, paces, some)
