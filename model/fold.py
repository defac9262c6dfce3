"""What every learning and measuring part is: a pair of pure functions over a state pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S")
X = TypeVar("X")
Y = TypeVar("Y")


class Fold(NamedTuple, Generic[S, X, Y]):
    """Hold `init() -> state` and `update(state, x) -> (state, y)`, both pure and traceable."""

    init: Callable[[], S]
    update: Callable[[S, X], tuple[S, Y]]
