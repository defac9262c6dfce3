"""ADWIN, the adaptive window of Bifet and Gavaldà, as a fold that costs little per event."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from headrace.model.drift.alarm import Alarm, Observed, demand, evident, quiet, usable
from headrace.model.fold import Fold

_CLOCK = 32  # a cut is looked for once in so many values
_ROW = 5  # buckets of one size; a sixth would make the two oldest one of twice the size
_SHORTEST = 5  # values on either side of a cut
_LEVELS = 16  # of buckets of 32, 64, ... values: the window ends at 10 million, exact in float32
_RUNS = ((16, 4), (8, 4), (4, 5), (2, 4), (1, 4))  # (size, how many) among the newest, oldest first
_RECENT = sum(size * many for size, many in _RUNS)
_OLDER_SIZES = _CLOCK * 2.0 ** np.arange(_LEVELS, dtype=np.float32)[::-1]
_BORDERS = np.concatenate(  # which values, in the order of the window, are the last of a bucket
    [np.ones(_LEVELS * _ROW, bool), *(np.arange(s * n) % s == s - 1 for s, n in _RUNS)]
)


class Adwin(NamedTuple):
    """Hold the window since the last alarm.

    The buckets of the exponential histogram are aligned runs of 2^k values, and at every check,
    that is after each 32nd value, the newest 128 lie in runs of 16, 8, 4, 2 and 1 at fixed places.
    So these 128 are kept as they came, and what is older is a histogram that grows by one bucket of
    32 a check.
    """

    recent: jax.Array  # f32[128]: the newest values, zero where there is none yet
    n_recent: jax.Array  # i32[]: how many there are; those since the last check begin at place 96
    origin: jax.Array  # f32[]: the window's first value; the histogram is relative to it
    older: jax.Array  # f32[2, levels, 5]: means and squared deviations, the oldest bucket first
    n_older: jax.Array  # i32[levels]: buckets of each size, the largest size first


class _Cut(NamedTuple):
    """Hold how far the means on the two sides of a cut are apart, and how far is significant."""

    difference: jax.Array  # f32[]
    bound: jax.Array  # f32[]


_Looked: TypeAlias = tuple[jax.Array, _Cut, jax.Array]
"""(values dropped, clearest cut of the whole window, whether there may be more to drop)"""


class _Buckets(NamedTuple):
    """Hold the window, oldest first: its histogram, and then the newest values one by one."""

    size: jax.Array  # f32[N]: 0 where there is nothing
    mean: jax.Array  # f32[N]: relative to the origin
    squares: jax.Array  # f32[N]: squared deviations from the mean


def make_adwin(delta: float = 0.002) -> Fold[Adwin, Observed, Alarm]:
    """Make the ADWIN detector of a change in the mean of a stream.

    It fires at the same events as River's `ADWIN(delta)` (clock 32, 5 buckets of a size, sides of 5
    and more, none below 11 values) and like it starts anew after an alarm. `before` and `after` are
    the means of what the window dropped and of what it kept. The statistic is the difference of the
    means on the two sides of the clearest cut of the window, before anything is dropped, and the
    threshold its bound. The state does not grow: when there are more than 10 million values since
    the last alarm, the oldest are dropped.

    Args:
        delta: chance of a false alarm that is accepted at a check, 0 to 1.

    Raises:
        ValueError: delta is not between 0 and 1.

    References:
        Bifet, Gavaldà 2007, Learning from time-changing data with adaptive windowing, SDM. Babcock,
        Datar, Motwani, O'Callaghan 2003, Maintaining variance and k-medians over data stream
        windows.
    """
    demand("ADWIN", ("delta", delta, 0 < delta < 1, "a number between 0 and 1, say 0.002"))

    def update(state: Adwin, observed: Observed) -> tuple[Adwin, Alarm]:
        x, counts = usable(observed)
        place = _RECENT - _CLOCK + state.n_recent % _CLOCK
        # an unknown value writes the zero that is there already
        recent = lax.dynamic_update_slice(state.recent, x[None], (place,))
        n_recent = state.n_recent + counts
        state = state._replace(recent=recent, n_recent=n_recent)
        due = counts & (n_recent % _CLOCK == 0)
        result: tuple[Adwin, Alarm]
        result = lax.cond(due, lambda s: _check(s, delta), lambda s: (s, quiet()), state)
        return result

    return Fold(_empty, update)


def window_width(state: Adwin) -> jax.Array:
    """Return how many values the window holds, i32[]."""
    return state.n_recent + jnp.sum(state.n_older * _OLDER_SIZES.astype(np.int32))


def window_mean(state: Adwin) -> jax.Array:
    """Return the mean of the window, f32[], 0 when it is empty."""
    present = np.arange(_ROW) < state.n_older[:, None]
    older = jnp.where(present, state.older[0] + state.origin, 0.0) * _OLDER_SIZES[:, None]
    return (jnp.sum(state.recent) + jnp.sum(older)) / jnp.maximum(window_width(state), 1)


def _empty() -> Adwin:
    return Adwin(
        recent=jnp.zeros(_RECENT, jnp.float32),
        n_recent=jnp.int32(0),
        origin=jnp.float32(0.0),
        older=jnp.zeros((2, _LEVELS, _ROW), jnp.float32),
        n_older=jnp.zeros(_LEVELS, jnp.int32),
    )


def _check(state: Adwin, delta: float) -> tuple[Adwin, Alarm]:
    """Drop the oldest buckets while any cut is significant; start anew if one was dropped."""
    first = state.recent[_RECENT - _CLOCK]
    state = state._replace(origin=jnp.where(state.n_recent == _CLOCK, first, state.origin))
    buckets = _buckets(state)
    ends = _running(buckets.size)

    def kept(dropped: jax.Array) -> jax.Array:
        return jnp.where(ends > dropped, buckets.size, 0.0)

    def look(carry: _Looked) -> _Looked:
        """Drop the oldest bucket if there is a significant cut of what was not dropped yet."""
        dropped, clearest, _ = carry
        size = kept(dropped)
        cut = _clearest_cut(buckets._replace(size=size), ends - dropped, delta)
        significant = cut.difference > cut.bound
        oldest = jnp.min(jnp.where((size > 0) & _BORDERS, ends, jnp.inf))
        clearest = jax.tree.map(lambda a, b: jnp.where(dropped > 0, a, b), clearest, cut)
        return jnp.where(significant, oldest, dropped), clearest, significant

    nothing = jnp.float32(0.0)
    dropped, clearest, _ = lax.while_loop(
        lambda carry: carry[2], look, (nothing, _Cut(nothing, nothing), jnp.bool_(True))
    )
    fired = dropped > 0
    new = kept(dropped)
    alarm = Alarm(
        fired=fired,
        warning=jnp.bool_(False),
        before=state.origin + _mean(buckets.size - new, buckets.mean),
        after=state.origin + _mean(new, buckets.mean),
        statistic=clearest.difference,
        threshold=clearest.bound,
        window=ends[-1],
    )
    new_state = jax.tree.map(lambda a, b: jnp.where(fired, a, b), _empty(), _age(state))
    return new_state, evident(alarm)


def _buckets(state: Adwin) -> _Buckets:
    present = np.arange(_ROW) < state.n_older[:, None]
    there = np.arange(_RECENT) >= _RECENT - state.n_recent
    size = jnp.where(present, _OLDER_SIZES[:, None], 0.0).ravel()
    values = state.recent - state.origin
    return _Buckets(
        jnp.concatenate([size, there.astype(jnp.float32)]),
        jnp.concatenate([state.older[0].ravel(), values]),
        jnp.concatenate([state.older[1].ravel(), jnp.zeros(_RECENT)]),
    )


def _clearest_cut(buckets: _Buckets, n_old: jax.Array, delta: float) -> _Cut:
    """Return the cut, of those at a border of buckets, that exceeds its bound by most.

    There are f32[N] values up to each border.
    """
    size = buckets.size
    width = n_old[-1]
    deviation = buckets.mean - _mean(size, buckets.mean)  # keeps the running sums small
    excess = size * deviation
    squares = jnp.sum(jnp.where(size > 0, buckets.squares, 0.0) + excess * deviation)
    sum_old = _running(excess)
    n_new, sum_new = width - n_old, jnp.sum(excess) - sum_old
    border = (size > 0) & _BORDERS & (n_old >= _SHORTEST) & (n_new >= _SHORTEST)
    n_old, n_new = (jnp.maximum(n, _SHORTEST) for n in (n_old, n_new))
    confidence = jnp.log(2.0 * jnp.log(width) / delta)
    inverse = 1.0 / (n_old - (_SHORTEST - 1)) + 1.0 / (n_new - (_SHORTEST - 1))
    bound = jnp.sqrt(2.0 * inverse * (squares / width) * confidence)
    bound += 2.0 / 3.0 * confidence * inverse
    difference = jnp.where(border, jnp.abs(sum_old / n_old - sum_new / n_new), 0.0)
    clearest = jnp.argmax(difference - bound)
    return _Cut(difference[clearest], bound[clearest])


def _running(x: jax.Array) -> jax.Array:
    """Return the running sums of f32[N]."""

    def add(at: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total = carry[0] + x[at]
        return total, carry[1].at[at].set(total)

    sums: jax.Array = lax.fori_loop(0, len(x), add, (jnp.float32(0.0), jnp.zeros_like(x)))[1]
    return sums


def _mean(size: jax.Array, mean: jax.Array) -> jax.Array:
    return jnp.sum(size * mean) / jnp.maximum(jnp.sum(size), 1.0)


def _age(state: Adwin) -> Adwin:
    """Make room for 32 values: the 32 oldest of the recent become a bucket of the histogram."""
    values = state.recent[:_CLOCK] - state.origin
    mean = jnp.mean(values)
    bucket = jnp.stack([mean, jnp.sum((values - mean) ** 2)])
    a, b = state.older[..., 0], state.older[..., 1]
    merged = jnp.stack([(a[0] + b[0]) / 2.0, a[1] + b[1] + _OLDER_SIZES / 2.0 * (a[0] - b[0]) ** 2])
    # every size is offered what the next smaller one passes on; the first with room ends the chain
    incoming = jnp.concatenate([merged[:, 1:], bucket[:, None]], axis=1)[..., None]
    level, full = np.arange(_LEVELS)[::-1], state.n_older == _ROW
    takes = (state.n_recent == _RECENT) & (level <= jnp.min(jnp.where(full, _LEVELS, level)))
    vacant = jnp.zeros_like(incoming)
    shifted = jnp.concatenate([state.older[..., 2:], incoming, vacant], axis=2)
    appended = jnp.where(np.arange(_ROW) == state.n_older[:, None], incoming, state.older)
    return state._replace(
        recent=jnp.concatenate([state.recent[_CLOCK:], jnp.zeros(_CLOCK, jnp.float32)]),
        n_recent=jnp.minimum(state.n_recent, _RECENT - _CLOCK),
        older=jnp.where(takes[:, None], jnp.where(full[:, None], shifted, appended), state.older),
        n_older=state.n_older + jnp.where(takes, jnp.where(full, -1, 1), 0),
    )
