"""Hashed ids through one table of vectors; an event touches only the rows that it names.

A table row holds `embedding` numbers that feed the network and one weight for each output that
is added to the output as it is. The second part is hashed logistic (or linear) regression, which
learns a rare word from a single event; the first lets words work together.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model.spec import Spec

RATE = 0.1


class Embedded(NamedTuple):
    """Hold the ids of rows as vectors of E numbers."""

    single: Array  # f32[K, C * E]  of categories and crosses, one vector beside the other
    bags: Array  # f32[K, G * E]  of each list's ids and of all tokens, added up
    words: Array  # f32[K, sum(spec.words), E]  in their order, zeros where there is none
    spoken: Array  # bool[K, sum(spec.words)]  where there is one


class TableState(NamedTuple):
    """Hold the vectors and Adagrad's accumulators (Duchi, Hazan & Singer 2011)."""

    rows: Array  # f32[V, E+O]
    squares: Array  # f32[V, E+O]


def init(spec: Spec) -> TableState:
    """Draw small vectors; the direct weights start at zero."""
    size = (1 << spec.table_bits) if spec.ids else 1
    vectors = 0.1 * jax.random.normal(jax.random.key(spec.seed), (size, spec.embedding))
    rows = jnp.concatenate([vectors, jnp.zeros((size, spec.outputs))], 1)
    return TableState(rows, jnp.zeros_like(rows))


def slots(spec: Spec, ids: Array) -> Array:
    """Map hashed ids u32[...] to table rows i32[...]."""
    return jnp.asarray(ids & jnp.uint32((1 << spec.table_bits) - 1), jnp.int32)


def look_up(spec: Spec, state: TableState, ids: Array) -> Array:
    """Read the rows f32[K, S, E+O] of ids u32[K, S]; nothing is read where all are absent.

    The branch also keeps XLA from reading the table again, later, for each use of a row: then it
    would have to copy the table before every update.
    """
    at = slots(spec, ids)
    shape = (*at.shape, state.rows.shape[1])
    found: Array = lax.cond((ids != 0).any(), lambda: state.rows[at], lambda: jnp.zeros(shape))
    return found


def features(spec: Spec, rows: Array, ids: Array) -> tuple[Embedded, Array]:
    """Combine the rows f32[K, S, E+O] of ids u32[K, S].

    Returns:
        what networks see of them, and direct outputs f32[K, O].
    """
    present = (ids != 0).astype(jnp.float32)[..., None]
    rows = rows * present
    borders = np.cumsum([spec.single_ids, *spec.bags])
    single, *bags, words = jnp.split(rows, borders, 1)
    direct = single[..., spec.embedding :].sum(1)
    vectors = [single[..., : spec.embedding].reshape(len(rows), -1)]
    for bag, there in zip(bags, jnp.split(present, borders, 1)[1:], strict=False):
        found = jnp.sqrt(jnp.maximum(there.sum(1), 1.0))
        direct = direct + bag[..., spec.embedding :].sum(1) / found
        vectors.append(bag[..., : spec.embedding].sum(1) / found)
    first, *sums = vectors
    bagged = jnp.concatenate([jnp.zeros((len(rows), 0)), *sums], 1)
    return Embedded(first, bagged, words[..., : spec.embedding], ids[:, borders[-1] :] != 0), direct


def width(spec: Spec) -> int:
    """Count the numbers of a row's `Embedded.single` and `bags`."""
    return (spec.single_ids + len(spec.bags)) * spec.embedding


def descend(state: TableState, at: Array, gradient: Array, apply: Array) -> TableState:
    """Step by Adagrad on rows i32[K, S] with gradients f32[K, S, E+O]; do nothing unless `apply`.

    A row that is named more than once moves by the sum of its gradients. Gradients that are not
    finite count as 0. Rows are written one by one: a scatter would be a program of its own.
    """
    at, gradient = at.reshape(-1), gradient.reshape(at.size, -1)
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
    count = jnp.where(apply, at.size, 0)

    def add(table: Array, one: Array, values: Array) -> Array:
        row = lax.dynamic_slice_in_dim(table, at[one], 1)
        return lax.dynamic_update_slice_in_dim(table, row + values, at[one], 0)

    squares = lax.fori_loop(
        0, count, lambda one, table: add(table, one, jnp.square(gradient[one])), state.squares
    )

    def move(one: Array, table: Array) -> Array:
        size = jnp.sqrt(lax.dynamic_slice_in_dim(squares, at[one], 1)) + 1e-6
        return add(table, one, -RATE / size * gradient[one])

    return TableState(lax.fori_loop(0, count, move, state.rows), squares)
