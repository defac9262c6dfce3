"""What a member of the pool is, if it is no network: pure functions over a state of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from headrace.model.fold import walk
from headrace.model.spec import Spec
from headrace.model.target import TargetState


class Asked(NamedTuple):
    """Hold K rows that opinions are asked about, and what is known beside them."""

    inputs: Array  # f32[K, I]
    ids: Array  # u32[K, S]
    past: Array  # f32[K, P]  the entity's last known labels, newest first, NaN = none
    found: Array  # f32[K, S, E + O]  what the table of `embed` holds for the ids
    target: TargetState  # what turns labels of numbers into goals
    begun: Array  # bool[]  always true; XLA, which does not know it, keeps a branch on it


ROWS = ("inputs", "ids", "past", "found")  # what of them has an axis of rows


class Labels(NamedTuple):
    """Hold the labels of K rows; of one row, none has an axis."""

    goal: Array  # f32[K]  class index or `target.goal`, NaN = teaches nothing
    label: Array  # f32[K]  class index or number as it came, NaN = none
    weight: Array | None  # f32[K]  how much each row teaches, if rows say so


class Closing(NamedTuple):
    """Hold what becomes of the open chunk."""

    full: Array  # bool[]  whether it is closed; else nothing of it may be kept
    apply: Array  # bool[]  whether it is closed and taught something
    last: Array  # i32[]  0, known once all is predicted: add it to the place of a write in place


def _as_it_is(state: Any, convert: Callable[[Any], Any]) -> Any:
    return state


class Member(NamedTuple):
    """Hold the pure functions of a member of the pool, which may have several opinions.

    Opinions are logarithms of probabilities, or goals. What is not finite counts as 0.

    Attributes:
        names: names the N opinions of a spec's pool; of none, there is no such member.
        init: makes a pytree of arrays, of a shape that never changes: the member's state.
        predict: maps the state, before the open chunk, to opinions f32[N, K, O] about each of one
            or two lots of K rows, and to what `update` takes. The `Labels` are those of the first
            lot. Rows of a chunk come in turn: of labels, a row may go by those of rows before it.
        update: closes the chunk: maps state and what `predict` gave to the next state.
        alone: whether its opinions, right or wrong as they are, would be noise in a sum.
        resets: whether it begins anew, which is told of, when a number of its state is not finite.
        convert: maps a state to one whose labels of numbers went through a function. As numbers
            are counted from another origin, in another unit, those that are kept have to be, too.
    """

    names: Callable[[Spec], Sequence[str]]
    init: Callable[[Spec], Any]
    predict: Callable[[Spec, Any, Sequence[Asked], Labels], tuple[list[Array], Any]]
    update: Callable[[Spec, Any, Any, Closing], Any]
    alone: bool = False
    resets: bool = False
    convert: Callable[[Any, Callable[[Any], Any]], Any] = _as_it_is


def by_row(
    names: Callable[[Spec], Sequence[str]],
    init: Callable[[Spec], Any],
    predict: Callable[[Spec, Any, Asked], Array],
    update: Callable[[Spec, Any, Asked, Labels], Any],
    alone: bool = False,
    resets: bool = False,
    convert: Callable[[Any, Callable[[Any], Any]], Any] = _as_it_is,
) -> Member:
    """Make a member that learns each row before it predicts the next; its state should be small.

    Args:
        predict: gives opinions f32[N, K, O] about K rows.
        update: takes in one row and its labels, all without the axis of rows.
    """

    def walk_chunk(
        spec: Spec, state: Any, asked: Sequence[Asked], labels: Labels
    ) -> tuple[list[Array], Any]:
        beside: dict[str, Any] = {"target": asked[0].target, "begun": asked[0].begun}

        def one(state: Any, row: tuple[dict[str, Any], Labels]) -> tuple[Any, Array]:
            rows, labels = row
            said = predict(spec, state, Asked(**rows, **beside))
            first = {name: lots[0] for name, lots in rows.items()}
            return update(spec, state, Asked(**first, **beside), labels), said

        rows = {name: jnp.stack([getattr(lot, name) for lot in asked], 1) for name in ROWS}
        after, said = walk(one, state, (rows, labels))
        return list(said.transpose(2, 1, 0, 3)), after

    def close(spec: Spec, state: Any, after: Any, closing: Closing) -> Any:
        if spec.chunk == 1:
            return after
        return jax.tree.map(lambda new, old: jnp.where(closing.full, new, old), after, state)

    return Member(names, init, walk_chunk, close, alone, resets, convert)
