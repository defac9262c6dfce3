"""DDM, the drift detection method of Gama, Medas, Castillo and Rodrigues."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import sums, xla
from headrace.model.drift.alarm import Alarm, Observed, demand, evident, share
from headrace.model.fold import Fold


class _State(NamedTuple):
    """Name the places of the state, f32[6]."""

    n: jax.Array  # values since the last alarm
    mean: jax.Array  # of these
    error: jax.Array  # what float32 lost of it
    best_n: jax.Array  # the same three when the mean and its deviation were lowest; 0 before
    best_mean: jax.Array
    best_error: jax.Array


_EMPTY = np.zeros(len(_State._fields), np.float32)


def make_ddm(
    warm_start: int = 30, *, warning_threshold: float = 2.0, drift_threshold: float = 3.0
) -> Fold[jax.Array, Observed, Alarm]:
    """Make the DDM detector of a rise of an error rate.

    It fires and warns at the same events as River's `DDM` and like it starts anew after an alarm,
    and here also after 2^24 values without one. Watched values are clipped to 0 and 1; River takes
    bits only. The statistic is p + s, the mean and its standard deviation sqrt(p (1 - p) / n), and
    the threshold is p + k s of the time when p + s was lowest. `before` is the mean up to then,
    `after` the mean since. As in the paper, a stream whose first `warm_start` values hold no error
    alarms at its first error.

    Args:
        warm_start: values before the first alarm, at least 1.
        warning_threshold: k of a warning, at least 1.
        drift_threshold: k of an alarm, at least `warning_threshold`.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Gama, Medas, Castillo, Rodrigues 2004, Learning with drift detection, SBIA.
    """
    demand(
        "DDM",
        ("warm_start", warm_start, warm_start >= 1, "at least 1"),
        ("warning_threshold", warning_threshold, warning_threshold >= 1, "at least 1"),
        (
            "drift_threshold",
            drift_threshold,
            drift_threshold >= warning_threshold,
            f"at least the warning threshold, {warning_threshold}",
        ),
    )

    def update(state: jax.Array, observed: Observed) -> tuple[jax.Array, Alarm]:
        x, counts = share(observed)
        s = _State(*state)
        n = s.n + 1
        mean, error = sums.average(s.mean, s.error, x, n)
        deviation, lowest = _deviation(mean, n), _deviation(s.best_mean, s.best_n)
        rise = (mean - s.best_mean) + (error - s.best_error)
        warm = n > warm_start
        best = warm & ((s.best_n == 0) | (rise <= lowest - deviation))
        best_n, best_mean, best_error = xla.select(best, (n, mean, error), s[3:])
        lowest, rise = jnp.where(best, deviation, lowest), jnp.where(best, 0.0, rise)
        fired = warm & (rise + deviation > drift_threshold * lowest)
        warning = warm & ~fired & (rise + deviation > warning_threshold * lowest)
        new = xla.pack(n, mean, error, best_n, best_mean, best_error)
        state = jnp.where(counts, jnp.where(fired | (n == sums.N_MAX), _EMPTY, new), state)
        level = jnp.where(fired, drift_threshold, warning_threshold)
        alarm = Alarm(
            fired=counts & fired,
            warning=counts & warning,
            before=best_mean,
            after=mean + rise * best_n / jnp.maximum(n - best_n, 1.0),
            statistic=mean + deviation,
            threshold=best_mean + level * lowest,
            window=n,
        )
        return state, evident(alarm)

    return Fold(lambda: jnp.asarray(_EMPTY), update)


def _deviation(mean: jax.Array, n: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(mean * (1.0 - mean), 0.0) / jnp.maximum(n, 1.0))
