"""Columns in coarse bins, one by one and in pairs: an opinion for rules that run along the axes.

A row falls into one bin of each number, and into one cell of each of some pairs of columns; what it
says is the sum of what these have learned: a generalised additive model with pairwise interactions
(Lou, Caruana, Gehrke & Hooker 2013, "Accurate intelligible models with pairwise interactions"),
learned by Adagrad from each row. It sees what a tree two columns deep sees, without growing one.
Numbers are standardised, so the bins are those of a normal distribution; a missing one has a bin
of its own. Cells of a pair with a category are hashed. What frozen encoders make has no axes along
which rules would run, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model import losses
from headrace.model.members.member import Asked, Closing, Labels, Member
from headrace.model.mixture import opinion
from headrace.model.spec import Spec

ALONE = np.array([-1.1503, -0.6745, -0.3186, 0.0, 0.3186, 0.6745, 1.1503], np.float32)
TOGETHER = np.array([-0.6745, 0.0, 0.6745], np.float32)
"""Where bins end: quantiles of a standard normal."""
_ALONE, _TOGETHER = len(ALONE) + 2, len(TOGETHER) + 2  # bins, with that of a missing number
MOST = 16  # pairs
RATE = 0.1
KEPT = 1.0 - 1e-4  # of a cell's sum of squares at each row in it: else it ends by learning nothing
SOUND = 1e4  # a weight beyond it is none
HASHED = 1 << 12  # cells of a pair with a category


class Cells(NamedTuple):
    """Hold the S cells that each row falls into, and what is there."""

    at: Array  # i32[K, S]
    found: Array  # f32[K, S, 2 O]


def names(spec: Spec) -> list[str]:
    """Name the opinion, if there is anything to pair; of one category alone the words have it."""
    return ["pairs"] if len(spec.plain) + spec.categories > 1 else []


def init(spec: Spec) -> Array:
    """Start with an opinion of nothing, f32[V, 2 O]: weights, then Adagrad's sums of squares."""
    hashed = (_chosen(spec) >= len(spec.plain)).any(1).sum()
    pairs = (len(_chosen(spec)) - hashed) * _TOGETHER**2 + hashed * HASHED
    size = int(len(spec.plain) * _ALONE + pairs) if names(spec) else 0
    return jnp.zeros((size, 2 * spec.outputs))


def predict(
    spec: Spec, table: Array, asked: Sequence[Asked], labels: Labels
) -> tuple[list[Array], tuple[Cells, Labels]]:
    """Return an opinion f32[1, K, O] about each lot of rows; keep the cells of the first."""
    cells = [look_up(spec, table, rows.inputs, rows.ids, rows.begun) for rows in asked]
    return [opinion(spec, say(spec, each))[None] for each in cells], (cells[0], labels)


def update(spec: Spec, table: Array, learned: tuple[Cells, Labels], closing: Closing) -> Array:
    """Learn from the rows of a chunk, all at once."""
    cells, labels = learned
    return descend(spec, table, cells, labels.goal, closing.apply, labels.weight)


def look_up(spec: Spec, table: Array, inputs: Array, ids: Array, begun: Array) -> Cells:
    """Read the cells of rows, by inputs f32[K, I] and ids u32[K, S].

    The branch, always taken once a row has `begun`, keeps XLA from reading the table again for each
    use: then it would have to copy it all before every update.
    """
    at = _places(spec, inputs, ids)
    shape = (*at.shape, table.shape[1])
    return Cells(at, lax.cond(begun, lambda: table[at], lambda: jnp.zeros(shape)))


def say(spec: Spec, cells: Cells) -> Array:
    """Return outputs f32[K, O] of rows."""
    return losses.around(spec, _weights(cells.found[..., : spec.outputs]).sum(1))


def descend(
    spec: Spec,
    table: Array,
    cells: Cells,
    goal: Array,
    apply: Array,
    weight: Array | None = None,
) -> Array:
    """Step by Adagrad towards the goals f32[K] of rows, NaN = none; do nothing unless `apply`.

    A `weight` f32[K] says how much each row counts.
    """
    known = ~jnp.isnan(goal)
    slope = losses.slope(spec, say(spec, cells), jnp.where(known, goal, 0.0), weight)
    share = jnp.where(known, 1.0 / jnp.maximum(known.sum(), 1), 0.0)
    slopes = jnp.repeat(slope * share[:, None], cells.at.shape[1], 0)
    slopes = jnp.where(jnp.isfinite(slopes), slopes, 0.0)
    places, count = cells.at.reshape(-1), jnp.where(apply, cells.at.size, 0)

    def move(one: Array, table: Array) -> Array:
        weights, squares = jnp.split(lax.dynamic_slice_in_dim(table, places[one], 1), 2, 1)
        slope = lax.dynamic_slice_in_dim(slopes, one, 1)
        squares = jnp.where(jnp.abs(squares) < jnp.inf, KEPT * jnp.maximum(squares, 0.0), 0.0)
        squares = squares + jnp.square(slope)
        weights = _weights(weights) - RATE / (jnp.sqrt(squares) + 1e-6) * slope
        row = jnp.concatenate([weights, squares], 1)
        return lax.dynamic_update_slice_in_dim(table, row, places[one], 0)

    moved: Array = lax.fori_loop(0, count, move, table)
    return moved


def _weights(found: Array) -> Array:
    return jnp.where(jnp.abs(found) < SOUND, found, 0.0)


def _places(spec: Spec, inputs: Array, ids: Array) -> Array:
    values = inputs[:, spec.pixels : spec.columns]
    missing = inputs[:, spec.columns : spec.columns + spec.numeric] > 0.0
    if len(spec.plain) < spec.numeric:
        values, missing = (of[:, np.array(spec.plain, int)] for of in (values, missing))
    alone, together = (
        jnp.where(missing, len(ends) + 1, (values[..., None] > ends).sum(-1))
        for ends in (ALONE, TOGETHER)
    )
    first, second = _chosen(spec).T
    plain = np.maximum(first, second) < len(spec.plain)
    numbers = together[:, first[plain]] * _TOGETHER + together[:, second[plain]]
    either = jnp.concatenate([together.astype(jnp.uint32), ids[:, : spec.categories]], 1)
    one, other = either[:, first[~plain]], either[:, second[~plain]]
    mixed = (one * jnp.uint32(0x9E3779B1) ^ (other + jnp.uint32(1))) * jnp.uint32(0x85EBCA6B)
    widths = [_ALONE] * len(spec.plain)
    widths += [_TOGETHER**2] * plain.sum() + [HASHED] * (~plain).sum()
    starts = np.cumsum([0, *widths])[:-1].astype(np.int32)
    within = jnp.concatenate([alone, numbers, mixed % HASHED], 1, dtype=jnp.int32)
    return within + jnp.asarray(starts)


def _chosen(spec: Spec) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return pairs of columns [P, 2], numbers before categories: all, or MOST of them by chance."""
    every = list(combinations(range(len(spec.plain) + spec.categories), 2))
    drawn = np.random.default_rng(spec.seed).permutation(len(every))[:MOST]
    return np.array([every[at] for at in sorted(drawn.tolist())], np.int64).reshape(-1, 2)


MEMBER = Member(names, init, predict, update)
