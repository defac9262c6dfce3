"""Votes of the rows met last, the nearest of them counting most: a learner without training.

The rows of a window are weighed by how near they lie to a new one, three times: by two Gaussian
kernels (Nadaraya 1964, Watson 1964) and by a power of the distance, the nearest row setting the
scale each time, so that there is always somebody to ask. A window forgets by itself, which makes
neighbours strong where the world moves (Losing, Hammer & Wersing 2016, "KNN classifier with self
adjusting memory for heterogeneous concept drift").
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from model.spec import Spec

VOTES = ("neighbours wide", "neighbours narrow", "neighbours nearest")
WIDTH = 0.03  # of the wide kernel: mean squared difference of a column, in variances
FAR = 1e9
DOUBT = 0.01  # a vote for every class, so that none is ever ruled out


class NeighboursState(NamedTuple):
    """Hold the newest W rows; D columns, C categories."""

    columns: Array  # f32[D, W]  pixels, and values as standardised when they were met
    squares: Array  # f32[W]  sums of their squares
    ids: Array  # u32[C, W]
    labels: Array  # f32[W]  class index or goal, NaN = no row yet
    next: Array  # i32[]  the place that is written next


def init(spec: Spec) -> NeighboursState:
    """Start with an empty window."""
    size = spec.neighbours or 1
    return NeighboursState(
        columns=jnp.zeros((spec.columns, size)),
        squares=jnp.zeros(size),
        ids=jnp.zeros((spec.categories, size), jnp.uint32),
        labels=jnp.full(size, jnp.nan),
        next=jnp.int32(0),
    )


def vote(spec: Spec, state: NeighboursState, rows: Array, ids: Array) -> Array:
    """Give the opinions f32[VOTES, K, O] about rows f32[K, D] with categories u32[K, C].

    Returns:
        logarithms of class probabilities, or goals; zeros while the window is empty.
    """
    apart = state.squares + jnp.square(rows).sum(1)[:, None] - 2.0 * rows @ state.columns
    apart = jnp.maximum(apart, 0.0)
    for column in range(spec.categories):
        apart = apart + 2.0 * (ids[:, column, None] != state.ids[column])
    apart = jnp.where(jnp.isnan(state.labels), FAR, apart / (spec.columns + spec.categories))
    nearest = apart.min(1, keepdims=True)
    wide = jnp.exp((nearest - apart) * (1.0 / WIDTH))
    ratio = jnp.square((nearest + 1e-7) / (apart + 1e-7))
    weights = jnp.stack([wide, wide * wide * wide, ratio * ratio])
    weights = jnp.where(jnp.isnan(state.labels), 0.0, weights)
    if spec.classes:
        voices = state.labels[:, None] == jnp.arange(spec.classes)
        votes = weights @ voices.astype(jnp.float32) + DOUBT / spec.classes
        return jnp.log(votes / votes.sum(-1, keepdims=True))
    goals = jnp.where(jnp.isnan(state.labels), 0.0, state.labels)
    return (weights @ goals / jnp.maximum(weights.sum(-1), 1e-30))[..., None]


def remember(
    state: NeighboursState, rows: Array, ids: Array, labels: Array, apply: Array
) -> NeighboursState:
    """Put rows f32[K, D] with labels f32[K] in place of the oldest; NaN labels are passed over."""
    size, counts = state.labels.shape[0], apply & ~jnp.isnan(labels)
    if len(labels) == 1:
        at = state.next  # what is passed over leaves a place without a label, to be written next

        def write(old: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(old, new, at, -1)

        labels = jnp.where(counts, labels, jnp.where(apply, jnp.nan, state.labels[at]))
    else:
        at = jnp.where(counts, (state.next + jnp.cumsum(counts) - 1) % size, size)

        def write(old: Array, new: Array) -> Array:
            return old.at[..., at].set(new, mode="drop")

    return NeighboursState(
        columns=write(state.columns, rows.T),
        squares=write(state.squares, jnp.square(rows).sum(1)),
        ids=write(state.ids, ids.T),
        labels=write(state.labels, labels),
        next=(state.next + counts.sum().astype(jnp.int32)) % size,
    )
