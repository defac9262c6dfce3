"""From a row of the batch to a row of the open chunk: scaled, with its lags and its due label."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax import Array

from headrace.model import aggregates, ladder, memory, scale
from headrace.model.batch import Batch
from headrace.model.spec import Spec
from headrace.model.state import State


def load_row(spec: Spec, state: State, batch: Batch, row: Array, at: Array) -> State:
    """Turn row `row` of the batch into place `at` of the open chunk."""
    numeric, ids, label = batch.numeric[row], batch.ids[row], batch.label[row]
    image = batch.image[row]
    kept, slot, held = memory.lookup(spec, state.memory, batch.entity[row])
    windows, numeric = aggregates.add(spec, held.windows, numeric, ids, batch.time[row])
    labels = jnp.where(jnp.isnan(label), held.labels, memory.push(held.labels, label))
    known = labels if spec.horizon else held.labels
    past = known[: spec.past_labels]
    internal = partial(ladder.to_internal_labels, spec, state.ladder)
    inputs = jnp.concatenate(
        [
            scale.transform(state.pixels, shares(image)).reshape(-1),
            seen(state.inputs, numeric),
            seen(state.inputs, held.numeric),
            scale.transform(state.inputs, numeric, held.fading).reshape(-1),
            label_inputs(spec, state.target.level, internal(known[: spec.label_lags])),
        ]
    )
    chunk = state.chunk._replace(
        numeric=state.chunk.numeric.at[at].set(numeric),
        inputs=state.chunk.inputs.at[at].set(inputs),
        ids=state.chunk.ids.at[at].set(ids),
        label=state.chunk.label.at[at].set(label),
        past=state.chunk.past.at[at].set(past),
        slot=state.chunk.slot.at[at].set(slot),
    )
    held = held._replace(windows=windows, labels=labels, numeric=memory.push(held.numeric, numeric))
    if spec.pixels:
        chunk = chunk._replace(image=chunk.image.at[at].set(image))
    if spec.weighted:
        chunk = chunk._replace(weight=chunk.weight.at[at].set(batch.weight[row]))
    if spec.traces:
        held = held._replace(fading=memory.fade(spec, held.fading, numeric))
    if spec.horizon:
        ring = held.seen % spec.horizon
        chunk = chunk._replace(
            turn=chunk.turn.at[at].set(jnp.where(held.seen >= spec.horizon, ring, -1 - ring)),
            due_inputs=chunk.due_inputs.at[at].set(held.inputs[ring]),
            due_ids=chunk.due_ids.at[at].set(held.ids[ring]),
            due_past=chunk.due_past.at[at].set(held.past[ring]),
        )
        held = held._replace(
            seen=jnp.where(held.seen + 1 < 2 * spec.horizon, held.seen + 1, spec.horizon),
            inputs=held.inputs.at[ring].set(inputs),
            ids=held.ids.at[ring].set(ids),
            past=held.past.at[ring].set(past),
        )
        if spec.weighted:
            chunk = chunk._replace(due_weight=chunk.due_weight.at[at].set(held.weight[ring]))
            held = held._replace(weight=held.weight.at[ring].set(batch.weight[row]))
    held_all = memory.store(kept, slot, held)
    return state._replace(begun=jnp.bool_(True), memory=held_all, chunk=chunk)


def shares(image: Array) -> Array:
    """Turn pixels u8[...] into shares f32[...] of full light."""
    return image.astype(jnp.float32) / 255.0


def light(spec: Spec, state: State, full: Array) -> scale.ScaleState:
    """Take the images of the open chunk, if it is full, into what is known of their channels."""
    if not spec.pixels:
        return state.pixels
    height, width, channels = spec.image
    seen = shares(state.chunk.image).reshape(spec.chunk * height * width, channels)
    return scale.update(state.pixels, jnp.where(full, seen, jnp.nan), height * width)


def seen(level: scale.ScaleState, rows: Array) -> Array:
    """Turn rows f32[..., N] into inputs: their standardised values, then flags of missing ones."""
    missing = jnp.isnan(rows).astype(jnp.float32)
    return jnp.concatenate([scale.transform(level, rows).reshape(-1), missing.reshape(-1)])


def label_inputs(spec: Spec, level: scale.ScaleState, labels: Array) -> Array:
    """Turn lagged labels f32[L] into inputs f32[L * label_inputs]; unknown gives zeros."""
    if spec.classes:
        return (labels[:, None] == jnp.arange(spec.classes)).astype(jnp.float32).reshape(-1)
    known = (~jnp.isnan(labels)).astype(jnp.float32)
    return jnp.concatenate([scale.transform(level, labels[:, None])[:, 0], known])
