from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import counter, pool
from model.batch import empty_batch
from model.learner import make_learner, warm_up
from model.spec import Spec

N = 8_000  # rows: a share of one is below one in a thousand after 7,000


@pytest.mark.parametrize("chunk", [1, 16])
def test_a_network_whose_units_are_dead_begins_anew(chunk: int) -> None:
    spec = Spec(numeric=2, hidden=(8,), chunk=chunk, detectors=(), rates=(1e-3, 5e-3))
    rng = np.random.default_rng(0)
    learner, batch = make_learner(spec), empty_batch(spec, N)
    batch.numeric[:] = rng.normal(size=(N, 2))
    batch.label[:] = batch.numeric[:, 0]
    state = warm_up(learner, N)

    def killed(leaf: Any) -> Any:
        return leaf.at[1].set(0.0).at[1, -1].set(-1e3)  # the weights of the 1 that is its bias

    params = state.champion.params
    below = jax.tree.map(killed, params.below)
    state = state._replace(champion=state.champion._replace(params=params._replace(below=below)))
    state, said = learner.run(state, batch, np.int32(N))
    (row,) = np.flatnonzero(np.asarray(said.lost))
    assert 6_000 < row < N - 1
    assert np.asarray(said.lost)[row] == 2.0  # the second one
    assert counter.value(state.resets).tolist() == [0, 1, 0, 0, 0]
    assert (np.asarray(state.active)[1] > 0.1).any()


def test_one_worn_network_at_a_time_begins_anew() -> None:
    active = jnp.ones((4, 8)).at[1:3, :7].set(pool.DEAD / 2).at[3, :6].set(0.0)
    assert pool.worn(active).tolist() == [False, True, False, False]
    assert not pool.worn(jnp.ones((4, 0))).any()


def test_plasticity_is_the_share_of_dead_units_and_the_size_of_weights() -> None:
    state = make_learner(Spec(numeric=2, hidden=(4,), detectors=())).init()
    active = state.active.at[0, :3].set(0.0)
    found = pool.plasticity(state.champion, active)
    assert found["dead_units"] == 3 / active.size
    weights = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.champion.params)]
    rms = np.sqrt(np.mean(np.concatenate(weights).astype(np.float64) ** 2))
    assert found["weights"] == pytest.approx(rms, rel=1e-6)
    plain = make_learner(Spec(numeric=2, hidden=(), detectors=())).init()
    assert pool.plasticity(plain.champion, plain.active)["dead_units"] is None
