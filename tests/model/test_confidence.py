from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammainc, gammaln

from headrace.model.confidence import Gains, add, asymptotic, bounded

STREAMS, STEPS = 400, 1000
Values = NDArray[np.float64]


def so_far(values: Values) -> Gains:
    """Sum up streams [S, T] after each of their steps."""
    count = np.broadcast_to(np.arange(1.0, values.shape[1] + 1), values.shape)
    return Gains(count, *(np.cumsum(each, 1) for each in (values, values**2, abs(values) ** 3)))


def missed(low: Values, high: Values, means: Values) -> float:
    """Return the share of streams whose mean so far is ever out of bounds."""
    truth = np.cumsum(np.broadcast_to(means, (1, STEPS)), 1) / np.arange(1, STEPS + 1)
    outside = (truth < np.asarray(low)) | (np.asarray(high) < truth)
    return float(outside.any(1).mean())


def normal(gains: Gains) -> tuple[Values, Values]:
    """Return the interval of a test for one look, from 100 gains on."""
    mean = gains.total / gains.events
    spread = np.sqrt(np.maximum(gains.squares / gains.events - mean**2, 0) / gains.events)
    width = np.where(gains.events < 100, np.inf, 1.96 * spread)
    return mean - width, mean + width


def gamma_exponential(squares: float) -> float:
    """Find the bound of Howard et al. (2021), proposition 9, from its closed form."""
    rare = 2 * np.log(1 / 0.05)
    rho = 500 / (rare + np.log(1 + rare))

    def log_mixture(total: float) -> float:
        shape, reach = squares + rho, total + squares + rho
        fixed = rho * np.log(rho) - gammaln(rho) - np.log(gammainc(rho, rho))
        moved = gammaln(shape) + np.log(gammainc(shape, reach)) - shape * np.log(reach)
        return float(fixed + moved + total + squares)

    return float(brentq(lambda total: log_mixture(total) + np.log(0.025), 0, 1e6, xtol=1e-9))


# gamma_exponential_mixture_bound(v, alpha=.025, v_opt=500, c=1, alpha_opt=.025) of confseq 0.0.11
CONFSEQ = {
    0.01: 21.63052737,
    1: 21.81375234,
    7: 22.89763309,
    40: 28.22421213,
    500: 70.94656331,
    3_000: 177.86785569,
    100_000: 1163.75313852,
    10_000_000: 13435.49096876,
}


@pytest.mark.parametrize("squares", CONFSEQ)
def test_the_bound_is_that_of_the_paper(squares: float) -> None:
    low, high = bounded(Gains(1e9, 0.0, squares))
    assert float(high) * 1e9 == pytest.approx(CONFSEQ[squares], rel=1e-4)
    assert float(high) * 1e9 == pytest.approx(gamma_exponential(squares), rel=1e-4)
    assert float(low) == -float(high)


@pytest.mark.parametrize("disagree", [0.02, 0.2, 1.0])
def test_the_mean_of_bounded_gains_is_within_at_all_times(disagree: float) -> None:
    rng = np.random.default_rng(7)
    share = 0.5 + 0.4 * np.sin(np.arange(STEPS) / 200)  # of the rival: the two take turns
    wins = np.where(rng.random((STREAMS, STEPS)) < share, 1.0, -1.0)
    values = wins * (rng.random((STREAMS, STEPS)) < disagree)
    means = disagree * (2 * share - 1)
    gains = so_far(values)
    low, high = bounded(gains)
    assert missed(low, high, means) <= 0.05
    assert missed(*normal(gains), means) > 0.1


def test_gains_that_answer_what_came_before_are_covered_too() -> None:
    """The rival is ahead when it was behind: what it is expected to gain depends on its past."""
    rng = np.random.default_rng(8)
    total, truth = np.zeros(STREAMS), np.zeros(STREAMS)
    values, truths = np.empty((STREAMS, STEPS)), np.empty((STREAMS, STEPS))
    for step in range(STEPS):
        chance = np.where(total > 0, 0.4, 0.6)
        values[:, step] = np.where(rng.random(STREAMS) < chance, 1.0, -1.0)
        truth += 2 * chance - 1
        total += values[:, step]
        truths[:, step] = truth / (step + 1)
    low, high = bounded(so_far(values))
    outside = (truths < np.asarray(low)) | (np.asarray(high) < truths)
    assert outside.any(1).mean() <= 0.05


