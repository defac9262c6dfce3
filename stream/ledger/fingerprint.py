"""What a state depends on: the task, and the code that learned it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headrace.stream.rows.encoder_files import digests
from headrace.stream.rows.hashing import hash_key
from headrace.stream.task import Task, keras_file
from headrace.stream.task.features import Category, Frozen, Number
from headrace.stream.task.labels import Labels
from headrace.stream.task.part import Part
from headrace.stream.task.plugins import foreign, versions
from headrace.stream.task.quantity import READING
from headrace.stream.task.schema import Input, Model
from headrace.stream.task.target import Target

ROOT = Path(__file__).parents[2]
LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "flax", "msgspec", "pint", "pydantic")
ROW_TO_STATE = ("headrace.stream.rows.normalizer", "headrace.stream.training.trainer")


def settings_of(task: Task) -> dict[str, Any]:
    """Return what decides which state a stream leads to: all of the task but how topics are made.

    Of what it names of other packages also the versions of these; without any, the key is left out.
    Of a frozen encoder it is what its files hold, not where they lie; of the key of the hashes that
    there is one.

    Raises:
        TaskError: an encoder's file cannot be read.
    """
    settings = task.model_dump(mode="json", exclude={"topics"})
    encoders = digests(task)
    for name in task.of_kind(Frozen):
        feature = settings["features"][name]
        if name in encoders:
            feature["encoder"] = f"sha256 {encoders[name]}"
        else:
            del feature["encoder"], feature["dimensions"]  # as in ledgers of before there were any
    places = ((settings["model"], "members"), (settings, "metrics"), (settings, "labels"))
    for place, key in places:
        if not place[key]:
            del place[key]  # as in ledgers of before there were any
    if task.hash_key_file:
        settings["hash_key_file"] = "given"  # wherever it lies: `of_task` digests what it holds
    for key in ("input", "target", "labels", "model"):
        if part := getattr(task, key):
            _leave_out_later(part, settings[key])
    for name, feature in task.features.items():
        _leave_out_later(feature, settings["features"][name])
    if network := task.model.network:
        settings["model"]["network"] = keras_file.identity(network)  # wherever its file lies
    packages = versions(task)
    return settings | ({"packages": packages} if packages or any(foreign(task)) else {})


LATER: dict[type[Part], tuple[str, ...]] = {
    Input: ("dayfirst", "non_finite", "propensity"),
    Labels: ("propensity", "sample_negatives", "holdout", "in_memory"),
    Target: READING,
    Model: ("explain",),
    Number: ("decimal", "thousands", "duration"),
    Category: ("boolean",),
}
"""Keys that a task may have since ledgers were written that lack them."""


def _leave_out_later(part: Part, table: dict[str, Any]) -> None:
    """Leave out what is not set of the LATER keys, as in ledgers of before there were any."""
    for key in LATER.get(type(part), ()):
        if getattr(part, key) == type(part).model_fields[key].default:
            del table[key]


def written(task: Task) -> dict[str, Any]:
    """Return a task as what was written in its file, to be read again by `task.validate`."""
    return task.model_dump(mode="json", exclude_unset=True)


def of_task(task: Task) -> str:
    """Digest the settings of a task, and the key of its hashes."""
    settings = json.dumps(settings_of(task), sort_keys=True).encode()
    return sha256(settings + sha256(hash_key(task)).digest()).hexdigest()


@cache
def of_code(*modules: str) -> str:
    """Digest what lies between an event and the state, or other modules: with all that they import
    of ours, the libraries and the Python under it, and the kind of machine."""
    total = sha256()
    for path in sources(modules or ROW_TO_STATE):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    for name in LIBRARIES:
        total.update(f"{name} {version(name)}\n".encode())
    total.update(f"{platform.python_version()} {platform.machine()}".encode())
    return total.hexdigest()


def sources(modules: Iterable[str]) -> list[Path]:
    """Return the files of modules of ours and of all that they import, directly or not, sorted."""
    waiting, found = set(modules), set[Path]()
    while waiting:
        name = waiting.pop()
        for path in _files(name):
            if path not in found:
                found.add(path)
                waiting |= _imported(path)
    return sorted(found)


def _files(module: str) -> Iterator[Path]:
    """Yield a module's file, and those of the packages around it; none for what is not ours."""
    package, *parts = module.split(".")
    if package != ROOT.name:
        return
    place = ROOT
    for part in parts:
        place /= part
        yield from (
            path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()
        )


def _imported(path: Path) -> set[str]:
    """Return what a file may import: read as text, which is a tenth of the work of parsing it."""
    names: set[str] = set()
    for module, parts, modules in _IMPORT.findall(path.read_text("utf-8")):
        names |= set(_NAME.findall(modules)) | {module}
        names |= {f"{module}.{part}" for part in _NAME.findall(parts)}
    return names


_IMPORT = re.compile(
    r"^[ \t]*(?:from ([\w.]+) import (\([^)]*\)|[^\n]*)|import ([\w., ]+))", re.MULTILINE
)
_NAME = re.compile(r"[\w.]+")


def differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """List what differs between the settings of two tasks: `model.chunk: 1 -> 32`.

    Of features that are of another kind it is the kind, not the keys that only one kind has.
    (A feature may be called kind, too: then that is no text.)
    """
    found, keys = [], before.keys() | now.keys()
    kinds = before.get("kind"), now.get("kind")
    if kinds[0] != kinds[1] and all(isinstance(kind, str) for kind in kinds):
        keys = before.keys() & now.keys()
    for key in sorted(keys):
        old, new, name = before.get(key), now.get(key), f"{path}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    return "not there" if value is None else json.dumps(value, ensure_ascii=False)[:80]
