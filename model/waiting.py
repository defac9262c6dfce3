"""Rows that were predicted and wait for their label, which comes in a line of its own.

A fixed number of slots: who fills them, and which are free, is known outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model.spec import Spec


class WaitingRow(NamedTuple):
    """Hold a row as it was predicted, and what was published; Q is 1 if rows have a weight."""

    inputs: Array  # f32[I]
    ids: Array  # u32[S]
    past: Array  # f32[P]  the entity's last known labels then
    weight: Array  # f32[Q]
    entity: Array  # u32[2]
    published: Array  # f32[published]
    number: Array  # u32[]  of the row, in the order of their coming


def init(spec: Spec) -> dict[str, Any]:
    """Make empty slots, by the names of WaitingRow; {} if no row ever waits."""
    if not spec.waiting:
        return {}
    size = spec.waiting
    return WaitingRow(
        inputs=jnp.zeros((size, spec.inputs)),
        ids=jnp.zeros((size, spec.ids), jnp.uint32),
        past=jnp.full((size, spec.past_labels), jnp.nan),
        weight=jnp.ones((size, int(spec.weighted))),
        entity=jnp.zeros((size, 2), jnp.uint32),
        published=jnp.full((size, spec.published), jnp.nan),
        number=jnp.zeros(size, jnp.uint32),
    )._asdict()


def row_bytes(spec: Spec) -> int:
    """Return how many bytes a slot takes."""
    row = (spec.inputs, spec.ids, spec.past_labels, int(spec.weighted), 2, spec.published, 1)
    return 4 * sum(row)


def put(slots: dict[str, Any], slot: Array, row: WaitingRow) -> dict[str, Any]:
    """Put a row into a slot."""
    return {name: slots[name].at[slot].set(value) for name, value in row._asdict().items()}


def take(slots: dict[str, Any], slot: Array) -> WaitingRow:
    """Return the row in a slot, where it stays until another one is put there."""
    return WaitingRow(**{name: values[slot] for name, values in slots.items()})
