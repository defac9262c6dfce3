"""What is wrong with a task file, told by its key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.stream.task.features import Part

UNION = {"[name]", "[table]"}  # what pydantic says of the alternatives of a key


def explain(problem: Any, form: type[Part]) -> str:
    """Put one pydantic error into `key = value: what was expected`."""
    if not problem["loc"] and problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    place = tuple(part for part in problem["loc"] if part not in UNION)
    if place[:1] == ("features",):
        place = place[:2] + place[3:]  # between the name and the key pydantic says the kind
    where = ".".join(map(str, place)) or "task"
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such key{_nearest(problem['loc'], form)}"
    if problem["type"] == "missing":
        return f"{where}: missing"
    shown = repr(problem["input"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if len(shown) > 60 else f"{where} = {shown}: {message}"


def _nearest(location: Iterable[Any], form: type[Part]) -> str:
    """List the keys that are known where an unknown one was found."""
    parts: dict[str, type[Part]] = {
        name: field.annotation
        for name, field in form.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part)
    }
    first, *rest = [str(part) for part in location]
    known = parts.get(first) if rest else form
    return f"; known: {', '.join(known.model_fields)}" if known else ""
