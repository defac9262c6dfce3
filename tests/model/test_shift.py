from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from headrace.model.drift import shift
from headrace.model.drift.shift import FIRST, NEWEST, distances

COLUMNS = 5
N = 1500


def _psi(reference: np.ndarray, newest: np.ndarray) -> float:
    ends = np.quantile(reference, np.arange(1, 10) / 10, method="inverted_cdf")
    shares = (
        np.bincount(np.searchsorted(ends, part), minlength=10) / len(part)
        for part in (reference, newest)
    )
    p, q = (np.maximum(share, 1e-4) for share in shares)
    return float(np.sum((q - p) * np.log(q / p)))


def _seen(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)], np.float64)


def _rows(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.stack(
        [
            rng.normal(size=N),
            rng.normal(size=N).round(1),  # ties, and minus zeros
            rng.integers(0, 3, N) * 1e20,
            np.where(rng.random(N) < 0.4, np.nan, rng.gamma(1.0, 1.0, N)),
            np.where(rng.random(N) < 0.1, np.inf, rng.normal(-7.0, size=N)),
        ],
        axis=1,
    )
    rows[N // 2 :, 0] += 1.0
    rows[N // 2 :, 3] *= 4
    return rows.astype(np.float32)


@jax.jit
def _noted(state: shift.Rows, rows: jax.Array) -> shift.Rows:
    return jax.lax.scan(lambda state, row: (shift.note(state, row), None), state, rows)[0]


def _compare(rows: np.ndarray, state: shift.Rows | None = None) -> Any:
    state = _noted(shift.init(rows.shape[1]) if state is None else state, jnp.asarray(rows))
    return jax.device_get(jax.jit(shift.compare)(state))


@pytest.mark.parametrize("end", [FIRST + 20, FIRST + NEWEST, FIRST + NEWEST + 1, 901, 1299, N])
def test_statistics_are_scipys_and_numpys(end: int) -> None:
    rows = _rows()
    found = _compare(rows[:end])
    for column in range(COLUMNS):
        reference = _seen(rows[:FIRST, column])
        newest = _seen(rows[max(FIRST, end - NEWEST) : end, column])
        assert found.psi[column] == pytest.approx(_psi(reference, newest), rel=1e-4, abs=1e-5)
        expected = stats.ks_2samp(reference, newest, method="asymp").statistic
        assert found.ks[column] == pytest.approx(expected, abs=1e-6)


def test_says_which_columns_moved() -> None:
    assert not _compare(_rows()[: N // 2]).moved.any()
    found = _compare(_rows())
    assert found.moved.tolist() == [True, False, False, True, False]
    assert (found.moved == (found.psi > 0.25) & (found.ks > found.ks_threshold)).all()


def test_threshold_is_smirnovs() -> None:
    found = _compare(_rows())
    expected = stats.kstwobign.isf(0.001 / COLUMNS) * np.sqrt(1 / FIRST + 1 / NEWEST)
    assert found.ks_threshold[0] == pytest.approx(expected, rel=1e-4)
    assert found.ks_threshold[3] > 1.2 * expected  # 4 of 10 values are missing


@pytest.mark.parametrize("rows", [0, 1, FIRST])
def test_without_two_windows_nothing_moved(rows: int) -> None:
    found = _compare(_rows()[:rows])
    assert not found.moved.any()
    assert not found.psi.any()
    assert np.isinf(found.ks_threshold).all()


@pytest.mark.parametrize(
    ("reference", "newest", "psi", "ks"),
    [
        ([1.0] * 4, [1.0] * 4, 0.0, 0.0),
        ([1.0] * 4, [2.0] * 2, 2 * 0.9999 * np.log(1e4), 1.0),
        ([-1.0, 0.0, 0.0, 1.0], [-1.0, -0.0, -0.0, 1.0], 0.0, 0.0),
        ([np.nan] * 4, [1.0] * 4, 0.0, 0.0),
        ([1.0] * 4, [np.nan] * 4, 0.0, 0.0),
        ([np.nan] * 3 + [-5.0], [-5.0, np.nan, np.nan, -5.0], 0.0, 0.0),
        ([-1e30, -2.0, 2.0, 1e30], [-1e30, -2.0, 2.0, 1e30], 0.0, 0.0),
    ],
)
def test_columns_at_the_edge(
    reference: list[float], newest: list[float], psi: float, ks: float
) -> None:
    columns = (np.array(values, np.float32)[:, None] for values in (reference, newest))
    n, m, found_psi, found_ks = jax.jit(distances)(*columns)
    assert [float(n[0]), float(m[0])] == [np.isfinite(reference).sum(), np.isfinite(newest).sum()]
    assert float(found_psi[0]) == pytest.approx(psi, rel=1e-5)
    assert float(found_ks[0]) == pytest.approx(ks)


def test_without_a_shift_the_index_has_the_mean_that_is_said_and_nothing_moves() -> None:
    found = _compare(np.random.default_rng(2).normal(size=(N, 300)).astype(np.float32))
    assert found.psi.mean() == pytest.approx(9 / FIRST + 9 / NEWEST, rel=0.1)
    assert not found.moved.any()


def test_goes_on_as_before_when_its_count_of_rows_starts_over() -> None:
    state = _noted(shift.init(1), jnp.asarray(_rows()[:, :1]))
    assert int(state.n) < FIRST + 2 * NEWEST


def test_starts_anew_with_the_next_row() -> None:
    rows = _rows()
    before = shift.restart(_noted(shift.init(COLUMNS), jnp.asarray(rows[:700])), jnp.bool_(True))
    found, expected = _compare(rows[700:], before), _compare(rows[700:])
    jax.tree.map(partial(np.testing.assert_array_equal, strict=True), found, expected)
