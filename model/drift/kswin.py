"""KSWIN, the Kolmogorov-Smirnov windowing of Raab, Heusinger and Schleif."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from headrace.model import xla
from headrace.model.drift.alarm import Alarm, Observed, demand, evident, usable
from headrace.model.fold import Fold

_LEAST = 0.1  # a statistic up to this is no alarm, however significant


class Kswin(NamedTuple):
    """Hold the newest values."""

    window: jax.Array  # f32[window_size]: the newest is the last; zeros before the first
    n: jax.Array  # u32[]: values since the last alarm, and the counter that the samples depend on


def make_kswin(
    alpha: float = 0.005, *, window_size: int = 100, stat_size: int = 30, seed: int = 0
) -> Fold[Kswin, Observed, Alarm]:
    """Make the KSWIN detector of any change of the distribution of a stream.

    At each value the newest `stat_size` of the window are compared with as many drawn from the rest
    of it. The statistic is that of Kolmogorov and Smirnov for two samples, 0 to 1: how far the two
    empirical distribution functions are apart at most. The threshold is the least that is above
    0.1 and whose exact two-sided p-value is at most `alpha`. It starts anew after an alarm.
    `before` is the mean of the rest of the window, `after` that of its newest values.

    The test, the windows and the draw (uniform, without replacement) are those of River's `KSWIN`,
    the random numbers are not: River draws from Python's Mersenne Twister, this from a hash of
    (seed, values since the last alarm, place). So single alarms differ from River's as those of two
    seeds of River do, and agree with them in distribution.

    Args:
        alpha: p-value of an alarm, above 0 and below 1; a test is made at every value, so alarms
            without a change come often unless it is far below 0.01.
        window_size: values in the window, at least twice `stat_size`.
        stat_size: values compared with as many older ones, at least 2.
        seed: any integer.

    Raises:
        ValueError: an argument is out of its range, or so few values never have a p-value of alpha.

    References:
        Raab, Heusinger, Schleif 2020, Reactive soft prototype computing for concept drift streams,
        Neurocomputing 416. Gnedenko, Korolyuk 1951, On the maximum discrepancy between two
        empirical distributions (p-value). Wellons 2018, Prospecting for hash functions (the hash).
    """
    least = 2.0 / comb(2 * max(stat_size, 2), max(stat_size, 2))
    demand(
        "KSWIN",
        ("stat_size", stat_size, stat_size >= 2, "at least 2"),
        ("window_size", window_size, window_size >= 2 * stat_size, "at least twice stat_size"),
        ("alpha", alpha, least <= alpha < 1, f"a number from {least:.3g} (by stat_size) to 1"),
    )
    critical = next(
        gap
        for gap in range(1, stat_size + 1)
        if gap / stat_size > _LEAST and p_value(gap, stat_size) <= alpha
    )
    n_rest = window_size - stat_size

    def update(state: Kswin, observed: Observed) -> tuple[Kswin, Alarm]:
        x, counts = usable(observed)
        n = jnp.where(state.n + 1 == 0, jnp.uint32(window_size), state.n + 1)  # after 2^32 values
        window = jnp.concatenate([state.window[1:], x[None]])
        gap = lax.cond(
            counts & (n >= window_size),
            lambda: largest_gap(window, sample(n, n_rest, stat_size, seed)),
            lambda: jnp.int32(0),
        )
        fired = gap >= critical
        alarm = Alarm(
            fired=fired,
            warning=jnp.bool_(False),
            before=jnp.mean(window[:n_rest]),
            after=jnp.mean(window[n_rest:]),
            statistic=gap / jnp.float32(stat_size),
            threshold=jnp.float32(critical / stat_size),
            window=jnp.float32(window_size),
        )
        state = Kswin(
            window=jnp.where(counts, jnp.where(fired, 0.0, window), state.window),
            n=jnp.where(counts, jnp.where(fired, jnp.uint32(0), n), state.n),
        )
        return state, evident(alarm)

    return Fold(lambda: Kswin(jnp.zeros(window_size, jnp.float32), jnp.uint32(0)), update)


def p_value(gap: int, size: int) -> float:
    """Return the chance that two samples of one distribution lie `gap` or more ranks apart.

    Both hold `size` values; the statistic of Kolmogorov and Smirnov is `gap / size`.
    """
    ways = 0
    for j in range(1, size // gap + 1):
        ways -= (-1) ** j * comb(2 * size, size - j * gap)
    return 2 * ways / comb(2 * size, size)


def sample(counter: jax.Array, among: int, size: int, seed: int) -> jax.Array:
    """Draw `size` of the places 0 to `among` - 1 without replacement, as bool[among]."""
    place = jnp.arange(among, dtype=jnp.uint32)
    key = _hash(_hash(_hash(jnp.uint32(seed % 2**32)) + counter) + place)
    key = xla.once(key // among * among + place)  # no two are the same
    return jnp.sum(key[:, None] < key, axis=0) < size


def largest_gap(window: jax.Array, drawn: jax.Array) -> jax.Array:
    """Return by how many ranks the drawn of the window's older values and its newest are apart."""
    newest = jnp.full(len(window) - len(drawn), -1, jnp.int32)
    weight = xla.once(jnp.concatenate([drawn.astype(jnp.int32), newest]))
    ahead = jnp.sum(jnp.where(window[:, None] <= window, weight[:, None], 0), axis=0)
    return jnp.max(jnp.abs(ahead))


def _hash(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
