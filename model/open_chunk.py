"""The open chunk: how it is predicted, what it teaches, and what is taken over as it is closed."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model import (
    counter,
    embed,
    ladder,
    members,
    mixture,
    plasticity,
    pool,
    scale,
    target,
)
from headrace.model.chunk_training import ChunkInputs, LabelledChunk, Learned, answer, train_chunk
from headrace.model.inputs import light
from headrace.model.members import Asked, Closing, Labels
from headrace.model.optimizer import scheduled
from headrace.model.pool import PoolInputs
from headrace.model.spec import Spec
from headrace.model.state import Parts, State, weights
from headrace.model.xla import order_after


def answers_late(spec: Spec) -> bool:
    """Return whether a row is answered when the label that it brought is learned.

    It is known by then, as it belongs to an earlier row. In a chunk of several all are answered in
    one pass with what they teach.
    """
    return spec.late and spec.chunk == 1


class Trained(NamedTuple):
    """Hold what is learned of the open chunk, were it closed now."""

    heard: LabelledChunk
    learned: Learned
    members: dict[str, Any]  # of each, what its `update` takes


def train(parts: Parts, state: State) -> tuple[Array, Trained]:
    """Predict the open chunk, f32[K, O], and learn from its labels.

    It runs whole for an unfilled chunk too, so that a row's prediction is the same bits
    whether its chunk was filled by one micro-batch or by several.
    """
    spec, chunk = parts.spec, state.chunk
    internal = partial(ladder.to_internal_labels, spec, state.ladder)
    lots = [_rows(spec, state)]
    label = jnp.where(jnp.arange(spec.chunk) < chunk.filled, internal(chunk.label), jnp.nan)
    learnable = ~jnp.isnan(label)
    if spec.late:
        due = PoolInputs(chunk.due_inputs, chunk.due_ids, internal(chunk.due_past))
        lots = [due] if answers_late(spec) else [due, *lots]
        learnable = learnable & (chunk.turn >= 0)
    weight = weights(spec, chunk)
    if weight is not None:
        learnable = learnable & (weight > 0.0)
    goal = label if spec.classes else target.goal(state.target, label, lots[0].last)
    goal = jnp.where(learnable, goal, jnp.nan)
    (question, *asked), learned_by = _ask(spec, state, lots, Labels(goal, label, weight))
    learned = train_chunk(
        spec,
        parts.network,
        state.champion,
        question,
        goal,
        scheduled(spec.schedule, counter.clipped(state.step)) * pool.rates(spec),
        ladder.boost(state.ladder),
        asked=asked[0] if asked else None,
        weight=weight,
    )
    heard = LabelledChunk(question, goal, learned.said, weight)
    return learned.answers, Trained(heard, learned, learned_by)


def predict(parts: Parts, state: State) -> Array:
    """Predict the open chunk by what is known now, f32[K, O]."""
    spec, nothing = parts.spec, jnp.full(parts.spec.chunk, jnp.nan)
    labels = Labels(nothing, nothing, None)
    (question,), _ = _ask(spec, state, [_rows(spec, state)], labels)
    return answer(spec, parts.network, state.champion, question)


def _rows(spec: Spec, state: State) -> PoolInputs:
    chunk = state.chunk
    return PoolInputs(
        chunk.inputs, chunk.ids, ladder.to_internal_labels(spec, state.ladder, chunk.past)
    )


def _ask(
    spec: Spec, state: State, lots: list[PoolInputs], labels: Labels
) -> tuple[list[ChunkInputs], dict[str, Any]]:
    """Put what the members say of each lot of rows beside it; labels are those of the first.

    Returns:
        also, what each member takes to close the chunk.
    """
    ids = jnp.concatenate([rows.ids for rows in lots], 1)
    found = jnp.split(embed.look_up(spec, state.table, ids), len(lots), 1)
    asked = [
        Asked(*rows, at, state.target, state.begun) for rows, at in zip(lots, found, strict=True)
    ]
    said = [[jnp.zeros((0, spec.chunk, spec.outputs))] for _ in lots]
    learned_by = {}
    for name, member in members.speaking(spec).items():
        opinions, learned_by[name] = member.predict(spec, state.members[name], asked, labels)
        for others, opinion in zip(said, opinions, strict=True):
            others.append(opinion)
    questions = [
        ChunkInputs(rows, at, mixture.gate(spec, jnp.concatenate(others)))
        for rows, at, others in zip(lots, found, said, strict=True)
    ]
    return questions, learned_by


def close(parts: Parts, state: State, trained: Trained) -> tuple[State, Array]:
    """Close a full chunk: take over what was learned of it, then measure its rows and labels.

    Returns:
        the state, and what the ladder tells of it.
    """
    spec = parts.spec
    full = jnp.bool_(True) if spec.chunk == 1 else state.chunk.filled == spec.chunk
    state, told = learn(parts, state, trained, full)
    return measure(spec, state, full), told


def learn(parts: Parts, state: State, trained: Trained, full: Array) -> tuple[State, Array]:
    """Take over what was learned of a chunk, if it is full; its rows are not measured yet.

    Returns:
        the state, and what the ladder tells of it.
    """
    spec, (heard, learned, learned_by) = parts.spec, trained
    apply = full & ~jnp.isnan(heard.label).all()
    rungs, told = ladder.on_chunk(spec, state.ladder, heard, learned.slow, apply)
    rows, table = heard.question.rows, state.table
    if spec.ids:
        table = embed.descend(table, embed.slots(spec, rows.ids), learned.gradient, apply)
    last = order_after(state.chunk.said, order_after(learned.said, jnp.int32(0)))
    closing, moved = Closing(full, apply, last), dict(state.members)
    for name, member in members.speaking(spec).items():
        moved[name] = member.update(spec, moved[name], learned_by[name], closing)
    labels = jnp.where(full, state.chunk.label, jnp.nan)
    if heard.weight is not None:
        labels = jnp.where(heard.weight > 0.0, labels, jnp.nan)
    taken = learned.after, counter.add(state.refused, learned.refused)
    if spec.chunk > 1:
        left = state.champion, state.refused
        taken = jax.tree.map(lambda new, old: jnp.where(full, new, old), taken, left)
    champion, refused = taken
    sound = [_finite(moved[name]) for name in members.resetting(spec)]
    active = plasticity.fade(spec, state.active, learned.active, apply)
    state = state._replace(
        lost=full & jnp.concatenate([learned.lost, ~jnp.array(sound, bool)]),
        active=active,
        step=counter.add(state.step, apply),
        champion=champion,
        refused=refused,
        ladder=rungs,
        members=moved,
        table=table,
        target=state.target if spec.classes else target.update(state.target, labels, rows.last),
    )
    return state, told


def measure(spec: Spec, state: State, full: Array) -> State:
    """Take the rows of the open chunk into what is known of all, and empty it, if it is full."""
    return state._replace(
        inputs=scale.update(state.inputs, jnp.where(full, state.chunk.numeric, jnp.nan)),
        pixels=light(spec, state, full),
        chunk=state.chunk._replace(filled=jnp.where(full, 0, state.chunk.filled)),
    )


def _finite(tree: Any) -> Array:
    """Return whether all numbers of some arrays are finite, bool[]."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
