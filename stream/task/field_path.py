"""How a task file names a field: a key as it is, or a JSON Pointer (RFC 6901)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def pointer(path: str) -> tuple[str, ...]:
    """Split a field path into keys; it is a JSON Pointer when it begins with `/`."""
    if not path.startswith("/"):
        return (path,)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))


def to_pointer(keys: Sequence[str]) -> str:
    """Write keys as a JSON Pointer."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def value_at(event: Any, keys: Sequence[str]) -> Any:
    """Return what stands in a decoded event at the end of these keys; None if nothing does."""
    for key in keys:
        event = event.get(key) if isinstance(event, dict) else None
    return event
