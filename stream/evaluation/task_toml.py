"""Write a task as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from headrace.stream.process.terminal import visible
from headrace.stream.task import Task


def to_toml(task: Task, left_out: Mapping[str, tuple[dict[str, Any], str]] | None = None) -> str:
    """Write a task, one line for each feature, without what is default.

    Args:
        left_out: features to write as comments, by name: their keys, and why.
    """
    table = task.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    features = table.pop("features")
    lines = [_line(name, feature) for name, feature in features.items()]
    for name, (feature, why) in (left_out or {}).items():
        lines.append(f"# {_line(name, feature)}  # left out: {visible(why, keep='')}")
    return tomli_w.dumps(table) + "\n[features]\n" + "\n".join(lines) + "\n"


def _line(name: str, feature: Mapping[str, Any]) -> str:
    return f"{_key(name)} = {_value(feature)}"


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).rpartition(" = ")[0]


def _value(value: Any) -> str:
    """Write a value in one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"key": value}).strip().removeprefix("key = ")
