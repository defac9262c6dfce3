"""What the open chunk teaches, what is said about it, and what is taken over of it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model import (
    autoregression,
    counter,
    embed,
    ladder,
    median,
    memory,
    neighbours,
    pairs,
    persistence,
    plasticity,
    pool,
    scale,
    target,
)
from headrace.model.chunk_training import ChunkInputs, LabelledChunk, Learned, answer, train_chunk
from headrace.model.fold import walk
from headrace.model.inputs import light
from headrace.model.optimizer import scheduled
from headrace.model.pool import PoolInputs
from headrace.model.spec import Spec
from headrace.model.state import Parts, State, weights


def answers_late(spec: Spec) -> bool:
    """Say whether a row is answered when the label that it brought is learned.

    It is known by then, as it belongs to an earlier row. In a chunk of several all are answered in
    one pass with what they teach.
    """
    return spec.horizon > 0 and spec.chunk == 1


class Studied(NamedTuple):
    """Hold what the open chunk teaches, had it its last row."""

    heard: LabelledChunk
    learned: Learned
    followed: Array  # f32[C + 1, C]
    steps: autoregression.AutoregressionState
    middle: median.MedianState
    near: neighbours.NeighboursState
    cells: pairs.Cells


def study(parts: Parts, state: State) -> tuple[Array, Studied]:
    """Predict the open chunk, f32[K, O], and give what it teaches.

    It runs whole for an unfilled chunk too, so that a row's prediction is the same bits
    whether its chunk was filled by one micro-batch or by several.
    """
    spec, chunk = parts.spec, state.chunk
    internal = partial(ladder.to_internal_labels, spec, state.ladder)
    views = [_rows(spec, state)]
    label = jnp.where(jnp.arange(spec.chunk) < chunk.filled, internal(chunk.label), jnp.nan)
    learnable = ~jnp.isnan(label)
    if spec.horizon:
        due = PoolInputs(chunk.due_inputs, chunk.due_ids, internal(chunk.due_past))
        views = [due] if answers_late(spec) else [due, *views]
        learnable = learnable & (chunk.turn >= 0)
    weight = weights(spec, chunk)
    if weight is not None:
        learnable = learnable & (weight > 0.0)
    due = views[0]
    goal = label if spec.classes else target.goal(state.target, label, due.last)
    goal = jnp.where(learnable, goal, jnp.nan)
    (followed, steps, middle), again = _go_on(spec, state, views, goal, label)
    near, before = state.neighbours, None
    if spec.neighbours and spec.chunk > 1:
        near = neighbours.remember(spec, near, *_own(spec, due), goal, weight)
        before = jnp.cumsum(learnable) - learnable
    found = embed.look_up(spec, state.table, jnp.concatenate([rows.ids for rows in views], 1))
    questions = []
    window = near._replace(next=state.neighbours.next)
    cells = [pairs.look_up(spec, state.cells, rows.inputs, rows.ids, state.begun) for rows in views]
    vectors = jnp.split(found, len(views), 1)
    for rows, vector, cell, said in zip(views, vectors, cells, again, strict=True):
        questions.append(_question(spec, rows, vector, cell, said, window, before))
    learned = train_chunk(
        spec,
        parts.network,
        state.champion,
        questions[0],
        goal,
        scheduled(spec.schedule, counter.clipped(state.step)) * pool.rates(spec),
        ladder.boost(state.ladder),
        asked=questions[1] if len(views) > 1 else None,
        weight=weight,
    )
    heard = LabelledChunk(questions[0], goal, learned.said, weight)
    return learned.answers, Studied(heard, learned, followed, steps, middle, near, cells[0])


def respond(parts: Parts, state: State) -> Array:
    """Predict the open chunk by what is known now, f32[K, O]."""
    spec, rows = parts.spec, _rows(parts.spec, state)
    nothing = jnp.full(spec.chunk, jnp.nan)
    _, (said,) = _go_on(spec, state, [rows], nothing, nothing)
    found = embed.look_up(spec, state.table, rows.ids)
    cells = pairs.look_up(spec, state.cells, rows.inputs, rows.ids, state.begun)
    question = _question(spec, rows, found, cells, said, state.neighbours, None)
    return answer(spec, parts.network, state.champion, question)


def _rows(spec: Spec, state: State) -> PoolInputs:
    chunk = state.chunk
    return PoolInputs(
        chunk.inputs, chunk.ids, ladder.to_internal_labels(spec, state.ladder, chunk.past)
    )


def _question(
    spec: Spec,
    rows: PoolInputs,
    found: Array,
    cells: pairs.Cells,
    said: Array,
    window: neighbours.NeighboursState,
    before: Array | None,
) -> ChunkInputs:
    """Put the opinions of those who are no networks together; `said` is what labels say."""
    spoken, alone = jnp.split(said, [len(said) - pool.alone(spec)])
    others = [pool.words(spec, found, rows.ids)]
    if pairs.kept(spec):
        others.append(pool.opinion(spec, pairs.say(spec, cells))[None])
    others.append(spoken)
    if spec.neighbours:
        others.append(neighbours.vote(spec, window, *_own(spec, rows), before))
    return ChunkInputs(rows, found, pool.gate(spec, jnp.concatenate([*others, alone])))


def _go_on(
    spec: Spec, state: State, views: list[PoolInputs], goal: Array, label: Array
) -> tuple[Any, list[Array]]:
    """Say of each view what the last labels say by themselves, f32[0 to 4, K, O], row by row."""

    def one(carry: Any, row: tuple[Array, Array, Array]) -> Any:
        (followed, steps, middle), (past, goal, label) = carry, row
        said = [jnp.zeros((0, len(views), spec.outputs))]
        if persistence.kept(spec):
            said.append(persistence.say(spec, followed, state.target, past[:, 0]))
        if not spec.classes:
            said.append(autoregression.say(spec, steps, state.target, past))
            steps = autoregression.learn(steps, state.target, past[0], goal)
            said.append(median.say(spec, middle, state.target, past))
            middle = median.learn(middle, label)
        elif persistence.kept(spec):
            followed = persistence.learn(followed, past[0, 0], goal)
        return (followed, steps, middle), jnp.concatenate(said)

    pasts = jnp.stack([rows.past for rows in views], 1)
    known = state.followed, state.steps, state.middle
    after, said = walk(one, known, (pasts, goal, label))
    return after, list(said.transpose(2, 1, 0, 3))


def _own(spec: Spec, rows: PoolInputs) -> tuple[Array, Array]:
    """Give what neighbours go by: columns f32[K, D] and categories u32[K, C]."""
    return rows.inputs[:, : spec.columns], rows.ids[:, : spec.categories]


def learn(parts: Parts, state: State, studied: Studied) -> tuple[State, Array]:
    """Close a full chunk: take over what was learned of it, then measure its rows and labels.

    Returns:
        the state, and what the ladder tells of it.
    """
    spec, (heard, learned, followed, steps, middle, near, cells) = parts.spec, studied
    full = jnp.bool_(True) if spec.chunk == 1 else state.chunk.filled == spec.chunk
    apply = full & ~jnp.isnan(heard.label).all()
    rungs, told = ladder.on_chunk(spec, state.ladder, heard, learned.slow, apply)
    rows, table = heard.question.rows, state.table
    if spec.ids:
        table = embed.descend(table, embed.slots(spec, rows.ids), learned.gradient, apply)
    if spec.neighbours and spec.chunk == 1:
        asked = memory.order_after(state.chunk.said, memory.order_after(learned.said, near.next))
        near = near._replace(next=asked)
        near = neighbours.remember(spec, near, *_own(spec, rows), heard.label, heard.weight)
    labels = jnp.where(full, state.chunk.label, jnp.nan)
    if heard.weight is not None:
        labels = jnp.where(heard.weight > 0.0, labels, jnp.nan)
    went_on = followed, steps, middle, near.next
    taken = learned.after, counter.add(state.refused, learned.refused), *went_on
    stayed = state.followed, state.steps, state.middle, state.neighbours.next
    left = state.champion, state.refused, *stayed
    if spec.chunk > 1:
        taken = jax.tree.map(lambda new, old: jnp.where(full, new, old), taken, left)
    champion, refused, followed, steps, middle, place = taken
    active = plasticity.fade(spec, state.active, learned.active, apply)
    state = state._replace(
        lost=full & (learned.lost if spec.classes else jnp.append(learned.lost, ~_finite(steps))),
        active=active,
        step=counter.add(state.step, apply),
        champion=champion,
        refused=refused,
        ladder=rungs,
        followed=followed,
        steps=steps,
        middle=middle,
        neighbours=near._replace(next=place),
        table=table,
        cells=pairs.descend(spec, state.cells, cells, heard.label, apply, heard.weight),
        inputs=scale.update(state.inputs, jnp.where(full, state.chunk.numeric, jnp.nan)),
        pixels=light(spec, state, full),
        target=state.target if spec.classes else target.update(state.target, labels, rows.last),
        chunk=state.chunk._replace(filled=jnp.where(full, 0, state.chunk.filled)),
    )
    return state, told


def _finite(tree: Any) -> Array:
    """Say whether all numbers of some arrays are finite, bool[]."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
