"""What the core itself has the networks of a learner say."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import headrace
from headrace.model import embed
from headrace.model.chunk_training import ChunkInputs, _features, _speak
from headrace.model.inputs import load_row
from headrace.model.networks import make_network
from headrace.model.pool import PoolInputs


def in_the_core(learner: headrace.Learner, table: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Return what the core has its networks say of rows, f32[M, n, O], as `train` asks them."""
    spec, trainer = learner.task.spec, learner._trainer
    rows, _ = learner._reader.read([json.dumps(event).encode() for event in table], 0)
    batch = trainer.batch(rows)
    network, own = make_network(spec), trainer._state.champion
    found = []
    for row in range(len(rows.id)):
        chunk = load_row(spec, trainer._state, batch, jnp.int32(row), jnp.int32(0)).chunk
        asked = PoolInputs(chunk.inputs[:1], chunk.ids[:1], chunk.past[:1])
        question = ChunkInputs(
            asked, embed.look_up(spec, trainer._state.table, asked.ids), jnp.zeros(0)
        )
        (features, direct), _ = _features(spec, network, own.params.below, question)
        found.append(_speak(spec, own.params.last, features, direct)[0])
    return np.asarray(jax.device_get(jnp.concatenate(found, 1)))
