"""Threads that share an object, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class Shared(Protocol):
    """Have a lock."""

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """Return it; the thread that holds it may take it again."""


_Owner = TypeVar("_Owner", bound=Shared)
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def in_turn(
    method: Callable[Concatenate[_Owner, _Given], _Found],
) -> Callable[Concatenate[_Owner, _Given], _Found]:
    """Let the threads that call a method, or others of its kind, wait for each other."""

    @wraps(method)
    def wait(self: _Owner, /, *given: _Given.args, **named: _Given.kwargs) -> _Found:
        with self.turn:
            return method(self, *given, **named)

    return wait
