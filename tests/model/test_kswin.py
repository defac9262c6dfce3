from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from river import drift
from scipy import stats

from headrace.model.drift import make_kswin
from headrace.model.drift.kswin import largest_gap, p_value, sample
from tests.support.folds import run

N = 6000
SIZE, NEWEST = 100, 30
FOLD = make_kswin()


def _observed(values: np.ndarray) -> Any:
    return jnp.asarray(values, jnp.float32), jnp.ones(len(values), bool)


_sample = jax.jit(lambda n: sample(n, SIZE - NEWEST, NEWEST, 0))


def _drawn(n: int) -> np.ndarray:
    return np.asarray(_sample(jnp.uint32(n)))


@pytest.mark.parametrize("size", [2, 5, 30, 100])
def test_p_value_is_scipys(size: int) -> None:
    assert p_value(1, size) == 1.0
    for gap in range(2, size):
        low, ranks = np.arange(gap) - 1000.0, np.arange(size)
        older, newer = np.concatenate([low, ranks[gap:]]), ranks + gap - 0.5
        found = stats.ks_2samp(older, newer, method="exact")
        assert found.statistic == pytest.approx(gap / size)
        assert p_value(gap, size) == pytest.approx(found.pvalue, rel=1e-9)


def test_fires_at_the_first_sample_whose_exact_p_value_is_alpha() -> None:
    """Replay with scipy what the fold does, from the samples that it draws."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(size=250), rng.normal(1.5, size=150), np.ones(200)])
    values = values.astype(np.float32)
    _, alarm = run(FOLD, _observed(np.pad(values, (0, N - len(values)))), stop=len(values))
    fired, start = [], 0
    for i in range(len(values)):
        n = i + 1 - start
        window = values[max(start, i + 1 - SIZE) : i + 1].astype(np.float64)
        if n < SIZE:
            continue
        older, newest = window[:-NEWEST], window[-NEWEST:]
        found = stats.ks_2samp(older[_drawn(n)], newest, method="exact")
        if found.pvalue <= 0.005 and found.statistic > 0.1:
            fired.append(i)
            start = i + 1
            assert float(alarm.statistic[i]) == pytest.approx(found.statistic)
            assert float(alarm.statistic[i]) >= float(alarm.threshold[i]) > 0.1
            assert float(alarm.window[i]) == SIZE
            assert float(alarm.before[i]) == pytest.approx(older.mean(), rel=1e-5, abs=1e-6)
            assert float(alarm.after[i]) == pytest.approx(newest.mean(), rel=1e-5, abs=1e-6)
    assert np.flatnonzero(alarm.fired).tolist() == fired
    assert len(fired) >= 2
    assert not np.asarray(alarm.warning).any()


def test_gap_is_scipys_where_values_are_equal() -> None:
    rng = np.random.default_rng(0)
    gap = jax.jit(largest_gap)
    for n in range(50):
        window = rng.integers(0, 6, SIZE).astype(np.float32)
        drawn = _drawn(n)
        found = stats.ks_2samp(window[:-NEWEST][drawn], window[-NEWEST:], method="asymp")
        assert int(gap(window, drawn)) / NEWEST == pytest.approx(found.statistic)


def test_draws_without_replacement_each_place_as_often() -> None:
    drawn = np.asarray(jax.vmap(_sample)(jnp.arange(1000, dtype=jnp.uint32)))
    assert (drawn.sum(axis=1) == 30).all()
    often = drawn.mean(axis=0)
    assert abs(often - 3 / 7).max() < 5 * np.sqrt(3 / 7 * 4 / 7 / 1000)
    together = (drawn[:, 0] & drawn[:, 1]).mean()
    assert together == pytest.approx(30 / 70 * 29 / 69, abs=0.05)
    other = np.asarray(sample(jnp.uint32(7), 70, 30, 1))
    assert (other != drawn[7]).any()


def test_fires_as_often_and_as_soon_as_river() -> None:
    """The draws differ, so this compares counts and delays over several streams."""
    length, change = 550, 500
    fold = make_kswin(0.05)
    detectors = [drift.KSWIN(alpha=0.05, seed=seed) for seed in range(4)]
    early: dict[str, list[int]] = {"river": [], "here": []}
    delays: dict[str, list[int]] = {"river": [], "here": []}
    for seed, detector in enumerate(detectors):
        values = np.random.default_rng(seed).normal(size=length)
        values[change:] += 4.0
        fired = []
        for i, x in enumerate(values.tolist()):
            detector.update(x)
            if detector.drift_detected:
                fired.append(i)
        _, alarm = run(fold, _observed(np.pad(values, (0, N - length))), stop=length)
        for name, events in (("river", fired), ("here", np.flatnonzero(alarm.fired).tolist())):
            early[name].append(sum(i < change for i in events))
            delays[name] += [i - change for i in events if i >= change][:1]
    assert sum(early["river"]) >= 8
    assert sum(early["here"]) == pytest.approx(sum(early["river"]), rel=0.5)
    assert np.mean(delays["here"]) == pytest.approx(np.mean(delays["river"]), abs=10)


def test_unknown_values_do_not_move_an_alarm() -> None:
    values = np.repeat(np.array([0, 5], np.float32), 200) + np.random.default_rng(1).random(400)
    places = np.sort(np.random.default_rng(5).choice(N, len(values), replace=False))
    x, known = np.full(N, 77.0, np.float32), np.zeros(N, bool)
    x[places], known[places] = values, True
    _, expected = run(FOLD, _observed(np.pad(values, (0, N - 400))), stop=400)
    _, alarm = run(FOLD, (jnp.asarray(x), jnp.asarray(known)))
    assert np.flatnonzero(alarm.fired).tolist() == places[np.flatnonzero(expected.fired)].tolist()
    assert np.asarray(alarm.fired).any()


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 0.0}, {"alpha": 1.0}, {"window_size": 59}, {"stat_size": 1}],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"KSWIN's {name} is .*: expected"):
        make_kswin(**settings)


def test_alpha_that_so_few_values_never_reach_is_named() -> None:
    with pytest.raises(ValueError, match=r"KSWIN's alpha is 0\.005: expected a number from 0\.1"):
        make_kswin(0.005, window_size=8, stat_size=3)
