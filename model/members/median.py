"""The middle of the newest labels: what has the least absolute error if nothing else tells.

Of zeros and a long tail, the mean is a value that hardly ever comes, and a regression is drawn to
it. So the median of the entity's last labels and that of all the newest ones are opinions of their
own. The newest ones are kept in order of size as well, so a label costs a comparison with each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model import target
from headrace.model.members.member import Asked, Labels, by_row
from headrace.model.spec import Spec

NEWEST = 256  # labels: the error of their median is a third of a percent above the least


class MedianState(NamedTuple):
    """Hold the newest labels; empty for classes."""

    labels: Array  # f32[W]  in places that are written in turn, NaN = none yet
    ranked: Array  # f32[W]  the same from the least to the greatest, then NaN
    seen: Array  # i32[]  labels so far, less a multiple of W once they are 2 W


def names(spec: Spec) -> list[str]:
    """Name the opinions, which are of numbers."""
    return [] if spec.classes else ["median", "entity's median"]


def init(spec: Spec) -> MedianState:
    """Start with no labels."""
    none = jnp.full(0 if spec.classes else NEWEST, jnp.nan)
    return MedianState(none, none, jnp.int32(0))


def middle(state: MedianState) -> Array:
    """Return the median of all the newest labels f32[]; NaN of none, and of classes."""
    if not state.ranked.size:
        return jnp.asarray(jnp.nan)
    count = jnp.minimum(state.seen, len(state.ranked))
    return (state.ranked[(count - 1) // 2] + state.ranked[count // 2]) / 2.0


def predict(spec: Spec, state: MedianState, asked: Asked) -> Array:
    """Return opinions f32[2, K, O] about rows: medians of all newest labels, and of their past."""
    past = asked.past
    overall = jnp.broadcast_to(middle(state), (len(past),))
    said = target.same(asked.target, jnp.stack([overall, _of_last(past)]), past[:, 0])
    return jnp.broadcast_to(said[..., None], (*said.shape, spec.outputs))


def update(spec: Spec, state: MedianState, row: Asked, came: Labels) -> MedianState:
    """Put a row's label in place of the oldest, unless it is NaN."""
    (labels, ranked, seen), at = state, np.arange(len(state.labels))
    label, place = came.label, seen % len(at)
    oldest = labels[place]
    # An empty place is after all others: the last one goes, as there is nothing to take out.
    out = jnp.where(jnp.isnan(oldest), len(at) - 1, (ranked < oldest).sum())
    less = jnp.where(at < out, ranked, jnp.append(ranked[1:], jnp.nan))
    into = (less < label).sum()
    more = jnp.where(at < into, less, jnp.append(label, less[:-1]))
    more = jnp.where(at == into, label, more)
    seen = jnp.where(seen + 1 < 2 * len(at), seen + 1, len(at))
    learned = MedianState(labels.at[place].set(label), more, seen)
    known = ~jnp.isnan(label)
    return MedianState(
        *(jnp.where(known, new, old) for new, old in zip(learned, state, strict=True))
    )


def convert(state: MedianState, to: Callable[[Any], Any]) -> MedianState:
    """Convert the labels."""
    return state._replace(labels=to(state.labels), ranked=to(state.ranked))


def _of_last(labels: Array) -> Array:
    """Return the median f32[K] of each row's labels f32[K, P], NaN = none; each counts its rank."""
    count, places = (~jnp.isnan(labels)).sum(1), np.arange(labels.shape[1])
    one, other = labels[:, :, None], labels[:, None, :]
    below = (other < one) | ((other == one) & (places < places[:, None]))
    rank = below.sum(2)

    def ranked(wanted: Array) -> Array:
        at = (rank == wanted[:, None]) & ~jnp.isnan(labels)
        return jnp.where(at, labels, 0.0).sum(1)

    found = (ranked((count - 1) // 2) + ranked(count // 2)) / 2.0
    return jnp.where(count > 0, found, jnp.nan)


MEMBER = by_row(names, init, predict, update, alone=True, convert=convert)
