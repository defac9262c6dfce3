"""What networks see: a row, its past, and what frozen encoders make of it, each in its view."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headrace.model import pool, scale
from headrace.model.batch import empty_batch
from headrace.model.inputs import load_row
from headrace.model.members import Asked, Closing, Labels
from headrace.model.members.pairs import MEMBER as PAIRS
from headrace.model.spec import Spec
from headrace.model.state import State, init, make_parts
from headrace.model.target import init as target

SMALL: dict[str, Any] = {"classes": 2, "hidden": (3,), "rates": (0.01,), "detectors": ()}
FROZEN = Spec(5, frozen=(1, 3), categories=1, numeric_lags=2, traces=(8.0,), **SMALL)


def rows(spec: Spec, changed: float) -> State:
    """Return a state with a row in its open chunk, after others; `changed` are encoded numbers."""
    parts = make_parts(spec)
    state, batch, zero = init(parts), empty_batch(spec, 1), jnp.int32(0)
    for number in range(4):
        batch.numeric[0] = np.arange(spec.numeric) + number
        batch.numeric[0, spec.frozen[0] : sum(spec.frozen)] += changed * number**2
        state = load_row(spec, state, jax.tree.map(jnp.asarray, batch), zero, zero)
        state = state._replace(inputs=scale.update(state.inputs, jnp.asarray(batch.numeric)))
    return state


@pytest.mark.parametrize(
    ("spec", "views"),
    [
        (Spec(2, **SMALL), ("row", "row and past")),
        (Spec(2, label_lags=0, **SMALL), ("row",)),
        (FROZEN, ("row", "row and past", "encoded row")),
        (Spec(3, frozen=(0, 3), **SMALL), ("row and past", "encoded row and past")),
        (Spec(2, frozen=(0, 1), image=(2, 2, 1), label_lags=0, **SMALL), ("row", "encoded row")),
        (
            Spec(2, frozen=(0, 1), network="gru", numeric_lags=1, **SMALL),
            ("row and past", "encoded row and past"),
        ),
        (Spec(2, frozen=(0, 1), network="keras:{}", **SMALL), ("encoded row and past",)),
    ],
)
def test_views_by_what_there_is(spec: Spec, views: tuple[str, ...]) -> None:
    assert spec.views == views
    assert len(pool.sight(spec)) == spec.networks == len(views)


def test_only_the_encoded_view_sees_what_encoders_make() -> None:
    """Whatever they make now, or made of earlier rows, other networks are given the same."""
    one, other = (rows(FROZEN, changed).chunk.inputs[0] for changed in (0.0, 50.0))
    apart = np.asarray(one != other)
    assert apart[: FROZEN.row_inputs].any() and apart[FROZEN.row_inputs :].any()
    row, past, encoded = pool.sight(FROZEN)
    assert not (apart * row).any() and not (apart * past).any()
    assert (encoded[: FROZEN.row_inputs] == 1).all() and not encoded[FROZEN.row_inputs :].any()
    plain, made = np.flatnonzero(row), 3
    assert len(plain) == 2 * (FROZEN.numeric - made)
    assert past.sum() == FROZEN.inputs - made * (2 + 2 * FROZEN.numeric_lags + 1)


def test_pairs_are_those_of_plain_columns() -> None:
    """Its opinion is to the bit that of a pool without an encoder."""
    plain = Spec(2, categories=1, numeric_lags=2, traces=(8.0,), **SMALL)
    learned = []
    for spec in (plain, FROZEN):
        at = np.array(spec.plain)
        inputs = np.full((6, spec.inputs), 9.0, np.float32)
        inputs[:, at] = np.random.default_rng(0).normal(size=(6, 2))
        inputs[:, spec.columns + at] = 0.0
        learned.append(pairs(spec, inputs))
    assert learned[0].tobytes() == learned[1].tobytes()
    assert learned[0].any()


def pairs(spec: Spec, inputs: Any) -> Any:
    """Return the table of pairs after some rows."""
    state = PAIRS.init(spec)
    for number, row in enumerate(inputs):
        found = jnp.zeros((1, spec.ids, spec.embedding + spec.outputs))
        ids, past = jnp.full((1, 1), number % 3 + 1, jnp.uint32), jnp.zeros((1, 1))
        asked = Asked(jnp.asarray(row[None]), ids, past, found, target(), jnp.bool_(True))
        goal = jnp.array([number % 2], jnp.float32)
        _, kept = PAIRS.predict(spec, state, [asked], Labels(goal, goal, None))
        yes = jnp.bool_(True)
        state = PAIRS.update(spec, state, kept, Closing(yes, yes, jnp.int32(0)))
    return np.asarray(state)
