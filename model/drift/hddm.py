"""HDDM-A and HDDM-W, the detectors of Frías-Blanco and others with bounds for any values."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from typing import NamedTuple

import jax
import jax.numpy as jnp

from headrace.model import sums, xla
from headrace.model.drift.alarm import Alarm, Observed, demand, evident, share
from headrace.model.fold import Fold


class _Averages(NamedTuple):
    """Name the places of HDDM-A's state of one side, f32[6]."""

    n: jax.Array  # values since the last alarm
    mean: jax.Array  # of these
    error: jax.Array  # what float32 lost of it
    cut_n: jax.Array  # the same three at the cut, after which the mean rose
    cut_mean: jax.Array
    cut_error: jax.Array


class _Weighted(NamedTuple):
    """Name the places of HDDM-W's state of one side, f32[8]."""

    n: jax.Array  # values since the last alarm
    mean: jax.Array  # weighted, of these
    error: jax.Array  # what float32 lost of it
    cut_n: jax.Array  # the same three at the cut, after which the mean rose
    cut_mean: jax.Array
    cut_error: jax.Array
    new_mean: jax.Array  # weighted, of the values since the cut
    new_error: jax.Array


class _Rise(NamedTuple):
    """Hold what is compared."""

    before: jax.Array
    after: jax.Array
    statistic: jax.Array
    alarm_at: jax.Array  # the statistic of an alarm
    warn_at: jax.Array  # of a warning


_State = tuple[jax.Array, ...]
_Side = Callable[[jax.Array, jax.Array], tuple[_Averages | _Weighted, _Rise]]
"""From a side's state and the value to the new state and what is compared."""


def make_hddm_a(
    drift_confidence: float = 0.001,
    *,
    warning_confidence: float = 0.005,
    two_sided: bool = False,
) -> Fold[_State, Observed, Alarm]:
    """Make the HDDM-A detector of a rise of the mean of values from 0 to 1.

    It fires and warns at the same events as River's `HDDMA` and like it starts anew after an
    alarm, and here also after 2^24 values without one. Watched values are clipped to 0 and 1. The
    statistic is how far the mean is above that of the values up to a cut, the point where the
    mean's upper confidence limit was lowest, and the threshold Hoeffding's bound. `before` and
    `after` are the means up to the cut and since.

    Args:
        drift_confidence: chance of a false alarm that is accepted at a value, 0 to 1.
        warning_confidence: the same of a warning, `drift_confidence` to 1.
        two_sided: find a fall as well, the cut then being where the lower limit was highest.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz, Caballero-Mota
        2015, Online and non-parametric drift detection methods based on Hoeffding's bounds, IEEE
        TKDE 27.
    """
    _demand_confidence("HDDM-A", drift_confidence, warning_confidence)

    def limit(n: jax.Array) -> jax.Array:
        return jnp.sqrt(0.5 * log(1.0 / drift_confidence) / jnp.maximum(n, 1.0))

    def side(state: jax.Array, x: jax.Array) -> tuple[_Averages, _Rise]:
        s = _Averages(*state)
        n = s.n + 1
        mean, error = sums.average(s.mean, s.error, x, n)
        rise = (mean - s.cut_mean) + (error - s.cut_error)
        cut = (s.cut_n == 0) | (rise <= limit(s.cut_n) - limit(n))
        cut_n, cut_mean, cut_error = xla.select(cut, (n, mean, error), s[3:])
        n_new = n - cut_n
        spread = jnp.sqrt(n_new / (2.0 * cut_n) / n)
        return _Averages(n, mean, error, cut_n, cut_mean, cut_error), _Rise(
            before=cut_mean,
            after=mean + rise * cut_n / jnp.maximum(n_new, 1.0),
            statistic=jnp.where(cut, -jnp.inf, rise),
            alarm_at=spread * sqrt(log(2.0 / drift_confidence)),
            warn_at=spread * sqrt(log(2.0 / warning_confidence)),
        )

    return _make(side, len(_Averages._fields), two_sided)


