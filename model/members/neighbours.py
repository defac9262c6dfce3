"""Votes of the rows met last, the nearest of them counting most: a learner without training.

The rows of a window are weighed by how near they lie to a new one, three times: by two kernels that
are nearly Gaussian (Nadaraya 1964, Watson 1964) and by a power of the distance, the nearest row
setting the scale each time, so that there is always somebody to ask. A window forgets by itself,
which makes neighbours strong where the world moves (Losing, Hammer & Wersing 2016, "KNN classifier
with self adjusting memory for heterogeneous concept drift").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from headrace.model.members.member import Asked, Closing, Labels, Member
from headrace.model.spec import Spec

WIDTH = 0.03  # of the wide kernel: mean squared difference of a column, in variances
TIE = 1e-7  # so little further, in the same unit, is as near
LATE_TIE = 1e-4  # where labels come late: equal rows differ as what they are standardised by moves,
# and the newest would be the nearest, of which those alone are labelled whose class is told first
FAR = 1e9
NEVER = 1e15  # so far that nobody hears it, were there only empty places
DOUBT = 0.01  # a vote for every class, so that none is ever ruled out


class NeighboursState(NamedTuple):
    """Hold the newest W rows and the open chunk's; D columns, C categories, V voices of each."""

    columns: Array  # f32[D, W]  pixels, and values as standardised when they were met
    squares: Array  # f32[W]  sums of their squares, FAR where there is no row yet
    ids: Array  # u32[C, W]
    voices: Array  # f32[V, W]  one for the class, or the goal and 1, times the row's weight
    next: Array  # i32[]  the place that is written next


def names(spec: Spec) -> list[str]:
    """Name the three votes, if there is a window."""
    return [f"neighbours {how}" for how in ("wide", "narrow", "nearest")] if spec.neighbours else []


def init(spec: Spec) -> NeighboursState:
    """Start with an empty window."""
    size = (spec.neighbours or 1) + (spec.chunk if spec.chunk > 1 else 0)
    return NeighboursState(
        columns=jnp.zeros((spec.columns, size)),
        squares=jnp.full(size, FAR),
        ids=jnp.zeros((spec.categories, size), jnp.uint32),
        voices=jnp.zeros((spec.classes or 2, size)),
        next=jnp.int32(0),
    )


def predict(
    spec: Spec, state: NeighboursState, asked: Sequence[Asked], labels: Labels
) -> tuple[list[Array], Any]:
    """Return the votes f32[3, K, O] about each lot of rows.

    The rows of a chunk of several are in the window before it is full, and each hears those before
    it only; they stay if the next place to be written comes after them.
    """
    own: list[tuple[Array, Array]] = [
        (rows.inputs[:, : spec.columns], rows.ids[:, : spec.categories]) for rows in asked
    ]
    if spec.chunk == 1:
        return [vote(spec, state, *rows) for rows in own], (own[0], labels)
    after = remember(spec, state, *own[0], labels.goal, labels.weight)
    window, known = after._replace(next=state.next), ~jnp.isnan(labels.goal)
    before = jnp.cumsum(known) - known
    return [vote(spec, window, *rows, before) for rows in own], after


def update(spec: Spec, state: NeighboursState, learned: Any, closing: Closing) -> NeighboursState:
    """Remember the rows of a chunk."""
    if spec.chunk > 1:
        after: NeighboursState = learned
        return after._replace(next=jnp.where(closing.full, after.next, state.next))
    (columns, ids), labels = learned
    state = state._replace(next=state.next + closing.last)
    return remember(spec, state, columns, ids, labels.goal, labels.weight)


def about_to_learn(spec: Spec, state: NeighboursState) -> NeighboursState:
    """Return the window without the places that the rows of the next chunk are written to."""
    size = len(state.squares)
    written = (jnp.arange(size) - state.next) % size < spec.chunk
    return state._replace(squares=jnp.where(written, NEVER, state.squares))


