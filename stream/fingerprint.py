"""What a state depends on: the task, and the code that learned it."""

from __future__ import annotations

import json
import platform
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stream.hashing import hash_key
from stream.task import Task

LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "flax", "msgspec", "pint")
MODULES = ("events", "fields", "hashing", "kinds", "normalize", "task", "trainer")


def settings_of(task: Task) -> dict[str, Any]:
    """Give what decides which state a stream leads to: all of the task but how topics are made."""
    return task.model_dump(mode="json", exclude={"topics"})


def of_task(task: Task) -> str:
    """Digest the settings of a task, and the key of its hashes."""
    settings = json.dumps(settings_of(task), sort_keys=True).encode()
    return sha256(settings + sha256(hash_key(task)).digest()).hexdigest()


@cache
def of_code() -> str:
    """Digest the code between an event and the state, the libraries under it, and the machine."""
    root, total = Path(__file__).parent.parent, sha256()
    sources = sorted((root / "model").rglob("*.py"))
    for path in (*sources, *(root / "stream" / f"{name}.py" for name in MODULES)):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    for name in LIBRARIES:
        total.update(f"{name} {version(name)}\n".encode())
    total.update(platform.machine().encode())
    return total.hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """List what differs between the settings of two tasks: `model.chunk: 1 -> 32`."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new, name = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    return "not there" if value is None else json.dumps(value, ensure_ascii=False)[:80]
