"""Means of weights: members of a pool that sees images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from model import pool
from model.batch import empty_batch
from model.learner import make_learner, warm_up
from model.lesson import answer, nothing_heard
from model.spec import Spec
from model.state import init, make_parts


def weights(tree: Any) -> NDArray[Any]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("chunk", [1, 4])
def test_means_of_weights_are_members_that_fade(chunk: int) -> None:
    """Over half of all rows at first, over 3,000 later on, as sums in numpy say."""
    spec = Spec(1, classes=2, image=(3, 3, 1), hidden=(4,), rates=(0.01,), chunk=chunk)
    learner, rows = make_learner(spec), 4000
    rng: Any = np.random.default_rng(0)
    batch = empty_batch(spec, chunk)
    state = warm_up(learner, chunk)
    wanted = weights(state.champion.params).astype(float)
    assert (weights(state.champion.mean) == wanted).all()
    for row in range(0, rows, chunk):
        batch.label[:] = rng.integers(0, 2, chunk)
        light = 100 + 100 * batch.label.astype(int)
        batch.image[:] = rng.integers(0, light[:, None, None, None], batch.image.shape)
        state, _ = learner.run(state, batch, np.int32(chunk))
        share = min(1.0, chunk * max(1 / 3000, 2 / (row + 1)))
        wanted += share * (weights(state.champion.params) - wanted)
    assert np.allclose(weights(state.champion.mean), wanted, atol=1e-4)
    assert not np.allclose(weights(state.champion.params), wanted, atol=1e-2)


def test_what_means_say_is_heard() -> None:
    """As if the networks themselves had their weights."""
    spec = Spec(0, classes=3, image=(2, 2, 1), hidden=(4,), detectors=())
    parts, rng = make_parts(spec), np.random.default_rng(0)
    own = init(parts).champion
    own = own._replace(mean=jax.tree.map(lambda p: p + 0.5, own.params))
    rows = jnp.asarray(rng.normal(size=(1, spec.inputs)), jnp.float32)
    question = nothing_heard(spec).question
    question = question._replace(rows=question.rows._replace(inputs=rows))
    names = pool.names(spec)
    only = [name.startswith("mean of") for name in names]
    deaf = own.mixture._replace(
        weights=own.mixture.weights * 0 + np.array(only, np.float32),
        trust=own.mixture.trust * 0 + np.array([1.0] + [0.0] * (1 + len(names)), np.float32),
    )
    said = answer(spec, parts.network, own._replace(mixture=deaf), question)
    first = [name.startswith("row") for name in names]
    told = deaf._replace(weights=own.mixture.weights * 0 + np.array(first, np.float32))
    same = answer(spec, parts.network, own._replace(params=own.mean, mixture=told), question)
    assert sum(only) == sum(first) == 2
    assert np.allclose(said, same, atol=1e-5)
    assert np.ptp(np.asarray(said)) > 0.01
