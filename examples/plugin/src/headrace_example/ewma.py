"""A control chart as a detector of drift: it fires when a fading mean leaves its band.

Roberts (1959), "Control chart tests based on geometric moving averages", Technometrics 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model.drift import Alarm, Observed
from headrace.model.drift.alarm import evident, usable
from headrace.model.fold import Fold
from headrace.model.spec import Spec

PACE = 0.05  # of the fading mean
WIDTH = 4.0  # of the band, in deviations of the fading mean
WARM_UP = 100.0  # values before the first alarm
MOST = 1e6  # values that the mean remembers


class Chart(NamedTuple):
    """Hold what was seen since the last alarm."""

    n: Array  # f32[]  values
    mean: Array  # f32[]
    variance: Array  # f32[]
    fading: Array  # f32[]  mean of the newest


def make(spec: Spec) -> Fold[Chart, Observed, Alarm]:
    """Make the detector; after an alarm it begins anew."""

    def init() -> Chart:
        return Chart(jnp.float32(0), jnp.float32(0), jnp.float32(0), jnp.float32(0))

    def update(state: Chart, observed: Observed) -> tuple[Chart, Alarm]:
        x, counts = usable(observed)
        n = jnp.minimum(state.n + 1, MOST)
        off = x - state.mean
        mean = state.mean + off / n
        variance = state.variance + (off * (x - mean) - state.variance) / n
        fading = jnp.where(state.n == 0, x, state.fading + PACE * (x - state.fading))
        apart = jnp.abs(fading - mean)
        band = WIDTH * jnp.sqrt(variance * PACE / (2 - PACE))
        fired = counts & (n > WARM_UP) & (apart > band) & (band > 0)
        after = Chart(n, mean, variance, fading)
        kept = [
            jnp.where(fired, anew, jnp.where(counts, new, old))
            for anew, new, old in zip(init(), after, state, strict=True)
        ]
        alarm = Alarm(fired, jnp.bool_(False), mean, fading, apart, band, n)
        return Chart(*kept), evident(alarm)

    return Fold(init, update)
