"""What every learning and measuring part is: a pair of pure functions over a state pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
from jax import lax

S = TypeVar("S")
X = TypeVar("X")
Y = TypeVar("Y")


class Fold(NamedTuple, Generic[S, X, Y]):
    """Hold `init() -> state` and `update(state, x) -> (state, y)`, both pure and traceable."""

    init: Callable[[], S]
    update: Callable[[S, X], tuple[S, Y]]


def walk(step: Callable[[S, X], tuple[S, Y]], state: S, rows: X) -> tuple[S, Any]:
    """Go through rows, whose leaves have a leading axis, and stack what came of each.

    A single row needs no loop, which would be a program of its own for the compiler.
    """
    if len(jax.tree.leaves(rows)[0]) > 1:
        return lax.scan(step, state, rows)
    state, told = step(state, jax.tree.map(lambda leaf: leaf[0], rows))
    return state, jax.tree.map(lambda leaf: leaf[None], told)
