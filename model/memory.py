"""What is remembered of each entity: its last labels, its last rows, its open predictions.

A fixed number of slots in sets of four, found by a keyed hash; the least recently used of a full
set makes room. So memory is bounded, lookups cost the same for ever, and it is all in the state.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from headrace.model import aggregates, counter
from headrace.model.spec import Spec
from headrace.model.xla import order_after

WAYS = 4


class Remembered(NamedTuple):
    """Hold one entity; with a leading axis E, all. h is the horizon, I inputs, S ids.

    Q is 1 if rows have a weight, else 0.
    """

    seen: Array  # i32[]  events of the entity, less multiples of h once there are 2 h
    labels: Array  # f32[L]  last known labels, newest first, NaN = none
    numeric: Array  # f32[W, N]  earlier rows, newest first
    windows: aggregates.Known
    fading: Array  # f32[T, N]  fading means of the columns, NaN = none yet
    inputs: Array  # f32[h, I]  rows whose label is still to come
    ids: Array  # u32[h, S]
    past: Array  # f32[h, P]  the labels known when they were predicted
    weight: Array  # f32[h, Q]  how much they teach


class MemoryState(NamedTuple):
    """Hold E slots; P is the count of published numbers."""

    key: Array  # u32[E]  second half of the entity's hash
    rank: Array  # u8[E]  slots of its set that were visited since, WAYS = empty
    left: Array  # u32[2]  entities that had to leave: a `counter`
    slots: Remembered  # with a leading axis E
    published: Array  # f32[E, h, P]  what was predicted for the open rows


def init(spec: Spec) -> MemoryState:
    """Make empty slots: enough whole sets for `spec.entities`, or one without entities."""
    size = -(-spec.entities // WAYS) * WAYS or 1
    return MemoryState(
        key=jnp.zeros(size, jnp.uint32),
        rank=jnp.full(size, WAYS, jnp.uint8),
        left=counter.zero(),
        slots=jax.tree.map(lambda x: jnp.repeat(x[None], size, 0), _nothing(spec)),
        published=jnp.zeros((size, spec.horizon, spec.published)),
    )


def lookup(spec: Spec, state: MemoryState, entity: Array) -> tuple[MemoryState, Array, Remembered]:
    """Find the slot i32[] of entity u32[2] and what it holds; a newcomer takes the stalest.

    The branch makes XLA read a slot once, before it is written: so the memory is updated in place
    however large it is.
    """
    if not spec.entities:
        return state, jnp.int32(0), jax.tree.map(lambda values: values[0], state.slots)
    sets = jnp.uint32(state.key.shape[0] // WAYS)
    first = (entity[0] % sets).astype(jnp.int32) * WAYS
    rank = lax.dynamic_slice_in_dim(state.rank, first, WAYS)
    found = (lax.dynamic_slice_in_dim(state.key, first, WAYS) == entity[1]) & (rank < WAYS)
    known = found.any()
    place = jnp.where(known, jnp.argmax(found), jnp.argmax(rank)).astype(jnp.int32)
    slot = first + place
    ranked = jnp.where(jnp.arange(WAYS) == place, 0, rank + (rank < rank[place])).astype(jnp.uint8)
    held = lax.cond(
        known,
        lambda: jax.tree.map(lambda values: values[slot], state.slots),
        lambda: _nothing(spec),
    )
    left = counter.add(state.left, ~known & (rank.max() < WAYS))
    state = state._replace(
        key=state.key.at[slot].set(entity[1]),
        rank=lax.dynamic_update_slice_in_dim(state.rank, ranked, order_after(left, first), 0),
        left=left,
    )
    return state, slot, held


def store(state: MemoryState, slot: Array, held: Remembered) -> MemoryState:
    """Put one entity back."""
    slots = jax.tree.map(lambda values, new: values.at[slot].set(new), state.slots, held)
    return state._replace(slots=slots)


def fade(spec: Spec, means: Array, numeric: Array) -> Array:
    """Move fading means f32[T, N] towards a row f32[N]; the first value counts whole."""
    share = 1.0 / jnp.asarray(spec.traces, jnp.float32)[:, None]
    moved = jnp.where(jnp.isnan(means), numeric, means + share * (numeric - means))
    return jnp.where(jnp.isnan(numeric), means, moved)


def push(history: Array, newest: Array) -> Array:
    """Put `newest` first in a short history, dropping the oldest."""
    return jnp.concatenate([newest[None], history])[: len(history)]


def _nothing(spec: Spec) -> Remembered:
    return Remembered(
        seen=jnp.int32(0),
        labels=jnp.full(max(spec.label_lags, spec.past_labels), jnp.nan),
        numeric=jnp.full((spec.numeric_lags, spec.numeric), jnp.nan),
        windows=aggregates.nothing(spec),
        fading=jnp.full((len(spec.traces), spec.numeric), jnp.nan),
        inputs=jnp.zeros((spec.horizon, spec.inputs)),
        ids=jnp.zeros((spec.horizon, spec.ids), jnp.uint32),
        past=jnp.full((spec.horizon, spec.past_labels), jnp.nan),
        weight=jnp.ones((spec.horizon, int(spec.weighted))),
    )
