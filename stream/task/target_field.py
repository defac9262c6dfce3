"""Whether a task gives away what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.stream.task.field_path import pointer
from headrace.stream.task.part import Mistake
from headrace.stream.task.schema import Input
from headrace.stream.task.target import Target


def given_away(source: Input, target: Target, features: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the keys that make an input of the label that is to be predicted.

    With a horizon it is known by then, and a good input.
    """
    if target.horizon:
        return
    read: dict[tuple[str, ...], str | None] = {
        ("features", name): each.field or name
        for name, each in features.items()
        if hasattr(each, "field")
    }
    for key, field in (read | {("input", "entity"): source.entity}).items():
        if field and pointer(field) == pointer(target.field):
            yield Mistake(
                key,
                f"it reads {field!r}, which is target.field itself: it would be known before it is "
                "predicted; leave it out, or predict ahead by target.horizon",
            )
