from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model import counter, pool
from headrace.model.batch import Batch, empty_batch
from headrace.model.learner import Learner, make_learner, warm_up
from headrace.model.spec import Spec
from headrace.model.state import State, named

N, BEFORE = 1200, 600
NUMBERS = Spec(numeric=3, neighbours=50)
CLASSES = Spec(numeric=3, classes=2, neighbours=50)
CHUNKS = Spec(numeric=3, chunk=8, neighbours=50)
MEMBERS = ("champion.params", "champion.optimizer", "steps", "neighbours", "followed", "cells")


def batch_of(spec: Spec, seed: int = 0) -> Batch:
    rng, batch = np.random.default_rng(seed), empty_batch(spec, N)
    batch.numeric[:] = rng.normal(size=(N, 3))
    label = batch.numeric @ np.array([2, -1, 0], np.float32) + 0.3 * rng.normal(size=N)
    batch.label[:] = label > 0 if spec.classes else label
    return batch


def run(learner: Learner, state: State, batch: Batch, first: int, end: int) -> tuple[State, Any]:
    part = Batch(*(np.roll(column, -first, 0) for column in batch))
    return learner.run(state, part, np.int32(end - first))


def errors(spec: Spec, batch: Batch, outcome: Any, first: int) -> NDArray[Any]:
    said = np.asarray(outcome.published)[: N - first]
    label = batch.label[first:]
    return np.asarray(said.argmax(1) != label if spec.classes else np.abs(said[:, 0] - label))


def leaves(spec: Spec) -> list[str]:
    state = jax.eval_shape(make_learner(spec).init)
    return [
        name
        for name, leaf in named(state)
        if name.startswith(MEMBERS) and leaf.dtype == jnp.float32 and leaf.size
    ]


CASES = [(spec, leaf) for spec in (NUMBERS, CLASSES, CHUNKS) for leaf in leaves(spec)]


@pytest.mark.parametrize("wild", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize(
    ("spec", "leaf"), CASES, ids=[f"{'c' if s.classes else s.chunk}{leaf}" for s, leaf in CASES]
)
def test_no_member_can_poison_the_others(spec: Spec, leaf: str, wild: float) -> None:
    learner, batch = make_learner(spec), batch_of(spec)
    state, _ = run(learner, warm_up(learner, N), batch, 0, BEFORE)
    sound = learner.copy(state)

    def spoil(name: str, values: Any) -> Any:
        if name != leaf:
            return values
        spoiled = np.array(values)
        spoiled.reshape(-1)[:: max(spoiled.size // 3, 1)] = wild
        return jnp.asarray(spoiled)

    tree, leaves = jax.tree.structure(state), [spoil(*each) for each in named(state)]
    spoiled = jax.tree.unflatten(tree, leaves)
    _, said = run(learner, spoiled, batch, BEFORE, N)
    _, expected = run(learner, sound, batch, BEFORE, N)
    assert np.isfinite(np.asarray(said.published)).all()
    late = slice(300, None)
    error = errors(spec, batch, said, BEFORE)[late].mean()
    best = errors(spec, batch, expected, BEFORE)[late].mean()
    assert error < 1.25 * best + 0.02


@pytest.mark.parametrize("spec", [NUMBERS, CHUNKS], ids=["row by row", "in chunks"])
def test_a_lost_member_is_reset_and_told_of(spec: Spec) -> None:
    learner, batch = make_learner(spec), batch_of(spec)
    state, _ = run(learner, warm_up(learner, N), batch, 0, BEFORE)
    params = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), state.champion.params)
    state = state._replace(champion=state.champion._replace(params=params))
    whole, said = run(learner, learner.copy(state), batch, BEFORE, N)
    (row,) = np.flatnonzero(np.asarray(said.lost))
    assert row < spec.chunk
    assert np.asarray(said.lost)[row] == 2.0
    names = pool.resettable(spec)
    assert dict(zip(names, counter.value(whole.resets).tolist(), strict=True)) == {
        name: int(place == 1) for place, name in enumerate(names)
    }
    cut, first = run(learner, state, batch, BEFORE, BEFORE + 3)
    cut, rest = run(learner, cut, batch, BEFORE + 3, N)
    again = [np.asarray(first.published)[:3], np.asarray(rest.published)[: N - BEFORE - 3]]
    np.testing.assert_array_equal(np.concatenate(again), np.asarray(said.published)[: N - BEFORE])
    for one, other in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
