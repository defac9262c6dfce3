"""The Page-Hinkley test, two-sided, with a fading sum."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import sums, xla
from headrace.model.drift.alarm import Alarm, Observed, demand, evident, usable
from headrace.model.fold import Fold

_RECENT = 32
_Pair = tuple[jax.Array, jax.Array]


class _State(NamedTuple):
    """Name the places of the state, f32[11]."""

    n: jax.Array  # values since the last alarm
    mean: jax.Array  # of these
    mean_error: jax.Array  # what float32 lost of it
    up: jax.Array  # faded sum of the deviations, each less the tolerance
    up_error: jax.Array
    up_lowest: jax.Array
    down: jax.Array  # the same for the deviations' negatives
    down_error: jax.Array
    down_lowest: jax.Array
    recent: jax.Array  # fading mean of the newest values
    fired: jax.Array  # 1 at an alarm, which makes the next value the first one of a new state


_EMPTY = np.array([0, 0, 0, 0, 0, np.inf, 0, 0, np.inf, 0, 0], np.float32)


def make_page_hinkley(
    delta: float = 0.005,
    *,
    threshold: float = 50.0,
    min_instances: int = 30,
    alpha: float = 1 - 0.0001,
) -> Fold[jax.Array, Observed, Alarm]:
    """Make the Page-Hinkley detector of a rise or a fall of the mean of a stream.

    It fires at the same events as River's `PageHinkley(mode="both")` and like it starts anew after
    an alarm. `before` is the mean of all values since the last alarm, `after` a fading mean of the
    newest (weight 1/32). The statistic is the sum of deviations, above its lowest, that is the
    farther from it: upwards or downwards.

    Args:
        delta: deviation from the mean that is tolerated, in units of the watched value, at least 0.
        threshold: sum of deviations that is an alarm, in the same units, above 0.
        min_instances: values before the first alarm, at least 1.
        alpha: what is kept of the sum at each value, above 0 and at most 1.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Page 1954, Continuous inspection schemes, Biometrika 41. Gama, Sebastião, Rodrigues 2013, On
        evaluating stream learning algorithms, Machine Learning 90.
    """
    demand(
        "Page-Hinkley",
        ("delta", delta, delta >= 0, "a number of at least 0"),
        ("threshold", threshold, threshold > 0, "a number above 0"),
        ("min_instances", min_instances, min_instances >= 1, "at least 1"),
        ("alpha", alpha, 0 < alpha <= 1, "a number above 0 and at most 1"),
    )
    fade = 1 - alpha  # as a small number it keeps more digits in float32 than alpha does

    def drift(sum_: jax.Array, error: jax.Array, by: jax.Array, by_error: jax.Array) -> _Pair:
        return sums.add(sum_, error + by_error, by - delta - fade * sum_)

    def update(state: jax.Array, observed: Observed) -> tuple[jax.Array, Alarm]:
        x, counts = usable(observed)
        s = _State(*jnp.where(state[-1] > 0, _EMPTY, state))
        n = jnp.minimum(s.n + 1, sums.N_MAX)  # from then on the mean fades over as many values
        mean, mean_error = sums.average(s.mean, s.mean_error, x, n)
        off, off_error = sums.subtract(x, mean, mean_error)
        up, up_error = drift(s.up, s.up_error, off, off_error)
        down, down_error = drift(s.down, s.down_error, -off, -off_error)
        up_lowest, down_lowest = jnp.minimum(s.up_lowest, up), jnp.minimum(s.down_lowest, down)
        recent = s.recent + (x - s.recent) / jnp.minimum(n, _RECENT)
        statistic = jnp.maximum(up - up_lowest, down - down_lowest)
        beyond = (n >= min_instances) & (statistic > threshold)
        new = _State(
            n,
            mean,
            mean_error,
            up,
            up_error,
            up_lowest,
            down,
            down_error,
            down_lowest,
            recent,
            beyond.astype(jnp.float32),
        )
        state = jnp.where(counts, xla.pack(*new), state)
        alarm = Alarm(
            fired=counts & beyond,
            warning=jnp.bool_(False),
            before=mean,
            after=recent,
            statistic=statistic,
            threshold=jnp.float32(threshold),
            window=n,
        )
        return state, evident(alarm)

    return Fold(lambda: jnp.asarray(_EMPTY), update)