def vote(
    spec: Spec, state: NeighboursState, rows: Array, ids: Array, before: Array | None = None
) -> Array:
    """Return the opinions f32[3, K, O] about rows f32[K, D] with categories u32[K, C].

    Of the K places from `state.next` on, each row hears only as many as i32[K] say, those of the
    rows `before` it in an open chunk; of a chunk of one, all are older.
    Row by row: what a row needs stays in the cache, and products with one vector are fast.

    Returns:
        logarithms of class probabilities, or goals; zeros while the window is empty.
    """
    if before is None:
        return _vote(spec, state, rows[0], ids[0], state.squares)[:, None]
    size = len(state.squares)
    place = (jnp.arange(size) - state.next) % size
    place = jnp.where(place < len(rows), place, -1)

    def one(row: tuple[Array, Array, Array]) -> Array:
        squares = jnp.where(place < row[2], state.squares, NEVER)
        return _vote(spec, state, row[0], row[1], squares)

    opinions: Array = lax.map(one, (rows, ids, before))
    return opinions.swapaxes(0, 1)


def _vote(spec: Spec, state: NeighboursState, row: Array, ids: Array, squares: Array) -> Array:
    apart = squares + jnp.square(row).sum() - 2.0 * row @ state.columns
    for column in range(spec.categories):
        apart = apart + 2.0 * (ids[column] != state.ids[column])
    apart = jnp.where(apart > 0.0, apart, 0.0) / (spec.columns + spec.categories)
    nearest = _least(apart)
    wide = _fall((apart - nearest) * (1.0 / WIDTH))
    tie = LATE_TIE if spec.waiting else TIE
    ratio = jnp.square((nearest + tie) / (apart + tie))
    kernels = (wide, wide * wide * wide, ratio * ratio)
    votes = jnp.stack([state.voices @ weights for weights in kernels])
    if spec.classes:
        votes = votes + DOUBT / spec.classes
        return jnp.log(votes / votes.sum(1, keepdims=True))
    return votes[:, :1] / jnp.maximum(votes[:, 1:], 1e-30)


def _least(apart: Array) -> Array:
    """Return the least of f32[W]: halves against each other, for that is made vector code."""
    while len(apart) > 1:
        half = len(apart) // 2
        one, other, odd = jnp.split(apart, [half, 2 * half])
        apart = jnp.concatenate([jnp.where(one < other, one, other), odd])
    return apart[0]


def _fall(apart: Array) -> Array:
    """Return nearly exp(-apart), apart >= 0: (1 - apart / 64)^64, in a third of the time."""
    kernel = 1.0 - apart / 64.0
    kernel = jnp.where(kernel > 0.0, kernel, 0.0)
    for _ in range(6):
        kernel = kernel * kernel
    return kernel


def remember(
    spec: Spec,
    state: NeighboursState,
    rows: Array,
    ids: Array,
    labels: Array,
    weight: Array | None = None,
) -> NeighboursState:
    """Put rows f32[K, D] with labels f32[K], NaN = none, in place of the oldest.

    A row without a label leaves a place without a voice, which is written next. A `weight` f32[K]
    says how much each voice counts.
    """
    counts = ~jnp.isnan(labels)
    if spec.classes:
        voices = (labels == jnp.arange(spec.classes)[:, None]).astype(jnp.float32)
    else:
        voices = jnp.where(counts, jnp.stack([labels, jnp.ones(len(labels))]), 0.0)
    if weight is not None:
        voices = voices * weight
    squares = jnp.where(counts, jnp.square(rows).sum(1), FAR)

    def put(row: Any, state: NeighboursState) -> NeighboursState:
        def write(old: Array, new: Array) -> Array:
            one = lax.dynamic_slice_in_dim(new, row, 1, -1)
            return lax.dynamic_update_slice_in_dim(old, one, state.next, -1)

        return NeighboursState(
            columns=write(state.columns, rows.T),
            squares=write(state.squares, squares),
            ids=write(state.ids, ids.T),
            voices=write(state.voices, voices),
            next=(state.next + counts[row]) % state.squares.shape[0],
        )

    if len(rows) == 1:
        return put(0, state)
    after: NeighboursState = lax.fori_loop(0, len(rows), put, state)
    return after


MEMBER = Member(names, init, predict, update)
