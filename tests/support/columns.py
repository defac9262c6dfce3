"""Rows as the core takes them, from columns."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from headrace.model.batch import Batch, empty_batch
from headrace.model.learner import Learner, warm_up

Columns = tuple[NDArray[Any], ...]  # as the fields of Batch; those that are left out stay empty


def feed(learner: Learner, columns: Columns, cuts: list[int], capacity: int) -> tuple[Any, Any]:
    """Run a stream cut into micro-batches; give the state and the published predictions."""
    state, published = warm_up(learner, capacity), []
    for start, end in zip([0, *cuts], [*cuts, len(columns[3])], strict=True):
        batch = empty_batch(learner.spec, capacity)
        for name, column in zip(Batch._fields, columns, strict=False):
            getattr(batch, name)[: end - start] = column[start:end]
        state, outcome = learner.run(state, batch, np.int32(end - start))
        published.append(np.asarray(outcome.published)[: end - start])
    return jax.device_get(state), np.concatenate(published)


def softmax(values: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
