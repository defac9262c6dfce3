from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.typing import NDArray

from headrace.model import scale, target
from headrace.model.batch import empty_batch
from headrace.model.learner import make_learner, warm_up
from headrace.model.members import Asked, Labels, autoregression
from headrace.model.members.autoregression import DRIFT, KEPT, LONGEST, NEAR, PRIOR
from headrace.model.spec import ORDER, Spec

SPEC = Spec(numeric=1, horizon=1, rates=(3e-3,), detectors=())


def walk(n: int, seed: int) -> NDArray[Any]:
    """Draw a series whose steps go on as 0.6 of the last one less 0.3 of the one before."""
    rng = np.random.default_rng(seed)
    steps = np.zeros(n)
    for i in range(2, n):
        steps[i] = 0.6 * steps[i - 1] - 0.3 * steps[i - 2] + rng.normal()
    return steps.cumsum() + 50.0


def pasts(series: NDArray[Any]) -> NDArray[Any]:
    """List the last labels before each, newest first, f32[N, ORDER + 1]."""
    padded = np.concatenate([np.full(ORDER + 1, np.nan), series])
    return np.lib.stride_tricks.sliding_window_view(padded, ORDER + 1)[:-1, ::-1].copy()


def learn(state: Any, goals: target.TargetState, past: Array, goal: Array) -> Any:
    """Let one goal be learned, which followed labels."""
    row = Asked(jnp.zeros(0), jnp.zeros(0), past, jnp.zeros(0), goals, jnp.bool_(True))
    return autoregression.update(SPEC, state, row, Labels(goal, goal, None))


def test_weights_are_those_of_recursive_least_squares() -> None:
    """Written again in float64, as Haykin gives it, with Huber's weights and the same bounds."""
    series = walk(300, 1)
    series[100] += 10.0  # a spike
    past, labels = pasts(series), series.copy()
    labels[rng_choice(300, 30)] = np.nan
    goals = target.init()
    for at in range(300):
        label, last = jnp.asarray(series[at : at + 1]), jnp.asarray(past[at, :1])
        goals = target.update(goals, label, last)
    deviation = float(scale.deviation(goals.rest)[0])
    state = autoregression.init(SPEC)
    fast = jax.jit(learn)
    weights, spread = np.zeros(ORDER), PRIOR * np.eye(ORDER)
    for at in range(300):
        before = past[at]
        step = np.nan_to_num(np.clip((before[:-1] - before[1:]) / deviation, -LONGEST, LONGEST))
        moved = (labels[at] - before[0]) / deviation
        goal = target.goal(goals, jnp.asarray(labels[at : at + 1]), jnp.asarray(before[:1]))
        goal = jnp.where(np.isnan(labels[at]), jnp.nan, goal)
        state = fast(state, goals, jnp.asarray(before, jnp.float32), goal[0])
        if np.isnan(moved):
            continue
        miss = moved - step @ weights
        weight = NEAR / max(NEAR, abs(miss))
        gain = weight * spread @ step / (KEPT + weight * step @ spread @ step)
        weights = weights + gain * miss
        spread = (spread - np.outer(gain, step) @ spread) / KEPT + DRIFT * np.eye(ORDER)
        shrunk = np.sqrt(np.minimum(1, PRIOR / np.diag(spread)))
        spread = spread * np.outer(shrunk, shrunk)
    np.testing.assert_allclose(state.weights, weights, atol=2e-4)
    np.testing.assert_allclose(state.spread, spread, atol=2e-5)


LONG = 300_000


def series_of(kind: str) -> NDArray[Any]:
    rng, time = np.random.default_rng(4), np.arange(LONG)
    drawn: dict[str, NDArray[Any]] = {
        "independent": rng.normal(size=LONG),
        "few values": rng.choice([-10, -9, -3, -1, 1, 2, 3, 10], LONG),
        "a ramp": time % 5_000 * 1.0,  # all steps are alike: nothing tells their weights apart
        "a wave": np.sin(time / 50),
        "a walk": rng.normal(size=LONG).cumsum(),
        "spikes": np.where(rng.random(LONG) < 1e-3, 1e6, 0.0),
        "constant, then alive": np.where(time < LONG // 2, 0.0, rng.normal(size=LONG)),
    }
    return drawn[kind].astype(np.float32)


@pytest.mark.parametrize(
    "kind",
    ["independent", "few values", "a ramp", "a wave", "a walk", "spikes", "constant, then alive"],
)
def test_a_long_life_leaves_the_spread_symmetric_and_positive(kind: str) -> None:
    """An asymmetry of one rounding would have grown 1e65-fold by then."""
    series = series_of(kind)
    goals = target.init()
    update = jax.jit(target.update)
    for at in range(1, 2_000):
        goals = update(goals, series[at : at + 1], series[at - 1 : at])

    @jax.jit
    def live(past: Array, labels: Array) -> autoregression.AutoregressionState:
        def step(state: Any, each: tuple[Array, Array]) -> tuple[Any, None]:
            before, label = each
            goal = target.goal(goals, label[None], before[:1])[0]
            return learn(state, goals, before, goal), None

        return jax.lax.scan(step, autoregression.init(SPEC), (past, labels))[0]

    past = jnp.asarray(pasts(series).astype(np.float32))
    weights, spread = map(np.asarray, live(past, jnp.asarray(series)))
    assert np.array_equal(spread, spread.T)
    assert np.linalg.eigvalsh(spread.astype(np.float64)).min() > 0
    assert np.abs(weights).max() < 3


def rng_choice(n: int, count: int) -> NDArray[Any]:
    return np.random.default_rng(2).choice(n, count, replace=False)


def test_a_series_that_goes_on_by_its_steps_is_soon_seen_through() -> None:
    """Near the best that is possible, 0.8 for steps of deviation 1, where no change has 0.95."""
    n = 1500
    series = walk(n, 3).astype(np.float32)
    learner = make_learner(SPEC)
    batch = empty_batch(SPEC, n)
    batch.numeric[:, 0] = batch.label[:] = series
    _, outcome = learner.run(warm_up(learner, n), batch, np.int32(n))
    said = np.asarray(outcome.published)[:-1, 0]
    possible = np.abs(np.random.default_rng(3).normal(size=n - 2)).mean()
    errors, no_change = np.abs(said - series[1:]), np.abs(np.diff(series))
    assert errors[300:].mean() < 1.05 * possible < 0.9 * no_change[300:].mean()


def test_the_first_label_is_expected_again() -> None:
    learner = make_learner(SPEC)
    batch = empty_batch(SPEC, 2)
    batch.numeric[:, 0] = batch.label[:] = [100.0, 101.0]
    _, outcome = learner.run(warm_up(learner, 2), batch, np.int32(2))
    first, second = np.asarray(outcome.published)[:, 0].tolist()
    assert first == 100.0
    assert 100.0 < second < 101.0  # which way it goes is not known yet
