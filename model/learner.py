"""The learner: one compiled loop that predicts each row, scores it, and learns from it.

Rows are grouped into chunks of `spec.chunk` consecutive events. All rows of a chunk are predicted
with the parameters from before it; when it is full, one optimizer step learns from its labels.
Chunk boundaries belong to the count of events, never to micro-batches: an open chunk is carried
in the state, so state and predictions are the same bits however a stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from model import embed, scale, target
from model.batch import Batch, Outcome, empty_batch
from model.inputs import admit
from model.network import Params
from model.scoring import line_width, read_lines, score
from model.spec import Spec
from model.state import Parts, State, init, make_parts


class Learner(NamedTuple):
    """Hold the pure functions of one spec.

    `run(state, batch, count)` donates `state`, compiles once per capacity, and returns the new
    state with an Outcome of B lines, of which the first `count` mean something.
    """

    spec: Spec
    init: Callable[[], State]
    run: Callable[[State, Batch, Any], tuple[State, Outcome]]


@cache
def make_learner(spec: Spec) -> Learner:
    """Make the learner of a spec; the same one for equal specs, so each is traced once."""
    parts, k = make_parts(spec), spec.chunk

    def repeat(count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Loop over the new rows of a chunk; a chunk of one needs no loop."""
        return body(0, carry) if k == 1 else lax.fori_loop(0, count, body, carry)

    @jax.jit(donate_argnums=0)
    def run(state: State, batch: Batch, count: Array) -> tuple[State, Outcome]:
        capacity = batch.label.shape[0]

        def segment(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            state, lines, row = carry
            opened = 0 if k == 1 else state.chunk.filled
            new = 1 if k == 1 else jnp.minimum(k - opened, count - row)
            state = repeat(new, lambda j, s: admit(spec, s, batch, row + j, opened + j), state)
            state = state._replace(chunk=state.chunk._replace(filled=jnp.int32(opened + new)))
            outputs, gradient, at, learnable = gradients(parts, state)

            def tell(j: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
                state, lines = carry
                state, line = score(parts, state, opened + j, outputs[opened + j])
                return state, lines.at[row + j].set(line, mode="promise_in_bounds")

            state, lines = repeat(new, tell, (state, lines))
            return learn(parts, state, gradient, at, learnable), lines, row + new

        blank = jnp.zeros((capacity, line_width(spec)))
        carry = (state, blank, jnp.int32(0))
        state, lines, _ = lax.while_loop(lambda c: c[2] < count, segment, carry)
        return state, read_lines(spec, lines)

    def fresh() -> State:
        """Make the first state, of the types that later ones have: else XLA compiles twice."""
        state: State = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), init(parts))
        return state

    return Learner(spec, jax.jit(fresh), run)


def warm_up(learner: Learner, capacity: int) -> State:
    """Compile for `capacity` and give a fresh state: nothing is left to compile on live events."""
    state, _ = learner.run(learner.init(), empty_batch(learner.spec, capacity), np.int32(0))
    jax.block_until_ready(state)  # type: ignore[no-untyped-call]
    return learner.init()


def forward(parts: Parts, params: Params, rows: Array, inputs: Array, ids: Array) -> Array:
    spec, network = parts.spec, parts.network
    if not spec.ids:
        return network.apply(params, inputs)
    embedded, direct = embed.features(spec, rows, ids)
    return network.apply(params, jnp.concatenate([inputs, embedded], 1)) + direct


def slope(spec: Spec, outputs: Array, label: Array, goal: Array) -> Array:
    """Give the derivative of each row's loss by its outputs, f32[K, O].

    Cross-entropy of a softmax; the squared error; or Huber's (1964), squared up to half a standard
    deviation and linear beyond, so that a few wild labels do not drown the rest.
    """
    if spec.classes:
        return jax.nn.softmax(outputs) - (label[:, None] == jnp.arange(spec.classes))
    miss = outputs - goal[:, None]
    return jnp.clip(miss, -0.5, 0.5) if spec.loss == "huber" else 2.0 * miss


def gradients(parts: Parts, state: State) -> tuple[Array, Any, Array, Array]:
    """Predict the open chunk, and give its gradient, from one forward pass where one will do.

    It runs whole for an unfilled chunk too, so that a row's prediction is the same bits
    whether its chunk was filled by one micro-batch or by several.
    """
    spec, chunk = parts.spec, state.chunk
    inputs, ids, last = (
        (chunk.due_inputs, chunk.due_ids, chunk.due_no_change)
        if spec.horizon
        else (chunk.inputs, chunk.ids, chunk.no_change)
    )
    at = embed.slots(spec, ids)
    every = jnp.concatenate([ids, chunk.ids], 1) if spec.horizon else ids
    found = embed.look_up(spec, state.table, every)
    rows, rows_now = found[:, : spec.ids], found[:, spec.ids :]
    learnable = ~jnp.isnan(chunk.label) & (jnp.arange(spec.chunk) < chunk.filled)
    if spec.horizon:
        learnable = learnable & (chunk.turn >= 0)
    outputs, pull_back = jax.vjp(
        lambda params, rows: forward(parts, params, rows, inputs, ids), state.params, rows
    )
    label = jnp.where(learnable, chunk.label, 0.0)
    goal = label if spec.classes else target.goal(state.target, label, last)
    share = jnp.where(learnable, 1.0 / jnp.maximum(learnable.sum(), 1), 0.0)
    gradient = pull_back(slope(spec, outputs, label, goal) * share[:, None])
    if spec.horizon:
        outputs = forward(parts, state.params, rows_now, chunk.inputs, chunk.ids)
    return outputs, gradient, at, learnable


def learn(parts: Parts, state: State, gradient: Any, at: Array, learnable: Array) -> State:
    """Close a full chunk: one optimizer step, then the scalers take the rows in."""
    spec = parts.spec
    full = jnp.bool_(True) if spec.chunk == 1 else state.chunk.filled == spec.chunk
    apply = full & learnable.any()
    dense, sparse = gradient
    updates, inner = parts.optimizer.update(dense, state.optimizer, state.params)
    params, inner = jax.tree.map(
        lambda new, old: jnp.where(apply, new, old),
        (optax.apply_updates(state.params, updates), inner),
        (state.params, state.optimizer),
    )
    table = embed.descend(state.table, at, sparse, apply) if spec.ids else state.table
    inputs = scale.update(state.inputs, jnp.where(full, state.chunk.numeric, jnp.nan))
    labels = jnp.where(full, state.chunk.label, jnp.nan)
    last = state.chunk.due_no_change if spec.horizon else state.chunk.no_change
    goals = state.target if spec.classes else target.update(state.target, labels, last)
    return state._replace(
        step=state.step + apply,
        params=params,
        optimizer=inner,
        table=table,
        inputs=inputs,
        target=goals,
        chunk=state.chunk._replace(filled=jnp.where(full, 0, state.chunk.filled)),
    )
