from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from model import pool
from model.batch import empty_batch
from model.learner import make_learner, warm_up
from model.spec import Spec

N = 8_000  # rows: a share of one is below one in a thousand after 7,000


@pytest.mark.parametrize("chunk", [1, 16])
def test_units_that_no_gradient_passes_are_counted(chunk: int) -> None:
    spec = Spec(numeric=2, hidden=(4,), chunk=chunk, detectors=(), rates=(1e-3, 5e-3))
    rng = np.random.default_rng(0)
    learner, batch = make_learner(spec), empty_batch(spec, N)
    batch.numeric[:] = rng.normal(size=(N, 2))
    batch.label[:] = batch.numeric[:, 0]
    state = warm_up(learner, N)
    assert pool.plasticity(state.champion, state.active)["dead_units"] == 0.0

    def killed(leaf: Any) -> Any:
        return leaf.at[1].set(0.0).at[1, -1].set(-1e3)  # the weights of the 1 that is its bias

    params = state.champion.params
    below = jax.tree.map(killed, params.below)
    state = state._replace(champion=state.champion._replace(params=params._replace(below=below)))
    state, _ = learner.run(state, batch, np.int32(N))
    found = pool.plasticity(state.champion, state.active)
    assert (np.asarray(state.active)[1] < pool.DEAD).all()
    assert 1 / spec.networks <= found["dead_units"] < 2 / spec.networks  # one may die by itself
    weights = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.champion.params)]
    rms = np.sqrt(np.mean(np.concatenate(weights).astype(np.float64) ** 2))
    assert found["weights"] == pytest.approx(rms, rel=1e-6)


def test_a_network_without_hidden_units_has_none_to_lose() -> None:
    spec = Spec(numeric=2, hidden=(), detectors=())
    state = make_learner(spec).init()
    assert pool.plasticity(state.champion, state.active)["dead_units"] is None