def make_hddm_w(
    drift_confidence: float = 0.001,
    *,
    warning_confidence: float = 0.005,
    lambda_: float = 0.05,
    two_sided: bool = False,
) -> Fold[_State, Observed, Alarm]:
    """Make the HDDM-W detector of a rise of the exponentially weighted mean of values from 0 to 1.

    It fires and warns at the same events as River's `HDDMW` and like it starts anew after an
    alarm, and here also after 2^24 values without one. Watched values are clipped to 0 and 1. The
    statistic is how far the weighted mean of the values since a cut is above the weighted mean up
    to it, the cut being the point where the upper confidence limit was lowest, and the threshold
    McDiarmid's bound. `before` and `after` are these two means.

    Args:
        drift_confidence: chance of a false alarm that is accepted at a value, 0 to 1.
        warning_confidence: the same of a warning, `drift_confidence` to 1.
        lambda_: weight of the newest value, between 0 and 1.
        two_sided: find a fall as well, the cut then being where the lower limit was highest.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Frías-Blanco, del Campo-Ávila, Ramos-Jiménez, Morales-Bueno, Ortiz-Díaz, Caballero-Mota
        2015, Online and non-parametric drift detection methods based on Hoeffding's bounds, IEEE
        TKDE 27.
    """
    _demand_confidence("HDDM-W", drift_confidence, warning_confidence)
    demand("HDDM-W", ("lambda_", lambda_, 0 < lambda_ < 1, "a number between 0 and 1"))
    fade = (1.0 - lambda_) ** 2
    steady = lambda_**2 / (1.0 - fade)  # the sum of the squares of the weights, of many values

    def excess(n: jax.Array) -> jax.Array:
        """Return by how much n values have more than that, as float64 would tell it."""
        more = (1.0 - steady) * jnp.exp(n * log(fade))
        return jnp.where(more < 2.0**-53, 0.0, more)

    def move(
        mean: jax.Array, error: jax.Array, x: jax.Array, n: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return sums.average(mean, error, x, jnp.where(n == 1, 1.0, 1.0 / lambda_))

    def side(state: jax.Array, x: jax.Array) -> tuple[_Weighted, _Rise]:
        s = _Weighted(*state)
        n = s.n + 1
        mean, error = move(s.mean, s.error, x, n)
        rise = (mean - s.cut_mean) + (error - s.cut_error)
        now, then = excess(n), excess(s.cut_n)
        fallen = (then - now) / (jnp.sqrt(steady + then) + jnp.sqrt(steady + now))
        cut = (s.cut_n == 0) | (rise < sqrt(0.5 * log(1.0 / drift_confidence)) * fallen)
        cut_n, cut_mean, cut_error = xla.select(cut, (n, mean, error), s[3:6])
        n_new = n - cut_n
        zeros = (jnp.zeros_like(n),) * 2
        new_mean, new_error = xla.select(cut, zeros, move(s.new_mean, s.new_error, x, n_new))
        spread = jnp.sqrt(steady + 0.5 * (excess(cut_n) + excess(n_new)))
        new = _Weighted(n, mean, error, cut_n, cut_mean, cut_error, new_mean, new_error)
        return new, _Rise(
            before=cut_mean,
            after=new_mean,
            statistic=jnp.where(cut, -jnp.inf, new_mean - cut_mean),
            alarm_at=spread * sqrt(log(1.0 / drift_confidence)),
            warn_at=spread * sqrt(log(1.0 / warning_confidence)),
        )

    return _make(side, len(_Weighted._fields), two_sided)


def _demand_confidence(detector: str, drift: float, warning: float) -> None:
    demand(
        detector,
        ("drift_confidence", drift, 0 < drift < 1, "a number between 0 and 1"),
        (
            "warning_confidence",
            warning,
            drift <= warning < 1,
            f"a number from drift_confidence, {drift}, to 1",
        ),
    )


def _make(side: _Side, places: int, two_sided: bool) -> Fold[_State, Observed, Alarm]:
    """Make the fold of one side, or of two: a fall of x is a rise of -x."""
    signs = (1.0, -1.0) if two_sided else (1.0,)

    def init() -> _State:
        return tuple(jnp.zeros(places, jnp.float32) for _ in signs)

    def update(state: _State, observed: Observed) -> tuple[_State, Alarm]:
        x, counts = share(observed)
        sides = [side(one, sign * x) for one, sign in zip(state, signs, strict=True)]
        n = sides[0][0].n
        alarm, *fall = (
            _alarm(rise, sign, n, counts) for (_, rise), sign in zip(sides, signs, strict=True)
        )
        for other in fall:
            worse = other.fired & ~alarm.fired | other.warning & ~(alarm.fired | alarm.warning)
            alarm = Alarm(*xla.select(worse, other, alarm))
        anew = alarm.fired | (n == sums.N_MAX)
        state = tuple(
            jnp.where(counts, jnp.where(anew, 0.0, xla.pack(*new)), old)
            for (new, _), old in zip(sides, state, strict=True)
        )
        return state, evident(alarm)

    return Fold(init, update)


def _alarm(rise: _Rise, sign: float, window: jax.Array, counts: jax.Array) -> Alarm:
    fired = counts & (rise.statistic >= rise.alarm_at)
    return Alarm(
        fired=fired,
        warning=counts & ~fired & (rise.statistic >= rise.warn_at),
        before=sign * rise.before,
        after=sign * rise.after,
        statistic=rise.statistic,
        threshold=jnp.where(fired, rise.alarm_at, rise.warn_at),
        window=window,
    )
