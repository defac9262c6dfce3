"""DDM, EDDM, HDDM-A and HDDM-W: detectors that watch whether predictions were wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from river.drift import binary

from headrace.model import sums
from headrace.model.drift import make_ddm, make_eddm, make_hddm_a, make_hddm_w
from tests.support.folds import AnyFold, run

LONGEST = 12_000  # one compilation serves streams of all lengths


class Oracle(NamedTuple):
    """River's detector, whether it cut at this event, and what it compares."""

    fold: AnyFold
    make: Callable[[], Any]
    cut: Callable[[Any], bool]
    compared: Callable[[Any], tuple[float, float]]


def _ddm_sum(river: Any) -> float:
    p, n = river._p.get(), river._p.n
    return float(p + math.sqrt(p * (1 - p) / n))


def _ddm(river: Any) -> tuple[float, float]:
    return _ddm_sum(river), river._p_min + 3 * river._s_min


def _eddm(river: Any) -> tuple[float, float]:
    distances = river._error_distances
    spread = distances.mean.get() + 2 * math.sqrt(distances.get())
    return 1 - spread / river._p2s_prime_max, 1 - 0.9


def _hddm_a(river: Any) -> tuple[float, float]:
    whole, cut = river._z, river._x_min
    bound = math.sqrt((whole.n - cut.n) / cut.n / whole.n / 2 * math.log(2 / 0.001))
    return whole.get() - cut.get(), bound


def _hddm_w(river: Any) -> tuple[float, float]:
    old, new = river._s1_incr, river._s2_incr
    return new.ewma - old.ewma, river._mcdiarmid_bound(old.ibc + new.ibc, 0.001)


ORACLES = {
    "DDM": Oracle(make_ddm(), binary.DDM, lambda r: _ddm_sum(r) == r._ps_min, _ddm),
    "EDDM": Oracle(
        make_eddm(), binary.EDDM, lambda r: r._last_error == r._n and _eddm(r)[0] == 0, _eddm
    ),
    "HDDM-A": Oracle(make_hddm_a(), binary.HDDMA, lambda r: r._x_min.n == r._z.n, _hddm_a),
    "HDDM-W": Oracle(make_hddm_w(), binary.HDDMW, lambda r: False, _hddm_w),
}
TWO_SIDED = {
    "HDDM-A": (make_hddm_a(two_sided=True), binary.HDDMA),
    "HDDM-W": (make_hddm_w(two_sided=True), binary.HDDMW),
}


def _streams() -> dict[str, np.ndarray]:
    streams: dict[str, np.ndarray] = {}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rates = np.repeat(rng.uniform(0.03, 0.7, 6), (1500, 400, 3000, 64, 2500, 4536))
        streams[f"abrupt {seed}"] = rng.random(LONGEST) < rates
    streams["gradual"] = rng.random(LONGEST) < np.linspace(0.1, 0.6, LONGEST)
    streams["falling"] = rng.random(LONGEST) < np.linspace(0.6, 0.1, LONGEST)
    streams["stationary"] = rng.random(LONGEST) < 0.2
    streams["never"] = np.zeros(3000)
    streams["always"] = np.ones(3000)
    streams["periodic"] = np.arange(3000) % 3 == 0
    streams["at once"] = np.repeat([0.0, 1.0, 0.0, 1.0], (300, 200, 100, 900))
    streams["fall at once"] = np.repeat([1.0, 0.0], (1000, 500))
    return {name: values.astype(np.float32) for name, values in streams.items()}


STREAMS = _streams()


def _observed(values: np.ndarray) -> Any:
    padded = np.pad(values, (0, LONGEST - len(values)))
    return jnp.asarray(padded), jnp.ones(LONGEST, bool)


def _run(fold: AnyFold, name: str) -> Any:
    _, alarm = run(fold, _observed(STREAMS[name]), stop=len(STREAMS[name]))
    return alarm


