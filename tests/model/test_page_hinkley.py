from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from river import drift

from headrace.model.drift import make_page_hinkley
from tests.support.folds import run

LONGEST = 100_000  # one compilation serves streams of all lengths


def _observed(values: np.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    values = np.pad(values, (0, max(0, LONGEST - len(values))))
    return jnp.asarray(values, jnp.float32), jnp.ones(len(values), bool)


def _streams() -> dict[str, np.ndarray]:
    streams = {}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rates = np.repeat(rng.uniform(0.05, 0.8, 6), (3000, 800, 5000, 200, 4000, 7000))
        streams[f"errors {seed}"] = (rng.random(len(rates)) < rates).astype(np.float32)
        streams[f"losses {seed}"] = rng.gamma(1 + rates, 1.0).astype(np.float32)
        streams[f"signed {seed}"] = rng.normal(2 - 4 * rates, 1.0).astype(np.float32)
    rng = np.random.default_rng(11)
    streams["long errors"] = (rng.random(100_000) < 0.3).astype(np.float32)
    streams["gradual"] = (rng.random(50_000) < np.linspace(0.1, 0.6, 50_000)).astype(np.float32)
    streams["constant"] = np.full(20_000, 0.3, np.float32)
    streams["falls at once"] = np.repeat(np.array([90.0, -90.0], np.float32), 50)
    return streams


STREAMS = _streams()
SETTINGS: list[dict[str, Any]] = [
    {},
    {"threshold": 10.0, "delta": 0.05},
    {"threshold": 20.0, "delta": 0.0, "alpha": 0.99, "min_instances": 500},
]
FOLDS = [make_page_hinkley(**settings) for settings in SETTINGS]


def _river(values: np.ndarray, settings: dict[str, Any]) -> list[tuple[float, ...]]:
    """Return (event, mean since the last alarm, fading mean, statistic, values) of alarms."""
    detector, seen, recent = drift.PageHinkley(**settings), list[float](), 0.0
    alarms: list[tuple[float, ...]] = []
    for i, x in enumerate(values.tolist()):
        detector.update(x)
        seen.append(x)
        recent += (x - recent) / min(len(seen), 32)
        if detector.drift_detected:
            up = detector._sum_increase - detector._min_increase
            down = detector._max_decrease - detector._sum_decrease
            alarms.append((i, float(np.mean(seen)), recent, max(up, down), len(seen)))
            seen, recent = [], 0.0
    return alarms


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_fires_where_river_does_and_says_from_where_to_where(name: str, setting: int) -> None:
    values = STREAMS[name]
    expected = _river(values, SETTINGS[setting])
    _, alarm = run(FOLDS[setting], _observed(values), stop=len(values))
    (fired,) = np.nonzero(np.asarray(alarm.fired))
    assert fired.tolist() == [e[0] for e in expected]
    assert not np.asarray(alarm.warning).any()
    numbers = np.stack(alarm[2:], axis=1)
    assert not numbers[~np.asarray(alarm.fired)].any()
    assert (alarm.threshold[fired] == np.float32(SETTINGS[setting].get("threshold", 50.0))).all()
    evidence = np.stack([alarm.before, alarm.after, alarm.statistic, alarm.window], axis=1)
    if expected:
        np.testing.assert_allclose(evidence[fired], [e[1:] for e in expected], rtol=1e-5, atol=1e-5)


def test_the_streams_have_drift_to_find() -> None:
    counts = {name: len(_river(values, {})) for name, values in STREAMS.items()}
    assert sum(counts[f"errors {seed}"] for seed in range(5)) >= 5
    assert counts["falls at once"] >= 1
    assert counts["constant"] == 0


def test_mean_does_not_decay_with_the_length_of_the_stream() -> None:
    """A million values on, a plain float32 mean is off by 1e-5; this one is exact to float32."""
    values = np.random.default_rng(0).random(1_000_000).astype(np.float32)
    state, alarm = run(make_page_hinkley(threshold=1e6), _observed(values))
    assert not np.asarray(alarm.fired).any()
    mean = float(state[1]) + float(state[2])
    assert mean == pytest.approx(values.astype(np.float64).mean(), rel=2e-9)


def test_small_deviations_are_not_lost_in_a_large_sum() -> None:
    """A plain float32 sum reaches this threshold at another event."""
    noise = 0.2 * np.random.default_rng(4).random(LONGEST)
    values = 0.3 + noise + np.where(np.arange(LONGEST) < 30_000, 0, 0.05)
    settings: dict[str, Any] = {"threshold": 1000.0, "delta": 1e-4, "alpha": 1.0}
    values = values.astype(np.float32)
    _, alarm = run(make_page_hinkley(**settings), _observed(values))
    (fired,) = np.nonzero(np.asarray(alarm.fired))
    assert fired.tolist() == [e[0] for e in _river(values, settings)] != []


@pytest.mark.parametrize(
    "settings", [{"delta": -1.0}, {"threshold": 0.0}, {"min_instances": 0}, {"alpha": 1.5}], ids=str
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"Page-Hinkley's {name} is .*: expected"):
        make_page_hinkley(**settings)
