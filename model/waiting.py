"""Rows that were predicted and wait for their label, which comes in a line of its own.

A fixed number of slots: who fills them, and which are free, is known outside. A row can be taken
out, as W words of 32 bits, and come back with its label.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from headrace.model.spec import Spec

WORD = 32  # flags in one number
LABELS = ("past", "published")  # what is in the unit of the labels, where these are numbers


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
    return 4 * sum(width for _, width in _widths(spec))


def words(spec: Spec) -> int:
    """Count the words that a row takes outside, W; 0 if rows stay in their slots."""
    return row_bytes(spec) // 4 if spec.loads else 0


def labels_of(spec: Spec) -> tuple[slice, ...]:
    """Return which of the words of a row are floats in the unit of the labels."""
    ends = np.cumsum([width for _, width in _widths(spec)])
    return tuple(
        slice(end - width, end)
        for (name, width), end in zip(_widths(spec), ends.tolist(), strict=True)
        if name in LABELS
    )


def _widths(spec: Spec) -> list[tuple[str, int]]:
    flags = len(spec.flags)
    return [
        ("inputs", spec.inputs - flags),
        ("flags", -(-flags // WORD)),
        ("ids", spec.ids),
        ("past", spec.past_labels),
        ("weight", int(spec.weighted)),
        ("entity", 2),
        ("published", spec.published),
        ("number", 1),
    ]


def put(spec: Spec, slots: dict[str, Any], slot: Array, row: WaitingRow) -> dict[str, Any]:
    """Put a row into a slot."""
    flags, numbers = spec.flags, _numbers(spec)
    bits = jnp.zeros(-(-len(flags) // WORD) * WORD, jnp.uint32)
    bits = bits.at[: len(flags)].set(row.inputs[np.array(flags, int)].astype(jnp.uint32))
    words = (bits.reshape(-1, WORD) << np.arange(WORD, dtype=np.uint32)).sum(1, dtype=jnp.uint32)
    kept = row._replace(inputs=row.inputs[numbers], flags=words)
    return {name: slots[name].at[slot].set(value) for name, value in kept._asdict().items()}


def take(spec: Spec, slots: dict[str, Any], slot: Array, loaded: Array) -> WaitingRow:
    """Return the row in a slot, where it stays until another one is put there.

    Args:
        slot: -1 for the row that is loaded.
        loaded: as one of `pack`, u32[W]; W is 0 if rows stay in their slots.
    """
    kept = WaitingRow(**{name: values[slot] for name, values in slots.items()})
    if spec.loads:
        brought = _unpack(spec, loaded)
        kept = WaitingRow(
            *(jnp.where(slot < 0, new, old) for new, old in zip(brought, kept, strict=True))
        )
    flags = spec.flags
    bits = (kept.flags[:, None] >> np.arange(WORD, dtype=np.uint32)) & 1
    both = jnp.concatenate([kept.inputs, bits.reshape(-1)[: len(flags)].astype(jnp.float32)])
    order = np.argsort(np.append(_numbers(spec), np.array(flags, int)))
    return kept._replace(inputs=both[order], flags=kept.flags[:0])


def pack(spec: Spec, slots: dict[str, Any], wanted: Array) -> Array:
    """Return the rows in some slots i32[B, 1] as words, u32[B, W]."""
    if not spec.loads:
        return jnp.zeros((len(wanted), 0), jnp.uint32)
    columns = [
        slots[name][wanted[:, 0]].reshape(len(wanted), width) for name, width in _widths(spec)
    ]
    return jnp.concatenate([lax.bitcast_convert_type(each, jnp.uint32) for each in columns], 1)


def _unpack(spec: Spec, row: Array) -> WaitingRow:
    ends = np.cumsum([width for _, width in _widths(spec)])
    parts = dict(zip(WaitingRow._fields, jnp.split(row, ends[:-1]), strict=True))
    for name in ("inputs", "past", "weight", "published"):
        parts[name] = lax.bitcast_convert_type(parts[name], jnp.float32)
    return WaitingRow(**parts)._replace(number=parts["number"][0])


def _numbers(spec: Spec) -> Any:
    return np.setdiff1d(np.arange(spec.inputs), np.array(spec.flags, int))
