"""The steps of a stream whose labels come by themselves: an event is predicted, a label learned.

The row that a label belongs to is learned as it was predicted, and what was published of it is
scored: by what is known when the label comes, so the order of events and labels is all that counts.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from headrace.model import memory, waiting
from headrace.model.batch import Batch
from headrace.model.inputs import load_row
from headrace.model.members import median
from headrace.model.open_chunk import learn, measure, predict, train
from headrace.model.scoring import (
    Answered,
    judge,
    newest,
    note,
    publish,
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
        ids=state.chunk.ids[AT],
        past=past,
        weight=batch.weight[row],
        entity=batch.entity[row],
        published=published,
    )
    said = state.chunk.said.at[AT].set(newest(spec, published))
    state = state._replace(
        waiting=waiting.put(state.waiting, batch.line[row, 1], met),
        chunk=state.chunk._replace(said=said),
    )
    return measure(spec, state, FULL), tell_of_row(spec, state, published)


def learn_label(parts: Parts, state: State, batch: Batch, row: Array) -> tuple[State, Array]:
    """Score what was published of the row in a slot, then learn its label; return as above."""
    spec, label = parts.spec, batch.label[row]
    due = waiting.take(state.waiting, batch.line[row, 1])
    kept, slot, held = memory.lookup(spec, state.memory, due.entity)
    held = held._replace(labels=memory.push(held.labels, label))
    chunk = state.chunk._replace(
        filled=jnp.int32(1),
        label=state.chunk.label.at[AT].set(label),
        turn=state.chunk.turn.at[AT].set(0),
        due_inputs=due.inputs[None],
        due_ids=due.ids[None],
        due_past=due.past[None],
        due_weight=(due.weight * batch.weight[row])[None],
    )
    state = state._replace(memory=memory.store(kept, slot, held), chunk=chunk)
    _, trained = train(parts, state)
    answered = Answered(label, due.published, due.past[0], FULL)
    middle = median.middle(state.members["middle"])
    state, told = judge(parts, state, jnp.int32(AT), answered, middle)
    state, climbed = learn(parts, state, trained, FULL)
    chunk = state.chunk._replace(filled=jnp.int32(0))
    return state._replace(chunk=chunk), tell_of_label(spec, told, climbed)
