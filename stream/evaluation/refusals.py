"""Ask a task's normaliser which events it refuses, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from headrace.stream.events import DeadLetter
from headrace.stream.formats import files
from headrace.stream.formats.codec import pointer
from headrace.stream.rows import outside
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate


class Refused(NamedTuple):
    """Hold how many events are refused for one reason.

    Attributes:
        feature: the name of the one whose values are the reason; "" if it is none, or not known.
        detail: of the first of them.
        first: its place among the events.
    """

    code: str
    feature: str
    events: int
    detail: str
    first: int


def refusals(task: Task, raws: Sequence[bytes]) -> list[Refused]:
    """Return why events are refused, the most frequent reason first.

    Raises:
        TaskError: the task cannot be used.
    """
    raws = [*raws]
    if not any(files.has(row, pointer(task.input.id)) for row in files.objects(raws)):
        names = {name for row in files.objects(raws) for name in row}
        key = outside.number_field(names)
        task = task.model_copy(update={"input": task.input.model_copy(update={"id": key})})
        raws = [*map(partial(outside.numbered, key.encode()), range(len(raws)), raws)]
    _, letters = Normalizer(task).normalize(outside.records(task, "", raws, 0))
    found: dict[tuple[str, str], list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault((letter.code, _feature(task, letter.detail)), []).append(letter)
    told = [
        Refused(*key, len(those), those[0].detail, those[0].offset) for key, those in found.items()
    ]
    return sorted(told, key=lambda each: -each.events)


def _feature(task: Task, detail: str) -> str:
    """Return the feature that the reason of a refusal names, "" for none."""
    place = re.search(r"at `\$\.(.*)`$| - in `(.*)`$|^(.*?): ", detail)
    said = next(filter(None, place.groups()), "") if place else ""
    for name, feature in task.features.items():
        if isinstance(feature, Aggregate):
            continue
        path = ".".join(pointer(feature.field or name))
        named = said in (path, name) or path.startswith(f"{said}.")
        if said and named and path not in _others(task):
            return name
    return ""


def _others(task: Task) -> set[str]:
    fields = (task.target.field, task.input.id, task.input.time, task.input.entity)
    return {".".join(pointer(field)) for field in fields if field}
