"""Rows that were predicted and wait for their label, which comes in a line of its own.

A fixed number of slots: who fills them, and which are free, is known outside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model.spec import Spec

WORD = 32  # flags in one number


class WaitingRow(NamedTuple):
    """Hold a row as it was predicted, and what was published; Q is 1 if rows have a weight."""

    inputs: Array  # f32[I]; in a slot f32[I - F], without the F flags among them
    flags: Array  # u32[F / 32]; none but in a slot
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
    size, flags = spec.waiting, len(spec.flags)
    return WaitingRow(
        inputs=jnp.zeros((size, spec.inputs - flags)),
        flags=jnp.zeros((size, -(-flags // WORD)), jnp.uint32),
        ids=jnp.zeros((size, spec.ids), jnp.uint32),
        past=jnp.full((size, spec.past_labels), jnp.nan),
        weight=jnp.ones((size, int(spec.weighted))),
        entity=jnp.zeros((size, 2), jnp.uint32),
        published=jnp.full((size, spec.published), jnp.nan),
        number=jnp.zeros(size, jnp.uint32),
    )._asdict()


def row_bytes(spec: Spec) -> int:
    """Return how many bytes a slot takes."""
    flags = len(spec.flags)
    inputs = spec.inputs - flags + -(-flags // WORD)
    return 4 * (inputs + spec.ids + spec.past_labels + int(spec.weighted) + spec.published + 3)


def put(spec: Spec, slots: dict[str, Any], slot: Array, row: WaitingRow) -> dict[str, Any]:
    """Put a row into a slot."""
    flags, numbers = spec.flags, _numbers(spec)
    bits = jnp.zeros(-(-len(flags) // WORD) * WORD, jnp.uint32)
    bits = bits.at[: len(flags)].set(row.inputs[np.array(flags, int)].astype(jnp.uint32))
    words = (bits.reshape(-1, WORD) << np.arange(WORD, dtype=np.uint32)).sum(1, dtype=jnp.uint32)
    kept = row._replace(inputs=row.inputs[numbers], flags=words)
    return {name: slots[name].at[slot].set(value) for name, value in kept._asdict().items()}


def take(spec: Spec, slots: dict[str, Any], slot: Array) -> WaitingRow:
    """Return the row in a slot, where it stays until another one is put there."""
    kept = WaitingRow(**{name: values[slot] for name, values in slots.items()})
    flags = spec.flags
    bits = (kept.flags[:, None] >> np.arange(WORD, dtype=np.uint32)) & 1
    both = jnp.concatenate([kept.inputs, bits.reshape(-1)[: len(flags)].astype(jnp.float32)])
    order = np.argsort(np.append(_numbers(spec), np.array(flags, int)))
    return kept._replace(inputs=both[order], flags=kept.flags[:0])


def _numbers(spec: Spec) -> Any:
    return np.setdiff1d(np.arange(spec.inputs), np.array(spec.flags, int))
