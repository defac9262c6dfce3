"""Options of a command beside a task file: taken where they can mean one thing, else refused."""

from __future__ import annotations

import copy

from headrace.stream.errors import UsageError, did_you_mean
from headrace.stream.evaluation.options import Options
from headrace.stream.task import Task, validate
from headrace.stream.task.features import Aggregate
from headrace.stream.task.field_path import pointer


def override(task: Task, origin: str, target: str | None, options: Options) -> Task:
    """Return the task of a file with what options say otherwise.

    `time`, `entity`, `dayfirst` and `max_classes` replace `input.time`, `input.entity`,
    `input.dayfirst` and `target.max_classes`; `drop` leaves features out, by their names or
    fields. Another target would be another task: its classes and its features do not follow from
    its name. Nor has a task one decimal mark: each number of it has its own.

    Args:
        origin: names the file in errors.
        target: the column to predict, if it is said.

    Raises:
        UsageError: an option and the file contradict each other; names both.
        TaskError: the task that comes of it is none.
    """
    for option, key, said, there in (
        ("--target", "target.field", target, task.target.field),
        ("--kind", "target.kind", options.kind, task.target.kind),
    ):
        if said is not None and said != there:
            raise UsageError(
                f"{option} {said}: {origin} has {key} = {there!r}, and other keys of it go by "
                f"that; change {key} there, or leave {option} out"
            )
    if options.max_classes and task.target.kind == "regress":
        raise UsageError(
            f"--max-classes {options.max_classes}: {origin} has target.kind = 'regress', and "
            "numbers have no classes; leave it out, or change target.kind there"
        )
    if options.decimal:
        raise UsageError(
            f"--decimal {options.decimal}: {origin} says of each number how it is written; set "
            f"decimal = {options.decimal!r} there, of the features or the target that are meant, "
            "or leave --decimal out"
        )
    table = copy.deepcopy(task.model_dump(mode="json", exclude_unset=True))
    replaced = []
    for part, key in (
        ("input", "time"),
        ("input", "entity"),
        ("input", "dayfirst"),
        ("target", "max_classes"),
    ):
        if (value := getattr(options, key)) is not None:
            table[part][key] = value
            replaced.append(_said(key, value))
    for name in options.drop:
        for feature in _reading(task, origin, name):
            table["features"].pop(feature, None)
    if not table["features"]:
        dropped = ",".join(options.drop)
        raise UsageError(f"--drop {dropped}: no feature of {origin} is left to learn from")
    return validate(table, f"{origin} with {', '.join(replaced)}" if replaced else origin)


def _said(key: str, value: object) -> str:
    """Return an option as it was written."""
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name}"
    return f"--{name} {value}"


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
        near = did_you_mean(name, [*task.features, *read.values()]) or ";"
        raise UsageError(
            f"--drop {name}: no feature of {origin} reads it{near} there are "
            f"{', '.join(task.features)}"
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
