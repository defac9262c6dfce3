"""The learner: one compiled loop that predicts each row, scores it, and learns from it.

Rows are grouped into chunks of `spec.chunk` consecutive events. All rows of a chunk are predicted
with the parameters from before it; when it is full, one optimizer step learns from its labels.
Chunk boundaries belong to the count of events, never to micro-batches: an open chunk is carried
in the state, so state and predictions are the same bits however a stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from model import (
    autoregression,
    embed,
    ladder,
    memory,
    mixture,
    neighbours,
    persistence,
    pool,
    scale,
    target,
)
from model.batch import Batch, Outcome, empty_batch
from model.inputs import admit, light
from model.losses import slope
from model.mixture import Mixed
from model.optimizer import scheduled
from model.pool import Contender, Lesson, Views, opinions, speak
from model.scoring import (
    line_width,
    name_moved,
    note,
    read_lines,
    score,
    tell_at_once,
    tell_later,
)
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

        def segment(carry: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
            state, lines, _, row = carry
            state = note(spec, state)
            opened = 0 if k == 1 else state.chunk.filled
            new = 1 if k == 1 else jnp.minimum(k - opened, count - row)
            state = repeat(new, lambda j, s: admit(spec, s, batch, row + j, opened + j), state)
            state = state._replace(chunk=state.chunk._replace(filled=jnp.int32(opened + new)))
            outputs, lesson = study(parts, state)

            def tell(j: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
                state, lines = carry
                state, line = score(parts, state, opened + j, outputs[opened + j])
                return state, lines.at[row + j].set(line, mode="promise_in_bounds")

            state, lines = repeat(new, tell, (state, lines))
            state, told = learn(parts, state, lesson)
            return state, tell_at_once(spec, lines, row + new - 1, told), row, row + new

        def stretch(carry: tuple[State, Array, Array, Array]) -> tuple[State, Array, Array, Array]:
            """Go on to the end, or to a row that calls for what the inner loop leaves to others.

            The inner loop is one compiled function. It must be small, and nothing in it may sort.
            """
            state, lines, first, row = lax.while_loop(
                lambda c: (c[3] < count) & ~c[0].alarmed & ~ladder.waits(spec, c[0].ladder),
                segment,
                carry,
            )
            state, lines = name_moved(spec, state, lines, first, row)
            state, lines = climb(parts, state, lines, row)
            return state, lines, row, row

        blank = jnp.zeros((capacity, line_width(spec)))
        carry = (state, blank, jnp.int32(0), jnp.int32(0))
        state, lines, _, _ = lax.while_loop(lambda c: c[3] < count, stretch, carry)
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


def study(parts: Parts, state: State) -> tuple[Array, Lesson]:
    """Predict the open chunk, f32[K, O], and give its lesson, from one pass where one will do.

    It runs whole for an unfilled chunk too, so that a row's prediction is the same bits
    whether its chunk was filled by one micro-batch or by several.
    """
    spec, chunk = parts.spec, state.chunk
    inward = partial(ladder.inward, spec, state.ladder)
    now = due = Views(chunk.inputs, chunk.ids, inward(chunk.past))
    if spec.horizon:
        due = Views(chunk.due_inputs, chunk.due_ids, inward(chunk.due_past))
    every = jnp.concatenate([due.ids, now.ids], 1) if spec.horizon else now.ids
    found = embed.look_up(spec, state.table, every)
    labels = inward(chunk.label)
    learnable = ~jnp.isnan(labels) & (jnp.arange(spec.chunk) < chunk.filled)
    if spec.horizon:
        learnable = learnable & (chunk.turn >= 0)
    (outputs, words), pull_back = jax.vjp(
        lambda params, rows: speak(spec, parts.network, params, rows, due),
        state.champion.params,
        found[:, : spec.ids],
    )
    label = jnp.where(learnable, labels, 0.0)
    goal = label if spec.classes else target.goal(state.target, label, due.last)
    share = jnp.where(learnable, 1.0 / jnp.maximum(learnable.sum(), 1), 0.0)[:, None]
    said, mixed = _agree(spec, state, outputs, words, due)
    lesson = Lesson(
        rows=due,
        found=found[:, : spec.ids],
        label=jnp.where(learnable, goal, jnp.nan),
        share=share,
        gradient=pull_back((slope(spec, outputs, goal) * share, slope(spec, words, goal) * share)),
        at=embed.slots(spec, due.ids),
        said=said,
        mixed=mixed,
    )
    if spec.horizon:
        outputs, words = speak(
            spec, parts.network, state.champion.params, found[:, spec.ids :], now
        )
        _, mixed = _agree(spec, state, outputs, words, now)
    return mixed.whole, lesson


def _agree(
    spec: Spec, state: State, outputs: Array, words: Array, rows: Views
) -> tuple[Array, Mixed]:
    """Give what all members say about rows, and the mixture of it."""
    again = jnp.zeros((0, *outputs.shape[1:]))
    if persistence.kept(spec):
        again = persistence.say(spec, state.pairs, state.target, rows.last)
    if not spec.classes:
        on = autoregression.say(spec, state.steps, state.target, rows.past)
        again = jnp.concatenate([again, on])
    said = opinions(spec, outputs, words, again, state.neighbours, rows)
    return said, mixture.mix(spec, state.champion.mixture, said)


def climb(parts: Parts, state: State, lines: Array, row: Array) -> tuple[State, Array]:
    """Go up the ladder if it is time; what happened is told with the row before `row`."""
    spec = parts.spec
    if not ladder.challenges(spec):
        return state, lines
    rates = scheduled(spec.schedule, state.step) * pool.rates(spec)
    waits = ladder.waits(spec, state.ladder)
    champion, rungs, told = lax.cond(
        waits,
        lambda champion, rungs: ladder.climb(
            spec, parts.network, parts.optimizer, champion, rungs, rates
        ),
        lambda champion, rungs: (champion, rungs, jnp.zeros(ladder.LATER)),
        state.champion,
        state.ladder,
    )
    lines = tell_later(spec, lines, jnp.where(waits, row - 1, len(lines)), told)
    return state._replace(champion=champion, ladder=rungs), lines


def learn(parts: Parts, state: State, lesson: Lesson) -> tuple[State, Array]:
    """Close a full chunk: one step of all members and of their weights, then of the scalers.

    Returns:
        the state, and what the ladder tells of it.
    """
    spec = parts.spec
    full = jnp.bool_(True) if spec.chunk == 1 else state.chunk.filled == spec.chunk
    apply = full & ~jnp.isnan(lesson.label).all()
    dense, sparse = lesson.gradient
    boost, champion = ladder.boost(state.ladder), state.champion
    rates = scheduled(spec.schedule, state.step) * pool.rates(spec)
    params, inner, refused = parts.optimizer.step(
        champion.params, champion.optimizer, dense, boost * rates, apply
    )
    weighed = mixture.learn(
        spec, champion.mixture, lesson.said, lesson.mixed.each, lesson.label, boost, apply
    )
    champion = Contender(params, inner, weighed)
    rungs, told = ladder.follow(spec, state.ladder, lesson, apply)
    table = embed.descend(state.table, lesson.at, sparse, apply) if spec.ids else state.table
    near, pairs = state.neighbours, state.pairs
    if spec.neighbours:
        own = lesson.rows.inputs[:, : spec.columns]
        ids = lesson.rows.ids[:, : spec.categories]
        asked = memory.after(state.chunk.said, memory.after(lesson.mixed.whole, near.next))
        near = near._replace(next=asked)
        near = neighbours.remember(spec, near, own, ids, lesson.label, full)
    if spec.classes and persistence.kept(spec):
        pairs = persistence.learn(pairs, lesson.rows.last, lesson.label, full)
    inputs = scale.update(state.inputs, jnp.where(full, state.chunk.numeric, jnp.nan))
    labels = jnp.where(full, state.chunk.label, jnp.nan)
    goals, steps = state.target, state.steps
    if not spec.classes:
        steps = autoregression.learn(steps, goals, lesson.rows.past, lesson.label, full)
        goals = target.update(state.target, labels, lesson.rows.last)
    state = state._replace(
        step=state.step + apply,
        champion=champion,
        refused=state.refused + refused,
        ladder=rungs,
        pairs=pairs,
        steps=steps,
        neighbours=near,
        table=table,
        inputs=inputs,
        pixels=light(spec, state, full),
        target=goals,
        chunk=state.chunk._replace(filled=jnp.where(full, 0, state.chunk.filled)),
    )
    return state, told
