from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fold_checks import run
from scipy import stats

from model.drift import Shift, make_shift
from model.drift.shift import distances

W, EVERY, COLUMNS = 200, 70, 5
FOLD = make_shift(COLUMNS, window=W, every=EVERY)
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
    return values[np.isfinite(values)].astype(np.float64)


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
    rows[N // 2 :, 0] += 0.5
    rows[N // 2 :, 3] *= 3
    return rows.astype(np.float32)


def _events(rows: np.ndarray) -> Any:
    return jnp.asarray(rows), jnp.ones(len(rows), bool)


def test_statistics_are_scipys_and_numpys_at_every_comparison() -> None:
    rows = _rows()
    _, shift = run(FOLD, _events(rows))
    at = np.flatnonzero(shift.compared)
    assert at.tolist() == list(range(2 * W - 1, N, EVERY))
    for i in at:
        for column in range(COLUMNS):
            reference, newest = _seen(rows[:W, column]), _seen(rows[i + 1 - W : i + 1, column])
            psi, ks = float(shift.psi[i, column]), float(shift.ks[i, column])
            assert psi == pytest.approx(_psi(reference, newest), rel=1e-4, abs=1e-5)
            expected = stats.ks_2samp(reference, newest, method="asymp").statistic
            assert ks == pytest.approx(expected, abs=1e-6)
    quiet = jax.tree.map(lambda leaf: np.delete(np.asarray(leaf), at, axis=0), shift)
    assert not any(leaf.any() for leaf in quiet)


def test_says_which_columns_moved_most() -> None:
    _, shift = run(FOLD, _events(_rows()))
    last = jax.tree.map(lambda leaf: np.asarray(leaf)[np.flatnonzero(shift.compared)], shift)
    assert last.moved[-1].tolist() == [True, False, False, True, False]
    assert not last.moved[0].any()
    assert last.order[-1].tolist() == np.argsort(-last.psi[-1], kind="stable").tolist()
    assert last.order[-1][0] == 3
    beyond = (last.psi > 0.25) & (last.ks > last.ks_threshold)
    assert (last.moved == beyond).all()


def test_threshold_is_smirnovs() -> None:
    _, shift = run(FOLD, _events(_rows()))
    first = 2 * W - 1
    expected = stats.kstwobign.isf(0.001 / COLUMNS) * np.sqrt(2 / W)
    assert float(shift.ks_threshold[first, 0]) == pytest.approx(expected, rel=1e-4)
    assert float(shift.ks_threshold[first, 3]) > 1.2 * expected  # 4 of 10 values are missing


@pytest.mark.parametrize(
    ("reference", "newest", "psi", "ks"),
    [
        ([1.0] * 4, [1.0] * 4, 0.0, 0.0),
        ([1.0] * 4, [2.0] * 4, 2 * 0.9999 * np.log(1e4), 1.0),
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
    columns = (np.float32(values)[:, None] for values in (reference, newest))
    n, m, found_psi, found_ks = jax.jit(distances)(*columns)
    assert [float(n[0]), float(m[0])] == [np.isfinite(reference).sum(), np.isfinite(newest).sum()]
    assert float(found_psi[0]) == pytest.approx(psi, rel=1e-5)
    assert float(found_ks[0]) == pytest.approx(ks)


def test_without_a_shift_the_index_has_the_mean_that_is_said_and_nothing_moves() -> None:
    columns = 64
    rows = np.random.default_rng(2).normal(size=(N, columns)).astype(np.float32)
    _, shift = run(make_shift(columns, window=W, every=W), _events(rows))
    at = np.flatnonzero(shift.compared)
    assert np.asarray(shift.psi)[at].mean() == pytest.approx(18 / W, rel=0.1)
    assert not np.asarray(shift.moved).any()


def test_goes_on_as_before_when_its_count_of_rows_starts_over() -> None:
    window, every = 10, 3
    fold = make_shift(1, window=window, every=every)
    rows = np.random.default_rng(3).random((200, 1)).astype(np.float32)
    state, shift = run(fold, _events(rows))
    assert int(state.n) <= 2 * window + window * every < 200
    assert np.flatnonzero(shift.compared).tolist() == list(range(2 * window - 1, 200, every))
    last = np.flatnonzero(shift.compared)[-1]
    found = stats.ks_2samp(rows[:window, 0], rows[last + 1 - window : last + 1, 0])
    assert float(shift.ks[last, 0]) == pytest.approx(found.statistic, abs=1e-6)


def test_unknown_rows_are_passed_over() -> None:
    rows = _rows()[:900]
    places = np.sort(np.random.default_rng(6).choice(N, len(rows), replace=False))
    padded, known = np.full((N, COLUMNS), 9.0, np.float32), np.zeros(N, bool)
    padded[places], known[places] = rows, True
    _, expected = run(FOLD, _events(_rows()), stop=900)
    _, shift = run(FOLD, (jnp.asarray(padded), jnp.asarray(known)))
    assert shift.psi[places].tolist() == expected.psi[:900].tolist()
    assert not np.asarray(shift.compared)[~known].any()


def test_all_that_is_said_has_a_place_for_each_column() -> None:
    _, shift = jax.eval_shape(FOLD.update, FOLD.init(), (jnp.zeros(COLUMNS), jnp.bool_(True)))
    assert [leaf.shape for leaf in shift] == [(), *[(COLUMNS,)] * (len(Shift._fields) - 1)]


@pytest.mark.parametrize(
    "settings",
    [{"columns": 0}, {"window": 9}, {"every": 0}, {"psi_threshold": -1.0}, {"alpha": 0.0}],
    ids=str,
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"Shift's {name} is .*: expected"):
        make_shift(**{"columns": 2, **settings})
