from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model.batch import empty_batch
from headrace.model.learner import make_learner, warm_up
from headrace.model.members import pairs
from headrace.model.members.pairs import MOST
from headrace.model.spec import Spec


def rows_of(spec: Spec, n: int, seed: int = 0) -> tuple[Any, Any]:
    """Draw inputs with some values missing, and ids."""
    rng = np.random.default_rng(seed)
    values, missing = rng.normal(size=(n, spec.numeric)), rng.random((n, spec.numeric)) < 0.1
    inputs = np.zeros((n, spec.inputs), np.float32)
    inputs[:, : spec.numeric] = np.where(missing, 0.0, values)
    inputs[:, spec.numeric : 2 * spec.numeric] = missing
    ids = rng.integers(1, 2**32, (n, spec.ids), np.uint32)
    return jnp.asarray(inputs), jnp.asarray(ids)


def places(spec: Spec, inputs: Any, ids: Any) -> NDArray[Any]:
    return np.asarray(pairs.look_up(spec, pairs.init(spec), inputs, ids, jnp.bool_(True)).at)


@pytest.mark.parametrize(
    ("numeric", "categories", "columns"), [(3, 0, 6), (2, 2, 8), (0, 2, 1), (20, 1, 20 + MOST)]
)
def test_each_column_and_pair_has_cells_of_its_own(
    numeric: int, categories: int, columns: int
) -> None:
    spec = Spec(numeric=numeric, categories=categories, classes=2)
    at = places(spec, *rows_of(spec, 5_000))
    assert at.shape == (5_000, columns)
    assert at.min() >= 0
    assert at.max() < len(pairs.init(spec))
    ranges = sorted((column.min(), column.max()) for column in at.T)
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))
    assert (np.ptp(at, axis=0) > 0).all()


def test_a_missing_value_is_like_no_other() -> None:
    spec = Spec(numeric=2, classes=2)
    inputs, ids = rows_of(spec, 1)
    inputs = inputs.at[:].set(0.0)
    (known,), (unknown,) = (
        places(spec, inputs.at[0, 2].set(missing), ids) for missing in (0.0, 1.0)
    )
    assert known[1] == unknown[1]  # the other column by itself
    assert known[0] != unknown[0]
    assert known[2] != unknown[2]  # both together


def test_one_column_alone_has_no_pairs() -> None:
    assert not pairs.names(Spec(numeric=1, classes=2))
    assert pairs.init(Spec(numeric=1, classes=2)).size == 0


@pytest.mark.parametrize("chunk", [1, 8])
def test_a_rule_along_two_axes_is_learned_by_it(chunk: int) -> None:
    spec = Spec(numeric=2, classes=2, chunk=chunk, detectors=(), hidden=(4,))
    rng = np.random.default_rng(1)
    n = 4_000
    learner, batch = make_learner(spec), empty_batch(spec, n)
    batch.numeric[:] = rng.normal(size=(n, 2))
    batch.label[:] = (batch.numeric[:, 0] > 0.0) ^ (batch.numeric[:, 1] > 0.0)
    state, _ = learner.run(warm_up(learner, n), batch, np.int32(n))
    inputs, ids = rows_of(spec, 500, seed=2)
    inputs = inputs.at[:, 2:4].set(0.0)
    cells = pairs.look_up(spec, state.members["cells"], inputs, ids, jnp.bool_(True))
    right = (np.asarray(inputs[:, 0]) > 0.0) ^ (np.asarray(inputs[:, 1]) > 0.0)
    assert (np.asarray(pairs.say(spec, cells)).argmax(1) == right).mean() > 0.95


@pytest.mark.parametrize("wild", [np.nan, np.inf, -1e30])
def test_what_is_none_in_a_cell_spoils_no_other_and_heals(wild: float) -> None:
    spec = Spec(numeric=2, classes=2)
    inputs, ids = rows_of(spec, 1)
    table = pairs.init(spec)
    at = pairs.look_up(spec, table, inputs, ids, jnp.bool_(True)).at
    table = table.at[at[0, 0]].set(wild)
    for _ in range(3):
        cells = pairs.look_up(spec, table, inputs, ids, jnp.bool_(True))
        assert np.isfinite(np.asarray(pairs.say(spec, cells))).all()
        table = jax.jit(pairs.descend, static_argnums=0)(
            spec, table, cells, jnp.ones(1), jnp.bool_(True)
        )
    assert np.isfinite(np.asarray(table)).all()
    assert (np.asarray(table)[np.asarray(at[0]), 1] > 0.0).all()
