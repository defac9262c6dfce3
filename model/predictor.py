"""The prediction alone: what would be said of rows, all at once, and nothing learned.

It is what leaves headrace: an exported predictor is this function with a state inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model.batch import Batch
from headrace.model.inputs import load_row
from headrace.model.members import neighbours
from headrace.model.open_chunk import predict
from headrace.model.scoring import publish
from headrace.model.spec import Spec
from headrace.model.state import State, empty_chunk, make_parts


def make_predictor(spec: Spec) -> Callable[[State, Batch], Array]:
    """Return a function of a state and B rows that gives what would be published, f32[B, P].

    Each row is predicted as if it came next, by what was learned of all chunks that are full: with
    `spec.chunk` 1, of all rows. With a horizon, the label that a row brings is known as the
    entity's last one, and is not learned before the row is predicted, which is what
    `Learner.ask` does.
    """
    single = replace(spec, chunk=1)
    parts = make_parts(single)

    def predict_rows(state: State, batch: Batch) -> Array:
        known = state._replace(chunk=empty_chunk(single))
        if spec.chunk > 1 or spec.horizon:
            window = neighbours.about_to_learn(spec, state.members["neighbours"])
            known = known._replace(members=known.members | {"neighbours": window})

        def one(row: Batch) -> Array:
            alone = jax.tree.map(lambda leaf: leaf[None], row)
            met = load_row(single, known, alone, jnp.int32(0), jnp.int32(0))
            return publish(single, met, predict(parts, met)[0], met.chunk.past[0, 0])

        found: Array = jax.vmap(one)(batch)
        return found

    return predict_rows
