"""The learner: one compiled loop that predicts each row, scores it, and learns from it.

Rows are grouped into chunks of `spec.chunk` consecutive events. All rows of a chunk are predicted
with the parameters from before it; when it is full, one optimizer step learns from its labels.
Chunk boundaries belong to the count of events, never to micro-batches: an open chunk is carried
in the state, so state and predictions are the same bits however a stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from model import embed, memory, scale, target
from model.batch import Batch, Outcome, empty_batch
from model.drift import make_adwin, make_page_hinkley
from model.metrics import (
    ScoredClass,
    ScoredNumber,
    make_classification_metrics,
    make_regression_metrics,
)
from model.network import Params, make_network
from model.spec import Spec


class Chunk(NamedTuple):
    """Hold the open chunk: the rows met since the last optimizer step."""

    count: Array  # i32[]
    numeric: Array  # f32[k, N]  as received
    inputs: Array  # f32[k, I]  rows to predict
    ids: Array  # u32[k, S]
    label: Array  # f32[k]  what came with the row, NaN = none
    no_change: Array  # f32[k]  the entity's last label before it
    slot: Array  # i32[k]  of the entity
    turn: Array  # i32[k]  place r in the entity's ring of open predictions; -1 - r if it was free
    due_inputs: Array  # f32[k if h else 0, I]  rows whose label the new row brought
    due_ids: Array  # u32[k if h else 0, S]
    due_no_change: Array  # f32[k if h else 0]


class State(NamedTuple):
    """Hold everything that is learned or measured; a checkpoint is this and nothing else."""

    event: Array  # i32[]  rows met
    step: Array  # i32[]  optimizer steps
    params: Params
    optimizer: optax.OptState
    table: embed.TableState
    inputs: scale.ScaleState
    target: target.TargetState
    memory: memory.MemoryState
    chunk: Chunk
    interval: Array  # f32[2]  half-width, mean absolute error
    metrics: Any
    adwin: Any
    page_hinkley: Any


class Learner(NamedTuple):
    """Hold the pure functions of one spec.

    `run(state, batch, count)` donates `state`, compiles once per capacity, and returns the new
    state with an Outcome of B lines, of which the first `count` mean something.
    """

    spec: Spec
    init: Callable[[], State]
    run: Callable[[State, Batch, Any], tuple[State, Outcome]]


def adam(spec: Spec) -> optax.GradientTransformation:
    """Give Adam (Kingma & Ba 2015); without momentum in the form that keeps no first moment.

    With beta1 = 0 Adam is RMSProp with bias correction, the same numbers from half the state:
    the loop runs at twice the speed. Momentum hurts when the world drifts, so 0 is the default.
    """
    if spec.beta1:
        return optax.adam(spec.learning_rate, b1=spec.beta1, b2=spec.beta2)
    return optax.rmsprop(spec.learning_rate, decay=spec.beta2, bias_correction=True)


def make_learner(spec: Spec) -> Learner:
    """Make the learner of a spec."""
    k = spec.chunk
    network = make_network(spec, spec.inputs + embed.width(spec))
    optimizer = adam(spec)
    adwin = make_adwin(delta=spec.adwin_delta)
    page_hinkley = make_page_hinkley(threshold=spec.page_hinkley_threshold)
    metrics: Any = (
        make_classification_metrics(spec.classes, spec.window)
        if spec.classes
        else make_regression_metrics(spec.window)
    )

    def init() -> State:
        params = network.init()
        due = k if spec.horizon else 0
        return State(
            event=jnp.int32(0),
            step=jnp.int32(0),
            params=params,
            optimizer=optimizer.init(params),
            table=embed.init(spec),
            inputs=scale.init(spec.numeric),
            target=target.init(),
            memory=memory.init(spec),
            chunk=Chunk(
                count=jnp.int32(0),
                numeric=jnp.full((k, spec.numeric), jnp.nan),
                inputs=jnp.zeros((k, spec.inputs)),
                ids=jnp.zeros((k, spec.ids), jnp.uint32),
                label=jnp.full(k, jnp.nan),
                no_change=jnp.full(k, jnp.nan),
                slot=jnp.zeros(k, jnp.int32),
                turn=jnp.full(k, -1, jnp.int32),
                due_inputs=jnp.zeros((due, spec.inputs)),
                due_ids=jnp.zeros((due, spec.ids), jnp.uint32),
                due_no_change=jnp.full(due, jnp.nan),
            ),
            interval=jnp.zeros(2),
            metrics=metrics.init(),
            adwin=adwin.init(),
            page_hinkley=page_hinkley.init(),
        )

    def label_inputs(level: scale.ScaleState, labels: Array) -> Array:
        """Turn lagged labels f32[L] into inputs f32[L * label_inputs]; unknown gives zeros."""
        if spec.classes:
            return (labels[:, None] == jnp.arange(spec.classes)).astype(jnp.float32).reshape(-1)
        known = (~jnp.isnan(labels)).astype(jnp.float32)
        return jnp.concatenate([scale.transform(level, labels[:, None])[:, 0], known])

    def admit(state: State, batch: Batch, row: Array, at: Array) -> State:
        """Turn row `row` of the batch into place `at` of the open chunk."""
        numeric, ids, label = batch.numeric[row], batch.ids[row], batch.label[row]
        kept, slot, held = memory.recall(spec, state.memory, batch.entity[row], state.event)
        labels = jnp.where(jnp.isnan(label), held.labels, memory.push(held.labels, label))
        known = labels if spec.horizon else held.labels
        window = jnp.concatenate([numeric[None], held.numeric])
        inputs = jnp.concatenate(
            [
                scale.transform(state.inputs, window).reshape(-1),
                jnp.isnan(window).astype(jnp.float32).reshape(-1),
                label_inputs(state.target.level, known[: spec.label_lags]),
            ]
        )
        chunk = state.chunk._replace(
            numeric=state.chunk.numeric.at[at].set(numeric),
            inputs=state.chunk.inputs.at[at].set(inputs),
            ids=state.chunk.ids.at[at].set(ids),
            label=state.chunk.label.at[at].set(label),
            no_change=state.chunk.no_change.at[at].set(known[0]),
            slot=state.chunk.slot.at[at].set(slot),
        )
        held = held._replace(labels=labels, numeric=memory.push(held.numeric, numeric))
        if spec.horizon:
            ring = held.seen % spec.horizon
            chunk = chunk._replace(
                turn=chunk.turn.at[at].set(jnp.where(held.seen >= spec.horizon, ring, -1 - ring)),
                due_inputs=chunk.due_inputs.at[at].set(held.inputs[ring]),
                due_ids=chunk.due_ids.at[at].set(held.ids[ring]),
                due_no_change=chunk.due_no_change.at[at].set(held.no_change[ring]),
            )
            held = held._replace(
                seen=held.seen + 1,
                inputs=held.inputs.at[ring].set(inputs),
                ids=held.ids.at[ring].set(ids),
                no_change=held.no_change.at[ring].set(known[0]),
            )
        return state._replace(
            event=state.event + 1, memory=memory.keep(kept, slot, held), chunk=chunk
        )

    def forward(params: Params, rows: Array, inputs: Array, ids: Array) -> Array:
        if not spec.ids:
            return network.apply(params, inputs)
        embedded, direct = embed.features(spec, rows, ids)
        return network.apply(params, jnp.concatenate([inputs, embedded], 1)) + direct

    def loss(
        trained: tuple[Params, Array], inputs: Array, ids: Array, goal: Array, weight: Array
    ) -> tuple[Array, Array]:
        """Mean cross-entropy or squared error over the rows that carry weight; with the outputs."""
        outputs = forward(*trained, inputs, ids)
        if spec.classes:
            error = optax.softmax_cross_entropy_with_integer_labels(outputs, goal)
        else:
            error = jnp.square(outputs[:, 0] - goal)
        return (error * weight).sum() / jnp.maximum(weight.sum(), 1.0), outputs

    def gradients(state: State) -> tuple[Array, Any, Array, Array]:
        """Predict the open chunk, and give its gradient, from one forward pass where one will do.

        It runs whole for an unfilled chunk too, so that a row's prediction is the same bits
        whether its chunk was filled by one micro-batch or by several.
        """
        chunk = state.chunk
        inputs, ids, last = (
            (chunk.due_inputs, chunk.due_ids, chunk.due_no_change)
            if spec.horizon
            else (chunk.inputs, chunk.ids, chunk.no_change)
        )
        at = embed.slots(spec, ids)
        every = jnp.concatenate([ids, chunk.ids], 1) if spec.horizon else ids
        found = embed.look_up(spec, state.table, every)
        rows, rows_now = found[:, : spec.ids], found[:, spec.ids :]
        learnable = ~jnp.isnan(chunk.label) & (jnp.arange(k) < chunk.count)
        if spec.horizon:
            learnable = learnable & (chunk.turn >= 0)
        label = jnp.where(learnable, chunk.label, 0.0)
        goal = (
            label.astype(jnp.int32)
            if spec.classes
            else target.goal(state.target, label, last)
        )
        weight = learnable.astype(jnp.float32)
        gradient, outputs = jax.grad(loss, has_aux=True)(
            (state.params, rows), inputs, ids, goal, weight
        )
        if spec.horizon:
            outputs = forward(state.params, rows_now, chunk.inputs, chunk.ids)
        return outputs, gradient, at, learnable

    def publish(state: State, output: Array, last: Array) -> Array:
        """Turn one network output f32[O] into the published numbers f32[P]."""
        if spec.classes:
            return jax.nn.softmax(output)
        value = target.value(state.target, output[0], last)
        return jnp.stack([value, value - state.interval[0], value + state.interval[0]])

    def score(state: State, at: Array, output: Array) -> tuple[State, Array, Array]:
        """Score what was said about the label that row `at` brought; then say the next thing."""
        chunk = state.chunk
        label, slot, turn = chunk.label[at], chunk.slot[at], chunk.turn[at]
        no_change, known = chunk.no_change[at], ~jnp.isnan(label)
        published = said = publish(state, output, no_change)
        if spec.horizon:
            kept = state.memory
            ring = jnp.where(turn >= 0, turn, -1 - turn)
            known = known & (turn >= 0)
            said = lax.cond(
                known, lambda: kept.published[slot, ring], lambda: jnp.zeros(spec.published)
            )
            no_change = chunk.due_no_change[at]
            after = memory.after(said, slot)
            kept = kept._replace(published=kept.published.at[after, ring].set(published))
            state = state._replace(memory=kept)
        if spec.classes:
            truth = jnp.where(known, label, 0.0).astype(jnp.int32)
            last = jnp.where(jnp.isnan(no_change), -1.0, no_change).astype(jnp.int32)
            scored: Any = ScoredClass(truth, said, last, known)
            error = (jnp.argmax(said) != truth).astype(jnp.float32)
            interval = state.interval
        else:
            truth = jnp.where(known, label, 0.0)
            scored = ScoredNumber(truth, said[0], said[1], said[2], no_change, known)
            miss = jnp.abs(truth - said[0])
            error = miss / (miss + scale.deviation(state.target.rest)[0])
            interval = jnp.where(known, track(state.interval, miss), state.interval)
        measured = metrics.update(state.metrics, scored)[0]
        first, first_alarm = adwin.update(state.adwin, (error, known))
        second, second_alarm = page_hinkley.update(state.page_hinkley, (error, known))
        alarms = jnp.stack(
            [
                jnp.stack([a.fired.astype(jnp.float32), a.before, a.after])
                for a in (first_alarm, second_alarm)
            ]
        )
        state = state._replace(
            metrics=measured, adwin=first, page_hinkley=second, interval=interval
        )
        return state, published, alarms

    def track(interval: Array, miss: Array) -> Array:
        """Move the half-width towards the wanted quantile of the absolute error.

        The quantile tracker of Angelopoulos, Candès & Tibshirani (2023), "Conformal PID control
        for time series prediction", with steps of 5 % of the running mean absolute error.
        """
        typical = interval[1] + 0.01 * (miss - interval[1])
        outside = (miss > interval[0]).astype(jnp.float32)
        width = interval[0] + 0.05 * typical * (outside - (1.0 - spec.coverage))
        return jnp.stack([jnp.maximum(width, 0.0), typical])

    def learn(state: State, gradient: Any, at: Array, learnable: Array) -> State:
        """Close a full chunk: one optimizer step, then the scalers take the rows in."""
        full = jnp.bool_(True) if k == 1 else state.chunk.count == k
        apply = full & learnable.any()
        dense, sparse = gradient
        updates, inner = optimizer.update(dense, state.optimizer, state.params)
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
            chunk=state.chunk._replace(count=jnp.where(full, 0, state.chunk.count)),
        )

    def repeat(count: Array, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Loop over the new rows of a chunk; a chunk of one needs no loop."""
        return body(0, carry) if k == 1 else lax.fori_loop(0, count, body, carry)

    @jax.jit(donate_argnums=0)
    def run(state: State, batch: Batch, count: Array) -> tuple[State, Outcome]:
        capacity = batch.label.shape[0]

        def segment(carry: tuple[State, Outcome, Array]) -> tuple[State, Outcome, Array]:
            state, outcome, row = carry
            opened = 0 if k == 1 else state.chunk.count
            new = 1 if k == 1 else jnp.minimum(k - opened, count - row)
            state = repeat(new, lambda j, s: admit(s, batch, row + j, opened + j), state)
            state = state._replace(chunk=state.chunk._replace(count=jnp.int32(opened + new)))
            outputs, gradient, at, learnable = gradients(state)

            def tell(j: Array, carry: tuple[State, Outcome]) -> tuple[State, Outcome]:
                state, outcome = carry
                state, published, alarms = score(state, opened + j, outputs[opened + j])
                return state, Outcome(
                    published=outcome.published.at[row + j].set(published),
                    step=outcome.step.at[row + j].set(state.step),
                    alarms=outcome.alarms.at[row + j].set(alarms),
                )

            state, outcome = repeat(new, tell, (state, outcome))
            return learn(state, gradient, at, learnable), outcome, row + new

        blank = Outcome(
            published=jnp.zeros((capacity, spec.published)),
            step=jnp.zeros(capacity, jnp.int32),
            alarms=jnp.zeros((capacity, 2, 3)),
        )
        carry = (state, blank, jnp.int32(0))
        state, outcome, _ = lax.while_loop(lambda c: c[2] < count, segment, carry)
        return state, outcome

    return Learner(spec, init, run)


def warm_up(learner: Learner, capacity: int) -> State:
    """Compile for `capacity` and give a fresh state: nothing is left to compile on live events."""
    state, _ = learner.run(learner.init(), empty_batch(learner.spec, capacity), np.int32(0))
    jax.block_until_ready(state)
    return learner.init()
