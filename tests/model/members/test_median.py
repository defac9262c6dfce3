from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model import target
from headrace.model.members import Asked, Labels, median
from headrace.model.spec import Spec

SPEC = Spec(numeric=1)
labels = st.one_of(
    st.just(np.nan),
    st.sampled_from([0.0, 1.0, -3.0]),
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


def asked(past: Any, goals: target.TargetState) -> Asked:
    none = jnp.zeros(0)
    return Asked(none, none, past, none, goals, jnp.bool_(True))


middle = jax.jit(median.middle)
meet = jax.jit(target.update)


@jax.jit
def learn(state: median.MedianState, label: Any) -> median.MedianState:
    row = asked(jnp.zeros(0), target.init())
    return median.update(SPEC, state, row, Labels(label, label, None))


@settings(deadline=None, max_examples=30)
@given(st.lists(labels, max_size=600), st.integers(0, 2**32 - 1))
def test_the_middle_is_numpys_median_of_the_newest_labels(drawn: list[float], seed: int) -> None:
    more = np.random.default_rng(seed).normal(size=300).tolist()
    state, known = median.init(SPEC), list[float]()
    for label in drawn[:300] + more + drawn[300:]:
        newest = known[-median.NEWEST :]
        expected = np.median(np.array(newest, np.float32)) if newest else np.nan
        np.testing.assert_allclose(middle(state), expected, rtol=1e-6, atol=1e-37)
        state = learn(state, np.float32(label))
        known += [] if np.isnan(label) else [label]


def test_nothing_is_learned_of_classes() -> None:
    assert median.init(Spec(numeric=1, classes=3)).labels.size == 0


@pytest.mark.parametrize(
    "few", [[], [2.0], [2.0, 2.0], [5.0, 1.0], [5.0, 1.0, 1.0, 9.0], [3, 1, 2]]
)
def test_an_entitys_median_is_numpys(few: list[float]) -> None:
    goals = target.init()
    for label in np.random.default_rng(0).normal(size=100):
        goals = meet(goals, jnp.float32([label]), jnp.float32([jnp.nan]))
    missing = [np.nan] * (SPEC.past_labels - len(few))
    past = jnp.asarray([[*few, *missing]], jnp.float32)
    said = median.predict(SPEC, median.init(SPEC), asked(past, goals))
    assert said.shape == (2, 1, 1)
    assert float(said[0, 0, 0]) == 0.0  # no labels at all: nothing is said
    expected = target.value(goals, said[1, 0], past[:, 0])[0]
    wanted = np.median(few) if few else target.anchor(goals, past[:, 0])[0]
    np.testing.assert_allclose(expected, wanted, rtol=1e-5)
