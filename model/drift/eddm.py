"""EDDM, the early drift detection method of Baena-García and others."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import sums, xla
from headrace.model.drift.alarm import Alarm, Observed, demand, evident, share
from headrace.model.fold import Fold


class _State(NamedTuple):
    """Name the places of the state, f32[8]."""

    n: jax.Array  # values since the last alarm
    errors: jax.Array  # among these
    last: jax.Array  # n at the last error
    squares: jax.Array  # squared deviations of the distances between errors from their mean
    squares_error: jax.Array  # what float32 lost of it
    longest: jax.Array  # the longest distance p + 2 s yet
    longest_n: jax.Array  # n and errors then
    longest_errors: jax.Array


_EMPTY = np.zeros(len(_State._fields), np.float32)


def make_eddm(
    warm_start: int = 30, *, alpha: float = 0.95, beta: float = 0.9
) -> Fold[jax.Array, Observed, Alarm]:
    """Make the EDDM detector of a fall of the distance between errors.

    It fires and warns at the same events as River's `EDDM` and like it starts anew after an alarm,
    and here also after 2^24 values without one. A watched value above 0.5 is an error; River takes
    bits only. With p and s the mean and the standard deviation of the number of values from one
    error to the next, the statistic is the share by which p + 2 s is below its highest yet, and the
    threshold is 1 - `alpha` or 1 - `beta`. `before` is the error rate up to the highest, `after`
    the rate since. Only errors fire or warn; River's warning stands until an error lifts it.

    Args:
        warm_start: errors, and values, before the first alarm, at least 1.
        alpha: ratio to the highest below which it warns, `beta` to 1.
        beta: ratio to the highest below which it fires, above 0 and below 1.

    Raises:
        ValueError: an argument is out of its range.

    References:
        Baena-García, del Campo-Ávila, Fidalgo, Bifet, Gavaldà, Morales-Bueno 2006, Early drift
        detection method, Fourth International Workshop on Knowledge Discovery from Data Streams.
    """
    demand(
        "EDDM",
        ("warm_start", warm_start, warm_start >= 1, "at least 1"),
        ("beta", beta, 0 < beta < 1, "a number between 0 and 1"),
        ("alpha", alpha, beta <= alpha <= 1, f"a number from beta, {beta}, to 1"),
    )

    def update(state: jax.Array, observed: Observed) -> tuple[jax.Array, Alarm]:
        x, counts = share(observed)
        s = _State(*state)
        n, wrong = s.n + 1, x > 0.5
        errors = s.errors + 1
        distance, mean = n - s.last, n / errors
        off = distance - s.last / jnp.maximum(s.errors, 1.0)
        squares, squares_error = sums.add(s.squares, s.squares_error, off * (distance - mean))
        spread = mean + 2.0 * jnp.sqrt(jnp.maximum(squares, 0.0) / jnp.maximum(s.errors, 1.0))
        longer = (n > warm_start) & (spread > s.longest)
        statistic = 1.0 - spread / jnp.maximum(s.longest, 1.0)
        judged = wrong & (errors > warm_start) & (n > warm_start) & ~longer
        fired = judged & (statistic > 1.0 - beta)
        warning = judged & ~fired & (statistic > 1.0 - alpha)
        longest, longest_n, longest_errors = xla.select(longer, (spread, n, errors), s[5:])
        at_error = xla.pack(
            n, errors, n, squares, squares_error, longest, longest_n, longest_errors
        )
        new = jnp.where(wrong, at_error, xla.pack(n, *s[1:]))
        state = jnp.where(counts, jnp.where(fired | (n == sums.N_MAX), _EMPTY, new), state)
        alarm = Alarm(
            fired=counts & fired,
            warning=counts & warning,
            before=longest_errors / jnp.maximum(longest_n, 1.0),
            after=(errors - longest_errors) / jnp.maximum(n - longest_n, 1.0),
            statistic=statistic,
            threshold=1.0 - jnp.where(fired, beta, alpha),
            window=n,
        )
        return state, evident(alarm)

    return Fold(lambda: jnp.asarray(_EMPTY), update)