def test_what_is_ahead_is_shown_to_be() -> None:
    """Where 100 events of 2,000 are decided 75 to 25, one look needs 0.020, all of them 0.036."""
    low, high = bounded(Gains(2000, 50.0, 100.0))
    assert 0 < float(low) < 0.025 < float(high) < 0.05
    assert float(high - low) < 1.85 * 2 * 1.96 * np.sqrt(100) / 2000
    assert tuple(map(float, bounded(Gains()))) == (-1.0, 1.0)


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "drifting", "bursts"])
def test_the_mean_of_gains_without_bounds_is_within_at_all_times(kind: str) -> None:
    rng = np.random.default_rng(9)
    shape, steps = (STREAMS, STEPS), np.arange(STEPS)
    means = np.sin(steps / 200) if kind == "drifting" else np.zeros(STEPS)
    values = {
        "normal": lambda: rng.normal(size=shape),
        "heavy": lambda: rng.standard_t(4, shape),
        "skewed": lambda: rng.exponential(size=shape) - 1,
        "drifting": lambda: rng.normal(size=shape) + means,
        "bursts": lambda: rng.normal(size=shape) * np.where(steps // 200 % 2, 3.0, 1.0),
    }[kind]()
    gains = so_far(50 * values)
    low, high = asymptotic(gains)
    assert missed(low, high, 50 * means) <= 0.05
    assert np.isfinite(np.asarray(low)[:, -1]).mean() > 0.9
    if kind == "normal":
        assert missed(*normal(gains), means) > 0.15


# normal_mixture_bound(v, alpha=.05, v_opt=1000, alpha_opt=.05, is_one_sided=False) of confseq
# 0.0.11: theorem 2.2 of Waudby-Smith et al. (2024) for a variance of 1
@pytest.mark.parametrize(
    ("events", "width"), [(300, 55.41954578), (1_000, 95.98173584), (40_000, 686.78810943)]
)
def test_the_asymptotic_bound_is_that_of_the_paper(events: int, width: float) -> None:
    spread, mean = 3.0, 0.4
    sums = (events * mean, events * spread**2, 1.6 * events * spread**3)
    low, high = asymptotic(Gains(events, *sums))
    assert float(low) == pytest.approx(mean - spread * width / events, rel=1e-4)
    assert float(high) == pytest.approx(mean + spread * width / events, rel=1e-4)


@pytest.mark.parametrize(
    "values",
    [np.zeros(5000), np.ones(99), np.r_[np.ones(5000), 1e4], np.r_[np.zeros(5000), np.ones(50)]],
    ids=["nothing", "too few", "one outweighs all", "hardly any"],
)
def test_a_few_gains_without_bounds_say_nothing(values: Values) -> None:
    low, high = asymptotic(add(Gains(), values))
    assert (float(low), float(high)) == (-np.inf, np.inf)


def test_gains_come_in_any_pieces_and_inside_a_compiled_loop() -> None:
    values = np.random.default_rng(1).integers(-1, 2, 500).astype(np.float64)
    whole, parts = add(Gains(), values), Gains()
    for part in np.split(values, [0, 1, 1, 17, 300]):
        parts = add(parts, part)
    assert parts == whole

    @jax.jit
    def learn(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        fresh = Gains(jnp.int32(0), *(jnp.float32(0.0) for _ in range(3)))
        gains = jax.lax.fori_loop(0, len(rows), lambda at, so: add(so, rows[at]), fresh)
        low, high = bounded(gains)
        return low, high

    inside = learn(jnp.asarray(values, jnp.float32))
    assert np.asarray(inside) == pytest.approx(np.asarray(bounded(whole)), abs=1e-6)
