"""How a chunk is learned: what learns from each row, and what from all of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import embed, mixture, pool
from headrace.model.chunk_training import ChunkInputs, Learned, train_chunk
from headrace.model.networks import Params, make_network
from headrace.model.pool import Contender, PoolInputs
from headrace.model.spec import Spec

K = 4
SPEC = Spec(numeric=2, classes=2, label_lags=0, hidden=(5,), rates=(0.01,), chunk=K, detectors=())
NETWORK = make_network(SPEC)
train = jax.jit(train_chunk, static_argnums=(0, 1), static_argnames="learns")
Floats = NDArray[np.float64]


def question(spec: Spec, rows: Any, others: Any = None) -> ChunkInputs:
    """Ask about rows, of which others say nothing unless it is given."""
    views = PoolInputs(
        jnp.asarray(rows), jnp.zeros((K, spec.ids), jnp.uint32), jnp.full((K, 1), np.nan)
    )
    silent = np.full((len(pool.names(spec)) - spec.networks, K, spec.outputs), -np.log(2))
    found = embed.look_up(spec, embed.init(spec), views.ids)
    return ChunkInputs(views, found, jnp.asarray(silent if others is None else others, jnp.float32))


def learn(chunks: int, labels: Floats, rows: Floats) -> tuple[Contender, Learned]:
    """Go through chunks, and give the contender before them and what came of the last one."""
    first = own = pool.contender(SPEC, NETWORK)
    for at in range(chunks):
        part = slice(at * K, at * K + K)
        heard, label = question(SPEC, rows[part]), jnp.asarray(labels[part], jnp.float32)
        learned = train(SPEC, NETWORK, own, heard, label, jnp.array([0.01]))
        own = learned.after
    return first, learned


def drawn(chunks: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(chunks * K, 2)), np.zeros((chunks * K, 2))], 1)
    return rows, (rows[:, 0] > rows[:, 1]).astype(float)


def test_the_last_layer_learns_each_row_and_the_layers_below_the_mean_of_a_chunk() -> None:
    """Written again in float64, by Adam as its authors give it."""
    chunks = 30
    rows, labels = drawn(chunks)
    labels[::7] = np.nan
    labels[2 * K : 3 * K] = np.nan
    first, learned = learn(chunks, labels, rows)
    (hidden,) = (np.asarray(leaf[0], float) for leaf in jax.tree.leaves(first.params.below))
    last = np.asarray(first.params.last[0], float).T
    squares = [np.zeros_like(hidden), np.zeros_like(last)]
    steps = [0, 0]

    def adam(which: int, gradient: Floats, rate: float, beta: float) -> Floats:
        steps[which] += 1
        squares[which] = beta * squares[which] + (1 - beta) * gradient**2
        hat = squares[which] / (1 - beta ** steps[which])
        return rate * gradient / np.sqrt(hat + 1e-8)

    for chunk in range(chunks):
        down = []
        for at in range(chunk * K, chunk * K + K):
            row = np.append(rows[at], 1.0)
            bent = np.maximum(row @ hidden, 0)
            features = np.concatenate([bent, row])
            said = np.exp(features @ last)
            if np.isnan(labels[at]):
                continue
            slope = said / said.sum() - np.eye(2)[int(labels[at])]
            down.append(np.outer(row, (slope @ last[:5].T) * (bent > 0)))
            last = last - adam(1, np.outer(features, slope), 0.01, 0.999)
        if down:
            hidden = hidden - adam(0, np.mean(down, 0), 0.01 * K ** (1 / 3), 0.999**K)
    after: Params = learned.after.params
    np.testing.assert_allclose(after.last[0].T, last, atol=2e-4)
    np.testing.assert_allclose(jax.tree.leaves(after.below)[0][0], hidden, atol=2e-4)


def test_what_is_not_finite_hurts_no_layer_but_is_counted() -> None:
    rows, labels = drawn(1)
    whole, _ = learn(1, labels, rows)
    rows[1] = np.nan
    _, learned = learn(1, labels, rows)
    assert learned.refused.tolist() == [2]  # of the row, and of the layers below
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learned.after))
    same = jax.tree.map(np.array_equal, learned.after.params.below, whole.params.below)
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(learned.after.params.last, whole.params.last)


def test_who_does_not_learn_stays_as_it_is_and_still_answers() -> None:
    rows, labels = drawn(1)
    own = pool.contender(SPEC, NETWORK)
    heard, label = question(SPEC, rows), jnp.asarray(labels, jnp.float32)
    learned = train(SPEC, NETWORK, own, heard, label, jnp.array([0.01]), learns=False)
    same = jax.tree.map(np.array_equal, learned.after, own)
    assert all(jax.tree.leaves(same))
    unlabelled = train(SPEC, NETWORK, own, heard, jnp.full(K, jnp.nan), jnp.array([0.01]))
    assert np.array_equal(learned.said, unlabelled.said)


@pytest.mark.parametrize("row", range(K))
def test_what_is_asked_beside_is_answered_before_the_label_is_learned(row: int) -> None:
    rows, labels = drawn(2)
    own, heard = pool.contender(SPEC, NETWORK), question(SPEC, rows[:K])
    asked, rates = question(SPEC, rows[K:]), jnp.array([0.5])
    label = jnp.asarray(labels[:K], jnp.float32)
    learned = train(SPEC, NETWORK, own, heard, label, rates, asked=asked)
    later = train(SPEC, NETWORK, own, heard, label.at[row].add(1) % 2, rates, asked=asked)
    same = [np.array_equal(*pair) for pair in zip(learned.answers, later.answers, strict=True)]
    assert same == [at <= row for at in range(K)]


def test_quantiles_of_texts_begin_where_those_of_numbers_do() -> None:
    for tokens in (0, 2):
        spec = Spec(numeric=2, tokens=tokens, loss="pinball", label_lags=0, rates=(0.01,), chunk=K)
        network = make_network(spec)
        members = len(pool.names(spec))
        silent = np.zeros((members - 1, K, 3))
        heard = question(spec, np.zeros((K, spec.inputs)), silent)
        own = pool.contender(spec, network)
        unknown, rates = jnp.full(K, jnp.nan), jnp.array([0.01])
        said = train(spec, network, own, heard, unknown, rates).said
        weight = mixture.total(own.mixture)[0]
        np.testing.assert_allclose(said[:, 0] / weight, -1.645, atol=0.1)
        np.testing.assert_allclose(said[:, 2] / weight, 1.645, atol=0.1)
