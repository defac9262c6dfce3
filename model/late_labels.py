"""The steps of a stream whose labels come by themselves: an event is predicted, a label learned.

The row that a label belongs to is learned as it was predicted, and what was published of it is
scored: by what is known when the label comes, so the order of events and labels is all that counts.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model import late_scores, memory, waiting
from headrace.model.batch import Batch
from headrace.model.inputs import load_row
from headrace.model.late_scores import UNASKED
from headrace.model.members import median
from headrace.model.open_chunk import learn, measure, predict, train
from headrace.model.scoring import (
    Answered,
    judge,
    newest,
    note,
    publish,
    said_any,
    tell_of_label,
    tell_of_row,
)
from headrace.model.state import Parts, State
from headrace.model.waiting import WaitingRow

AT = 0  # the place of a row in a chunk of one, which is always full
FULL: Any = np.bool_(True)  # of numpy: an array of JAX would start it as this is imported


def answer_event(parts: Parts, state: State, batch: Batch, row: Array) -> tuple[State, Array]:
    """Predict a row and put it into its slot; return the state, and its line for `read_lines`."""
    spec = parts.spec
    state = load_row(spec, note(spec, state), batch, row, jnp.int32(AT))
    past = state.chunk.past[AT]
    published = publish(spec, state, predict(parts, state)[AT], past[0])
    met = WaitingRow(
        inputs=state.chunk.inputs[AT],
        flags=jnp.zeros(0, jnp.uint32),
        ids=state.chunk.ids[AT],
        past=past,
        weight=batch.weight[row],
        entity=batch.entity[row],
        published=published,
        number=state.late["events"],
    )
    said = state.chunk.said.at[AT].set(newest(spec, published))
    state = state._replace(
        waiting=waiting.put(spec, state.waiting, batch.line[row, 1], met),
        late=late_scores.count(state.late),
        chunk=state.chunk._replace(said=said),
    )
    return measure(spec, state, FULL), tell_of_row(spec, state, published)


def learn_label(parts: Parts, state: State, batch: Batch, row: Array) -> tuple[State, Array]:
    """Score what was published of the row in a slot, then learn its label; return as above."""
    spec, label, kind = parts.spec, batch.label[row], batch.line[row, 0]
    due = waiting.take(spec, state.waiting, batch.line[row, 1], batch.loaded[row])
    asked = (kind & UNASKED) == 0
    entity = jnp.where(asked, due.entity, batch.entity[row])
    past = jnp.where(asked, due.past, jnp.nan)
    kept, slot, held = memory.lookup(spec, state.memory, entity)
    held = held._replace(labels=memory.push(held.labels, label))
    chunk = state.chunk._replace(
        filled=jnp.int32(1),
        label=state.chunk.label.at[AT].set(label),
        turn=state.chunk.turn.at[AT].set(jnp.where(asked, 0, -1)),
        due_inputs=due.inputs[None],
        due_ids=due.ids[None],
        due_past=past[None],
        due_weight=(jnp.where(asked, due.weight, 1.0) * batch.weight[row])[None],
    )
    state = state._replace(memory=memory.store(kept, slot, held), chunk=chunk)
    _, trained = train(parts, state)
    answered = Answered(label, due.published, past[0], asked)
    middle = median.middle(state.members["middle"])
    late = late_scores.Late(
        label=label,
        said=jnp.where(said_any(spec, due.published), newest(spec, due.published), jnp.nan),
        no_change=past[0],
        number=due.number,
        kind=kind,
    )
    state, told = judge(parts, state, jnp.int32(AT), answered, middle)
    state, climbed = learn(parts, state, trained, FULL)
    state = state._replace(
        chunk=state.chunk._replace(filled=jnp.int32(0)),
        late=late_scores.score(spec, state.late, late),
    )
    return state, tell_of_label(spec, told, climbed)
