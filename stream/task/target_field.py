"""Whether a task gives away what it predicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.stream.task.schema import Input, Target


def given_away(source: Input, target: Target, features: Mapping[str, Any]) -> str | None:
    """Say which key makes an input of the label that is to be predicted, if one does.

    With a horizon it is known by then, and a good input.
    """
    if target.horizon:
        return None
    read = {f"features.{name}": each.field or name for name, each in _that_read(features)}
    read["input.entity"] = source.entity or ""
    for key, field in read.items():
        if field and _place(field) == _place(target.field):
            return (
                f"{key} reads {field!r}, which is target.field itself: it would be known before it "
                "is predicted; leave it out, or predict ahead by target.horizon"
            )
    return None


def _that_read(features: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((name, each) for name, each in features.items() if hasattr(each, "field"))


def _place(field: str) -> str:
    """Return a field path as a JSON Pointer."""
    if field.startswith("/"):
        return field
    return "/" + field.replace("~", "~0").replace("/", "~1")
