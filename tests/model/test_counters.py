"""Counts near 2^24, 2^31, 2^32 and beyond: a learner does not notice them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import counter, memory
from headrace.model.batch import empty_batch
from headrace.model.drift import make_kswin
from headrace.model.learner import make_learner, warm_up
from headrace.model.metrics import tally
from headrace.model.spec import Schedule, Spec

EDGES = [2**24 - 3, 2**31 - 3, 2**32 - 3, 2**33 - 3, 10**15]


def halves(count: int) -> jax.Array:
    return jnp.array([count & 0xFFFFFFFF, count >> 32], jnp.uint32)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 2**31 - 1))
def test_a_counter_counts_as_integers_do(count: int, more: int) -> None:
    after = counter.add(halves(count), jnp.uint32(more))
    assert int(counter.value(after)) == count + more
    assert int(counter.clipped(after)) == min(count + more, 2**31 - 1)


@pytest.mark.parametrize("edge", EDGES)
def test_steps_go_on_and_predictions_stay(edge: int) -> None:
    n, rng = 12, np.random.default_rng(0)
    schedule = Schedule("exponential", steps=50)
    spec = Spec(numeric=2, classes=2, neighbours=10, schedule=schedule, detectors=())
    learner, batch = make_learner(spec), empty_batch(spec, n)
    batch.numeric[:] = rng.normal(size=(n, 2))
    batch.label[:] = rng.integers(0, 2, n)
    late = [
        learner.run(warm_up(learner, n)._replace(step=halves(steps)), batch, np.int32(n))
        for steps in (edge, 10**4)  # the schedule has ended at both
    ]
    steps = counter.value(late[0][1].step)
    assert steps.tolist() == list(range(edge, edge + n))
    assert int(counter.value(late[0][0].step)) == edge + n
    np.testing.assert_array_equal(*(outcome.published for _, outcome in late))


@pytest.mark.parametrize("edge", [2**24, 2**31, 2**32, 2**46])
def test_metrics_count_on(edge: int) -> None:
    sums = jnp.zeros((3, 2)).at[0].set(float(edge))
    for _ in range(5):
        weights = tally.weights(jnp.array([True]), tally.fading_factor(1000))
        sums = tally.add(sums, jnp.ones((1, 2)), *weights)
    assert tally.spans(sums)["all"].tolist() == [edge + 5.0, edge + 5.0]


def test_kswin_notices_a_change_past_the_end_of_its_count() -> None:
    fold, rng = make_kswin(), np.random.default_rng(0)

    @jax.jit
    def run(state: Any, values: Any) -> Any:
        return jax.lax.scan(lambda s, x: fold.update(s, (x, jnp.bool_(True))), state, values)

    state, _ = run(fold.init(), rng.normal(size=150).astype(np.float32))
    _, alarms = run(
        state._replace(n=jnp.uint32(2**32 - 5)),
        np.append(rng.normal(size=5), 20 + rng.normal(size=60)).astype(np.float32),
    )
    assert np.asarray(alarms.fired).any()


ENTITIES = st.lists(st.integers(1, 9), min_size=1, max_size=60)
ONE_SET = Spec(numeric=1, entities=memory.WAYS, horizon=1)


@jax.jit
def visit_once(state: Any, entity: jax.Array) -> Any:
    """Look an entity up, and store that it was met; return whether it had been met before."""
    state, slot, found = memory.lookup(ONE_SET, state, entity)
    return memory.store(state, slot, found._replace(seen=jnp.int32(1))), found.seen


@settings(max_examples=30, deadline=None)
@given(ENTITIES)
def test_the_entity_visited_longest_ago_makes_room(visits: list[int]) -> None:
    state, held = memory.init(ONE_SET), list[int]()  # the oracle: newest last
    left = 0
    for visit in visits:
        state, seen = visit_once(state, jnp.array([7, visit], jnp.uint32))
        assert int(seen) == (visit in held)
        if visit in held:
            held.remove(visit)
        elif len(held) == memory.WAYS:
            held.pop(0)
            left += 1
        held.append(visit)
    assert int(counter.value(state.left)) == left


def test_an_entity_that_comes_for_ever_keeps_its_turns() -> None:
    n, spec = 60, Spec(numeric=1, horizon=3, neighbours=10, entities=4, detectors=())
    learner, batch = make_learner(spec), empty_batch(spec, n)
    batch.numeric[:, 0] = np.arange(n) % 7
    batch.label[:] = np.arange(n) % 7
    state, outcome = learner.run(warm_up(learner, n), batch, np.int32(n))
    assert 3 <= int(np.asarray(state.memory.slots.seen).max()) < 6
    assert np.abs(np.asarray(outcome.published)[-8:-3, 0] - batch.label[-5:]).mean() < 1
