"""Means of weights: members of the pool."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import pool
from headrace.model.batch import empty_batch
from headrace.model.chunk_training import answer, no_chunk
from headrace.model.learner import make_learner, warm_up
from headrace.model.spec import Spec
from headrace.model.state import init, make_parts


def weights(tree: Any) -> NDArray[Any]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("chunk", [1, 4])
def test_means_of_weights_are_members_that_fade(chunk: int) -> None:
    """Every 8 rows: over half of all at first, over 3,000 later on, as sums in numpy say."""
    spec = Spec(
        1, classes=2, image=(3, 3, 1), hidden=(4,), rates=(0.01,), detectors=(), chunk=chunk
    )
    learner, rows = make_learner(spec), 4000
    rng: Any = np.random.default_rng(0)
    batch = empty_batch(spec, chunk)
    state = warm_up(learner, chunk)
    wanted = weights(state.champion.params).astype(float)
    assert (weights(state.champion.mean.params) == wanted).all()
    for row in range(0, rows, chunk):
        batch.label[:] = rng.integers(0, 2, chunk)
        light = 100 + 100 * batch.label.astype(int)
        batch.image[:] = rng.integers(0, light[:, None, None, None], batch.image.shape)
        state, _ = learner.run(state, batch, np.int32(chunk))
        if (row + chunk) % 8 == 0:
            share = min(1.0, 8 * max(1 / 3000, 2 / (row + 1)))
            wanted += share * (weights(state.champion.params) - wanted)
    assert np.allclose(weights(state.champion.mean.params), wanted, atol=1e-4)
    assert not np.allclose(weights(state.champion.params), wanted, atol=1e-2)


@pytest.mark.parametrize("chunk", [1, 4])
def test_of_columns_the_slow_networks_have_a_mean(chunk: int) -> None:
    spec = Spec(3, classes=2, hidden=(4,), rates=(0.02, 0.001, 0.005), detectors=(), chunk=chunk)
    assert [*range(6)][pool.averaged(spec)] == [1, 4]
    means = [name for name in pool.names(spec) if name.startswith("mean of")]
    assert means == ["mean of row, rate 0.001", "mean of row and past, rate 0.001"]
    learner, rng, rows = make_learner(spec), np.random.default_rng(0), 2000
    batch, state = empty_batch(spec, chunk), warm_up(learner, chunk)
    slow = np.array([1, 4])

    def some(params: Any) -> NDArray[Any]:
        return weights(jax.tree.map(lambda leaf: leaf[slow], params))

    wanted = some(state.champion.params).astype(float)
    for row in range(0, rows, chunk):
        batch.numeric[:] = rng.normal(size=batch.numeric.shape)
        batch.label[:] = batch.numeric[:, 0] > batch.numeric[:, 1]
        state, _ = learner.run(state, batch, np.int32(chunk))
        if (row + chunk) % 8 == 0:
            share = min(1.0, 8 * max(1 / 500, 2 / (row + 1)))
            wanted += share * (some(state.champion.params) - wanted)
    assert np.allclose(weights(state.champion.mean.params), wanted, atol=1e-4)
    assert not np.allclose(some(state.champion.params), wanted, atol=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        Spec(3, classes=2, hidden=(4,), rates=(0.003,), detectors=()),
        Spec(3, classes=2, hidden=(4,), rates=(0.003, 0.003), detectors=()),
        Spec(3, hidden=(4,), loss="pinball", detectors=()),
    ],
)
def test_networks_of_one_rate_have_no_mean_and_quantiles_none(spec: Spec) -> None:
    assert not any(name.startswith("mean of") for name in pool.names(spec))
    learner, batch = make_learner(spec), empty_batch(spec, 50)
    batch.numeric[:], batch.label[:] = 1.0, 1.0
    state, said = learner.run(warm_up(learner, 50), batch, np.int32(50))
    assert not weights(state.champion.mean.params).size
    assert np.isfinite(np.asarray(said.published)[2:]).all()


@pytest.mark.parametrize(
    "spec",
    [
        Spec(0, classes=3, image=(2, 2, 1), hidden=(4,), detectors=()),
        Spec(4, classes=3, hidden=(4,), rates=(0.01, 0.02), detectors=()),
    ],
)
def test_what_means_say_is_heard(spec: Spec) -> None:
    """As if the networks themselves had their weights."""
    parts, rng = make_parts(spec), np.random.default_rng(0)
    own = init(parts).champion
    which = pool.averaged(spec)
    own = own._replace(
        mean=own.mean._replace(params=jax.tree.map(lambda p: p[which] + 0.5, own.params))
    )
    rows = jnp.asarray(rng.normal(size=(1, spec.inputs)), jnp.float32)
    question = no_chunk(spec).question
    question = question._replace(rows=question.rows._replace(inputs=rows))
    names = pool.names(spec)
    only = [name.startswith("mean of") for name in names]
    deaf = own.mixture._replace(
        weights=own.mixture.weights * 0 + np.array(only, np.float32),
        trust=own.mixture.trust * 0 + np.array([1.0] + [0.0] * (1 + len(names)), np.float32),
    )
    ask = jax.jit(partial(answer, spec, parts.network))
    said = ask(own._replace(mixture=deaf), question)
    first = [name in names[: spec.networks][which] for name in names]
    told = deaf._replace(weights=own.mixture.weights * 0 + np.array(first, np.float32))
    params = jax.tree.map(lambda p: p + 0.5, own.params)
    same = ask(own._replace(params=params, mixture=told), question)
    assert sum(only) == sum(first) == 2
    assert np.allclose(said, same, atol=1e-5)
    assert np.ptp(np.asarray(said)) > 0.01
