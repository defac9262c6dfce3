"""The seasonal naive forecast as a member of headrace's pool.

Hyndman and Athanasopoulos, Forecasting: Principles and Practice, section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model import target
from headrace.model.members import Asked, Labels, by_row
from headrace.model.spec import Spec

SEASON = 24  # labels


class Season(NamedTuple):
    """Hold the labels of the newest season of the stream."""

    labels: Array  # f32[SEASON]  in places that are written in turn, NaN = none yet
    next: Array  # i32[]  the place of the oldest


def names(spec: Spec) -> list[str]:
    """Name the opinion, which is of numbers."""
    return [] if spec.classes else ["a season ago"]


def init(spec: Spec) -> Season:
    """Start with no labels."""
    return Season(jnp.full(SEASON, jnp.nan), jnp.int32(0))


def predict(spec: Spec, state: Season, asked: Asked) -> Array:
    """Return the opinion f32[1, K, O]: the label of a season ago, as a goal of the networks."""
    last = asked.past[:, 0]
    label = jnp.broadcast_to(state.labels[state.next], last.shape)
    goal = target.same(asked.target, label, last)
    return jnp.broadcast_to(goal[None, :, None], (1, len(last), spec.outputs))


def update(spec: Spec, state: Season, row: Asked, came: Labels) -> Season:
    """Put a row's label in place of the oldest, unless it is NaN."""
    known = ~jnp.isnan(came.label)
    labels = state.labels.at[state.next].set(came.label)
    return Season(
        jnp.where(known, labels, state.labels),
        jnp.where(known, (state.next + 1) % SEASON, state.next),
    )


def convert(state: Season, to: Callable[[Any], Any]) -> Season:
    """Convert the labels, as numbers are counted from another origin now, in another unit."""
    return state._replace(labels=to(state.labels))


MEMBER = by_row(names, init, predict, update, convert=convert)
