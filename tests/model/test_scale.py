"""The running scale: numpy's moments on ordinary values, and use after extraordinary ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headrace.model import scale


@jax.jit
def after(state: scale.ScaleState, values: Any) -> scale.ScaleState:
    """Take in f32[n, N], row by row."""
    return jax.lax.scan(lambda s, row: (scale.update(s, row[None]), None), state, values)[0]


def moments(state: scale.ScaleState) -> tuple[float, float]:
    return float(state.mean[0]), float(scale.deviation(state)[0])


def test_ordinary_values_have_the_moments_that_numpy_gives() -> None:
    values = np.random.default_rng(0).normal(5, 3, (5000, 2)).astype(np.float32)
    state = after(scale.init(2), values)
    assert np.allclose(state.mean, values.mean(0), rtol=1e-4)
    assert np.allclose(scale.deviation(state), values.std(0), rtol=1e-4)


@pytest.mark.parametrize("outlier", [1e4, -1e12, 1e30, -3e38])
def test_an_outlier_of_any_size_does_little(outlier: float) -> None:
    values = np.random.default_rng(0).normal(5, 3, (6000, 1)).astype(np.float32)
    values[3000] = outlier
    mean, deviation = moments(after(scale.init(1), values))
    assert mean == pytest.approx(5, abs=0.5)
    assert deviation == pytest.approx(3, rel=0.7)


@pytest.mark.parametrize("shift", [1e3, 1e6, -1e9])
def test_a_shift_of_the_level_is_within_bounds_again_soon(shift: float) -> None:
    rng = np.random.default_rng(0)
    state = after(scale.init(1), rng.normal(5, 3, (20_000, 1)).astype(np.float32))
    shifted = rng.normal(5, 3, (300, 1)).astype(np.float32) + np.float32(shift)
    state = after(state, shifted)
    inputs = scale.transform(state, jnp.asarray(shifted[-100:]))
    assert np.abs(inputs).max() < scale.CLIP


def test_extraordinary_values_are_inputs_within_bounds() -> None:
    state = after(scale.init(1), np.random.default_rng(0).normal(5, 3, (100, 1)))
    inputs = scale.transform(state, jnp.array([[3e38], [-3e38], [np.nan], [np.inf]]))[:, 0]
    assert inputs.tolist() == [scale.CLIP, -scale.CLIP, 0.0, scale.CLIP]
