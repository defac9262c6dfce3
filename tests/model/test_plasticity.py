from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headrace.model import counter, networks, plasticity
from headrace.model.batch import empty_batch
from headrace.model.embed import Embedded
from headrace.model.learner import make_learner, warm_up
from headrace.model.networks import Seen
from headrace.model.spec import Spec
from headrace.model.state import make_parts

N = 8_000  # rows: a share of one is below one in a thousand after 7,000


def rows(spec: Spec) -> Any:
    rng, batch = np.random.default_rng(0), empty_batch(spec, N)
    batch.numeric[:] = rng.normal(size=(N, 2))
    batch.label[:] = batch.numeric[:, 0] > 0 if spec.classes else batch.numeric[:, 0]
    return batch


@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("classes", [0, 2])
def test_units_that_are_dead_begin_anew(chunk: int, classes: int) -> None:
    spec = Spec(numeric=2, classes=classes, hidden=(8, 6), chunk=chunk, detectors=())
    learner, batch = make_learner(spec), rows(spec)
    state = warm_up(learner, N)
    params = state.champion.params
    layers = params.below["head"]["layers"]
    killed = {
        0: {"kernel": layers[0]["kernel"].at[1, :, 3:5].set(0.0).at[1, -1, 3:5].set(-1e3)},
        1: {"kernel": layers[1]["kernel"].at[0, :, 2].set(0.0).at[0, -1, 2].set(-1e3)},
    }
    params = params._replace(below={"head": {**params.below["head"], "layers": killed}})
    state = state._replace(champion=state.champion._replace(params=params))
    state, said = learner.run(state, batch, np.int32(N))
    assert not np.asarray(said.lost).any()
    assert not counter.value(state.resets).any()
    assert 3 <= counter.value(state.revived) < 20
    layers = state.champion.params.below["head"]["layers"]
    assert (jnp.abs(layers[0]["kernel"][1, -1, 3:5]) < 10.0).all()
    assert jnp.abs(layers[1]["kernel"][0, -1, 2]) < 10.0
    assert not plasticity.count(plasticity.worn(state.active))


@pytest.mark.parametrize("optimizer", ["adam", "yogi"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_unit_that_begins_anew_changes_nothing_that_is_said(chunk: int, optimizer: Any) -> None:
    spec = Spec(numeric=2, hidden=(8, 6), chunk=chunk, detectors=(), optimizer=optimizer)
    learner, parts = make_learner(spec), make_parts(spec)
    batch, fresh = rows(spec), make_learner(spec).init().champion
    state, _ = learner.run(learner.init(), batch, np.int32(4000))
    chosen = jnp.zeros((spec.networks, 8), bool).at[2, 1].set(True)
    units = chosen, jnp.zeros((spec.networks, 6), bool).at[2, 4].set(True)
    params = state.champion.params
    layers = params.below["head"]["layers"]
    dead = {
        0: {"kernel": layers[0]["kernel"].at[2, :, 1].set(0.0).at[2, -1, 1].set(-1.0)},
        1: {"kernel": layers[1]["kernel"].at[2, :, 4].set(0.0).at[2, -1, 4].set(-1.0)},
    }
    params = params._replace(below={"head": {**params.below["head"], "layers": dead}})
    champion = state.champion._replace(params=params)
    revived = plasticity.revive(champion, fresh, units, jnp.int32(5))
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(50, spec.inputs)), jnp.float32)
    none = jnp.zeros((50, 0))
    nothing = Embedded(none, none, jnp.zeros((50, 0, 8)), jnp.zeros((50, 0), bool))

    def said(params: Any) -> Any:
        made = jax.vmap(lambda below: parts.network.features(below, Seen(inputs, nothing)))(
            params.below
        )
        return jax.vmap(networks.answer)(params.last, made.seen), jnp.concatenate(made.hidden, -1)

    (before, silent), (after, alive) = said(champion.params), said(revived.params)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert not silent[2][:, [1, 12]].any()
    assert (alive[2][:, [1, 12]] != 0.0).any(0).all()
    others = ~np.concatenate(units, 1)
    np.testing.assert_array_equal(
        np.asarray(alive).swapaxes(0, 1)[:, others], np.asarray(silent).swapaxes(0, 1)[:, others]
    )


def test_no_unit_begins_anew_where_there_is_none() -> None:
    spec = Spec(numeric=2, hidden=(), detectors=())
    learner, batch = make_learner(spec), rows(spec)
    state, said = learner.run(warm_up(learner, N), batch, np.int32(N))
    assert np.isfinite(np.asarray(said.published)[2:, 0]).all()
    assert counter.value(state.revived) == 0


def test_plasticity_is_the_share_of_dead_units_and_the_size_of_weights() -> None:
    state = make_learner(Spec(numeric=2, hidden=(4,), detectors=())).init()
    (active,) = state.active
    found = plasticity.plasticity(state.champion, (active.at[0, :3].set(0.0),))
    assert found["dead_units"] == 3 / active.size
    weights = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.champion.params)]
    rms = np.sqrt(np.mean(np.concatenate(weights).astype(np.float64) ** 2))
    assert found["weights"] == pytest.approx(rms, rel=1e-6)
    plain = make_learner(Spec(numeric=2, hidden=(), detectors=())).init()
    assert plasticity.plasticity(plain.champion, plain.active)["dead_units"] is None
