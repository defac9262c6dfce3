from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from river import drift

from headrace.model.drift import make_adwin
from headrace.model.drift.adwin import window_mean, window_width
from tests.support.folds import run

LONGEST = 100_001  # one compilation serves streams of all lengths
DELTAS = (0.002, 0.1)
ADWIN = {delta: make_adwin(delta) for delta in DELTAS}


def _observed(values: np.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    values = np.pad(values, (0, LONGEST - len(values)))
    return jnp.asarray(values, jnp.float32), jnp.ones(LONGEST, bool)


def _rates(seed: int, lengths: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.full(n, rng.uniform(0.05, 0.6)) for n in lengths])


def _errors(seed: int, rates: np.ndarray) -> np.ndarray:
    return (np.random.default_rng(seed + 1000).random(len(rates)) < rates).astype(np.float32)


def _losses(seed: int, rates: np.ndarray) -> np.ndarray:
    return np.random.default_rng(seed + 2000).gamma(1 + rates, 1.0).astype(np.float32)


def _streams() -> dict[str, np.ndarray]:
    streams = {}
    abrupt = (1500, 400, 3000, 64, 2500, 5000)
    for seed in range(4):
        streams[f"abrupt errors {seed}"] = _errors(seed, _rates(seed, abrupt))
        streams[f"abrupt losses {seed}"] = _losses(seed, _rates(seed, abrupt))
        streams[f"losses about 100 {seed}"] = np.float32(100) + _losses(seed, _rates(seed, abrupt))
        streams[f"gradual errors {seed}"] = _errors(seed, np.linspace(0.1, 0.6, 20_000))
    streams["long errors"] = _errors(7, _rates(7, (60_000, 40_000)))
    streams["long losses"] = _losses(8, _rates(8, (30_000, 70_000)))
    streams["steady errors"] = _errors(9, np.full(100_000, 0.25))
    streams["constant"] = np.full(20_000, 0.3, np.float32)
    streams["constant far from 0"] = np.full(100_000, 12345.678, np.float32)
    streams["far from 0"] = np.float32(2**20) + _errors(10, np.linspace(0.1, 0.6, 20_000))
    streams["constant after an outlier"] = np.array([1000.0, *np.full(20_000, 0.3)], np.float32)
    streams["one jump"] = np.repeat(np.array([0, 1], np.float32), 1000)
    streams["shorter than a check"] = np.repeat(np.array([0, 9], np.float32), 15)
    return streams


STREAMS = _streams()


def _river(values: np.ndarray, delta: float) -> list[tuple[int, float, float]]:
    """Return (event, mean of the dropped, mean of the kept) of River's alarms."""
    detector, alarms, start = drift.ADWIN(delta=delta), [], 0
    for i, x in enumerate(values.tolist()):
        detector.update(x)
        if detector.drift_detected:
            cut = i + 1 - int(detector.width)
            window = values[start : i + 1].astype(np.float64)
            alarms.append((i, window[: cut - start].mean(), window[cut - start :].mean()))
            start = i + 1
    return alarms


@pytest.mark.parametrize("name", STREAMS)
def test_fires_where_river_does_and_says_from_where_to_where(name: str) -> None:
    for delta in DELTAS:
        expected = _river(STREAMS[name], delta)
        _, alarm = run(ADWIN[delta], _observed(STREAMS[name]), stop=len(STREAMS[name]))
        (fired,) = np.nonzero(np.asarray(alarm.fired))
        assert fired.tolist() == [i for i, _, _ in expected]
        scale = np.abs(STREAMS[name]).max()
        evidence = np.stack([alarm.before, alarm.after], axis=1)[fired]
        if expected:
            np.testing.assert_allclose(
                evidence, [e[1:] for e in expected], rtol=1e-6, atol=1e-6 * scale
            )


def test_the_streams_have_drift_to_find() -> None:
    counts = {name: len(_river(values, 0.002)) for name, values in STREAMS.items()}
    assert all(counts[f"abrupt errors {seed}"] >= 2 for seed in range(4))
    assert all(counts[f"gradual errors {seed}"] >= 3 for seed in range(4))
    assert counts["one jump"] == 1
    assert counts["constant"] == counts["steady errors"] == 0