def _river(oracle: Oracle, values: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return (event, before, after, statistic, threshold, window) of alarms; where it warns."""
    river, alarms, warns = oracle.make(), [], np.zeros(len(values), bool)
    seen: list[float] = []
    cut = 0
    for i, x in enumerate(values.tolist()):
        river.update(x)
        seen.append(x)
        if is_cut := oracle.cut(river):
            cut = len(seen)
        if river.drift_detected:
            if isinstance(river, binary.HDDMW):
                means = [river._s1_incr.ewma, river._s2_incr.ewma]
            else:
                means = [np.mean(seen[:cut]), np.mean(seen[cut:])]
            alarms.append((i, *means, *oracle.compared(river), len(seen)))
            seen = []
        elif river.warning_detected:
            # River's EDDM leaves the flag as it was at an event that it does not judge
            warns[i] = not isinstance(river, binary.EDDM) or (x == 1 and not is_cut)
    return alarms, warns


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", ORACLES)
def test_fires_and_warns_where_river_does_and_says_why(name: str, stream: str) -> None:
    alarm = _run(ORACLES[name].fold, stream)
    expected, warns = _river(ORACLES[name], STREAMS[stream])
    (fired,) = np.nonzero(np.asarray(alarm.fired))
    assert fired.tolist() == [e[0] for e in expected]
    assert (np.asarray(alarm.warning)[: len(warns)] == warns).all()
    if expected:
        numbers = np.stack(alarm[2:], axis=1)[fired]
        np.testing.assert_allclose(numbers, [e[1:] for e in expected], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", TWO_SIDED)
def test_two_sided_fires_and_warns_where_river_does(name: str, stream: str) -> None:
    fold, make = TWO_SIDED[name]
    alarm = _run(fold, stream)
    river, fired, warns = make(two_sided_test=True), [], []
    for i, x in enumerate(STREAMS[stream].tolist()):
        river.update(x)
        if river.drift_detected:
            fired.append(i)
        elif river.warning_detected:
            warns.append(i)
    assert np.flatnonzero(alarm.fired).tolist() == fired
    assert np.flatnonzero(alarm.warning).tolist() == warns


def test_the_streams_have_something_to_find() -> None:
    for name, oracle in ORACLES.items():
        alarms, warns = zip(
            *(_river(oracle, STREAMS[f"abrupt {k}"]) for k in range(3)), strict=True
        )
        assert sum(map(len, alarms)) >= 3, name
        assert sum(map(np.sum, warns)) >= 10, name
    falls = [np.asarray(_run(fold, "fall at once").fired).sum() for fold, _ in TWO_SIDED.values()]
    assert falls == [1, 1]


@pytest.mark.parametrize("fold", [fold for fold, _ in TWO_SIDED.values()])
def test_a_fall_is_said_as_a_fall(fold: AnyFold) -> None:
    alarm = _run(fold, "fall at once")
    (at,) = np.flatnonzero(alarm.fired)
    assert float(alarm.before[at]) == 1.0
    assert float(alarm.after[at]) < 0.6
    assert float(alarm.statistic[at]) > float(alarm.threshold[at]) > 0


@pytest.mark.parametrize("name", ORACLES)
def test_the_statistic_reaches_the_threshold_and_all_else_is_zero(name: str) -> None:
    alarm = _run(ORACLES[name].fold, "abrupt 0")
    says = np.asarray(alarm.fired | alarm.warning)
    assert not np.asarray(alarm.fired & alarm.warning).any()
    assert (np.asarray(alarm.statistic)[says] >= np.asarray(alarm.threshold)[says] - 1e-6).all()
    assert not np.stack(alarm[2:])[:, ~says].any()


@pytest.mark.parametrize("name", ORACLES)
def test_unknown_values_do_not_move_an_alarm(name: str) -> None:
    rng = np.random.default_rng(5)
    values = (rng.random(4000) < np.repeat([0.1, 0.6], 2000)).astype(np.float32)
    places = np.sort(rng.choice(LONGEST, len(values), replace=False))
    x, known = np.full(LONGEST, 1.0, np.float32), np.zeros(LONGEST, bool)
    x[places], known[places] = values, True
    _, alarm = run(ORACLES[name].fold, (jnp.asarray(x), jnp.asarray(known)))
    alarms, _ = _river(ORACLES[name], values)
    expected = [places[e[0]] for e in alarms]
    assert np.flatnonzero(alarm.fired).tolist() == expected != []


@pytest.mark.parametrize("name", ORACLES)
def test_starts_anew_where_float32_stops_counting(name: str) -> None:
    fold, values = ORACLES[name].fold, _observed(STREAMS["stationary"])
    state, _ = run(fold, values, stop=100)
    is_flat = not isinstance(state, tuple)
    full = (state if is_flat else state[0]).at[0].set(sums.N_MAX - 1)
    state, alarm = run(fold, _observed(np.zeros(1)), stop=1, state=full if is_flat else (full,))
    assert not bool(alarm.fired[0])
    assert not np.asarray(state).any()


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (make_ddm, {"warm_start": 0}),
        (make_ddm, {"warning_threshold": 0.5}),
        (make_ddm, {"drift_threshold": 1.5}),
        (make_eddm, {"warm_start": 0}),
        (make_eddm, {"alpha": 0.8}),
        (make_eddm, {"beta": 0.0}),
        (make_hddm_a, {"drift_confidence": 0.0}),
        (make_hddm_a, {"warning_confidence": 0.0001}),
        (make_hddm_w, {"drift_confidence": math.nan}),
        (make_hddm_w, {"lambda_": 1.0}),
    ],
)
def test_settings_out_of_range_are_named(make: Any, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"DDM.*'s {name} is .*: expected"):
        make(**settings)
