"""Where a task was read, so that a mistake is told with its place, however late it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

from headrace.stream.errors import TaskError

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Origin:
    """Say where a task was read. That is no part of the task: any two are equal."""

    name: str = field(default="", compare=False)
    text: str = field(default="", compare=False)


def names_the_file(make: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let mistakes of a task that show when something is made of it say where they stand.

    Args:
        make: has the task among its arguments, and raises TaskError in lines that begin with a key.
    """

    @wraps(make)
    def made(*args: _P.args, **options: _P.kwargs) -> _R:
        try:
            return make(*args, **options)
        except TaskError as error:
            given: list[Any] = [*args, *options.values()]
            tasks = [each for each in given if isinstance(getattr(each, "_origin", 0), Origin)]
            origin = tasks[0]._origin if tasks else Origin()
            if not origin.text or any(line.startswith(origin.name) for line in error.args):
                raise
            where = problems().Where(origin.text, origin.name)
            raise TaskError(*(f"{where.of_line(line)}: {line}" for line in error.args)) from error

    return made


def plain(value: Any) -> Any:
    """Return a table with numpy's whole numbers, as programs give them, as Python's."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(plain, value)]
    return int(value) if isinstance(value, Integral) and not isinstance(value, int) else value


def problems() -> Any:
    """Return the module that tells mistakes.

    By name: how a mistake is told is no part of the code that a state depends on.
    """
    return import_module("headrace.stream.task.problems")
