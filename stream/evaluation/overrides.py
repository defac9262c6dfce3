"""Options of a command beside a task file: taken where they can mean one thing, else refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from headrace.stream.errors import UsageError
from headrace.stream.task import Task, validate
from headrace.stream.task.features import Aggregate
from headrace.stream.task.field_path import pointer


def override(
    task: Task,
    origin: str,
    *,
    target: str | None = None,
    kind: str | None = None,
    max_classes: int | None = None,
    drop: Sequence[str] = (),
    time: str | None = None,
    entity: str | None = None,
) -> Task:
    """Return the task of a file with what options say otherwise.

    `time`, `entity` and `max_classes` replace `input.time`, `input.entity` and
    `target.max_classes`; `drop` leaves features out, by their names or fields. Another target
    would be another task: its classes and its features do not follow from its name.

    Args:
        origin: names the file in errors.

    Raises:
        UsageError: an option and the file contradict each other; names both.
        TaskError: the task that comes of it is none.
    """
    for option, key, said, there in (
        ("--target", "target.field", target, task.target.field),
        ("--kind", "target.kind", kind, task.target.kind),
    ):
        if said is not None and said != there:
            raise UsageError(
                f"{option} {said}: {origin} has {key} = {there!r}, and other keys of it go by "
                f"that; change {key} there, or leave {option} out"
            )
    if max_classes and task.target.kind == "regress":
        raise UsageError(
            f"--max-classes {max_classes}: {origin} has target.kind = 'regress', and numbers have "
            "no classes; leave it out, or change target.kind there"
        )
    table = copy.deepcopy(task.model_dump(mode="json", exclude_unset=True))
    for part, key, value in (
        ("input", "time", time),
        ("input", "entity", entity),
        ("target", "max_classes", max_classes),
    ):
        if value is not None:
            table[part][key] = value
    for name in drop:
        for feature in _reading(task, origin, name):
            table["features"].pop(feature, None)
    if not table["features"]:
        raise UsageError(f"--drop {','.join(drop)}: no feature of {origin} is left to learn from")
    options = {"--time": time, "--entity": entity, "--max-classes": max_classes}
    said = ", ".join(f"{option} {value}" for option, value in options.items() if value is not None)
    return validate(table, f"{origin} with {said}" if said else origin)


def _reading(task: Task, origin: str, name: str) -> list[str]:
    """Return the features that read a column, or are called so, and that nothing else goes by."""
    read = {
        feature: each.field or feature
        for feature, each in task.features.items()
        if not isinstance(each, Aggregate)
    }
    found = [f for f, field in read.items() if pointer(field) == pointer(name)]
    found = found or [feature for feature in task.features if feature == name]
    if not found:
        raise UsageError(
            f"--drop {name}: no feature of {origin} reads it; there are {', '.join(task.features)}"
        )
    for feature in found:
        users = ["cross" for names in task.cross if feature in names]
        users += [f"features.{n}.of" for n, a in task.of_kind(Aggregate).items() if a.of == feature]
        if users:
            raise UsageError(
                f"--drop {name}: {users[0]} of {origin} goes by features.{feature}; change "
                f"{users[0]} there first"
            )
    return found