@pytest.mark.parametrize("name", ["abrupt errors 0", "losses about 100 1", "gradual errors 2"])
def test_statistic_and_threshold_are_those_of_a_cut_of_the_whole_window(name: str) -> None:
    """Of what all cuts of the window have, worked out in float64, the alarm names one."""
    values = STREAMS[name]
    _, alarm = run(ADWIN[0.002], _observed(values), stop=len(values))
    start = 0
    for at in np.flatnonzero(alarm.fired):
        window = values[start : at + 1].astype(np.float64)
        start, n = int(at) + 1, len(window)
        assert float(alarm.window[at]) == n
        old = np.arange(5, n - 4)
        sums = np.cumsum(window)[old - 1]
        difference = np.abs(sums / old - (window.sum() - sums) / (n - old))
        confidence = np.log(2 * np.log(n) / 0.002)
        inverse = 1 / (old - 4) + 1 / (n - old - 4)
        bound = np.sqrt(2 * inverse * window.var() * confidence) + 2 / 3 * confidence * inverse
        found = [float(alarm.statistic[at]), float(alarm.threshold[at])]
        off = np.abs(np.stack([difference, bound], axis=1) / found - 1).max(axis=1)
        assert off.min() < 1e-4
        assert found[0] > found[1]
        # buckets bound where a cut can be: none is clearer than the clearest of all cuts
        assert found[0] - found[1] <= (difference - bound).max() + 1e-5
    assert start > 0
    assert not np.stack(alarm[2:])[:, ~np.asarray(alarm.fired)].any()
    assert not np.asarray(alarm.warning).any()


def test_window_is_rivers_window() -> None:
    values = STREAMS["abrupt losses 1"]
    fold, detector = ADWIN[0.002], drift.ADWIN()
    state, at = fold.init(), 0
    assert int(window_width(state)) == 0
    assert float(window_mean(state)) == 0.0
    for stop in (1, 5, 31, 32, 33, 128, 129, 160, 161, 1000, 2345, 6000, len(values)):
        for x in values[at:stop].tolist():
            detector.update(x)
        state, _ = run(fold, _observed(values), at, stop, state)
        at = stop
        assert not detector.drift_detected
        assert int(window_width(state)) == int(detector.width)
        assert float(window_mean(state)) == pytest.approx(detector.estimation, rel=1e-5)


def test_window_is_empty_after_an_alarm() -> None:
    values = STREAMS["one jump"]
    (at,) = (i for i, _, _ in _river(values, 0.002))
    state, _ = run(ADWIN[0.002], _observed(values), stop=at + 1)
    assert int(window_width(state)) == 0


def test_unknown_values_do_not_move_an_alarm() -> None:
    values = STREAMS["abrupt errors 2"][:4000]
    known = np.random.default_rng(5).random(2 * len(values)) < 0.5
    x = np.full(len(known), 77.0, np.float32)
    places = np.flatnonzero(known)
    values = values[: len(places)]
    places = places[: len(values)]
    x[places] = values
    padding = (0, LONGEST - len(x))
    observed = (jnp.asarray(np.pad(x, padding)), jnp.asarray(np.pad(known, padding)))
    _, alarm = run(ADWIN[0.002], observed)
    (fired,) = np.nonzero(np.asarray(alarm.fired))
    expected = [places[i] for i, _, _ in _river(values, 0.002)]
    assert fired.tolist() == expected != []


def test_full_window_drops_its_oldest_values() -> None:
    fold = ADWIN[0.002]
    empty = fold.init()
    levels = len(empty.n_older)
    sizes = 32 * 2 ** np.arange(levels)
    full = empty._replace(
        recent=jnp.full(128, 3.0).at[96:].set(0.0),
        origin=jnp.float32(3.0),
        n_recent=jnp.int32(96),
        n_older=jnp.full(levels, 5, jnp.int32),
    )
    before = int(window_width(full))
    assert before == 96 + 5 * sizes.sum() < 2**24
    state, alarm = run(fold, _observed(np.full(32, 3.0)), stop=32, state=full)
    assert not np.asarray(alarm.fired).any()
    assert int(window_width(state)) == before + 32 - 2 * sizes[-1]
    assert float(window_mean(state)) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan")])
def test_delta_out_of_range_is_named(delta: float) -> None:
    with pytest.raises(ValueError, match=r"ADWIN's delta is .*: expected .* between 0 and 1"):
        make_adwin(delta)
