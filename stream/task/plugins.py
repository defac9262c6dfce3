"""What comes from other packages: the kinds of it, and what a task names of each.

A task file names parts; it never names a module to import. A package offers one as an entry point
of the group of its kind; a program registers one by `register` of the module that has ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, NamedTuple, get_args

from headrace.model.registry import Registry, told
from headrace.model.spec import Detector, NetworkName
from headrace.stream.errors import TaskError, did_you_mean
from headrace.stream.task import keras_file
from headrace.stream.task.features import Encoded, Text
from headrace.stream.task.task import Task


class Kind(NamedTuple):
    """Say how parts of a kind are offered, and where a task names them."""

    group: str  # of entry points
    own: tuple[str, ...]  # names that ours have in a task
    named: Callable[[Task], list[tuple[str, str]]]  # the key, and the name that stands there


KINDS = {
    "member": Kind(
        "headrace.members",
        (),
        lambda task: [("model.members", name) for name in task.model.members],
    ),
    "network": Kind(
        "headrace.networks",
        get_args(NetworkName),
        lambda task: [
            ("model.network", name)
            for name in [task.model.network]
            if name and not keras_file.is_keras(name)
        ],
    ),
    "detector": Kind(
        "headrace.detectors",
        get_args(Detector),
        lambda task: [("drift.detectors", name) for name in task.drift.detectors],
    ),
    "encoder": Kind(
        "headrace.encoders",
        (),
        lambda task: [
            (f"features.{name}.encoder", each.encoder)
            for name, each in task.of_kind(Encoded).items()
        ],
    ),
    "metric": Kind(
        "headrace.metrics",
        (),
        lambda task: [("metrics", name) for name in task.metrics],
    ),
}
"""By what the `Registry` of each calls it."""


def foreign(task: Task) -> Iterator[tuple[Kind, str, str]]:
    """Yield kind, key and name of all that a task names and is not headrace's own."""
    for kind in KINDS.values():
        yield from ((kind, key, name) for key, name in kind.named(task) if name not in kind.own)


FROZEN = ("onnxruntime", "tokenizers")  # what runs frozen encoders, and splits their texts


def versions(task: Task) -> dict[str, str]:
    """Return the versions of the packages that offer what a task names, or run what it does.

    Raises:
        TaskError: Keras is missing, and the task has a model of it.
    """
    found = {}
    for package in FROZEN:
        frozen = [isinstance(each, Text) for each in task.frozen.values()]
        if any(frozen) or (frozen and package == "onnxruntime"):
            with suppress(PackageNotFoundError):  # which is told where it is needed
                found[package] = version(package)
    if keras_file.is_keras(task.model.network):
        try:
            found["keras"] = version("keras")
        except PackageNotFoundError:
            raise TaskError(f"model.network: {keras_file.MISSING}") from None
    for kind, _, name in foreign(task):
        for point in entry_points(group=kind.group, name=name):
            if point.dist:
                found[point.dist.name] = point.dist.version
    return found


def load(task: Task, registry: Registry[Any]) -> None:
    """Register what a task names of a kind, as installed packages offer it.

    Raises:
        TaskError: none does, or several do; it cannot be imported, or is none of the kind.
    """
    kind = KINDS[registry.kind]
    for key, name in kind.named(task):
        if name in registry:
            continue
        point = _offered(kind, key, name, registry)
        try:
            part = point.load()
        except Exception as error:  # whatever a stranger's module does
            raise TaskError(
                f"{key}: {name!r} ({point.value}) cannot be imported: {told(error)}"
            ) from error
        try:
            registry.register(name, part)
        except TypeError as error:
            raise TaskError(f"{key}: {error} ({point.value})") from error


def _offered(kind: Kind, key: str, name: str, registry: Registry[Any]) -> EntryPoint:
    """Find the one package that offers a name."""
    points: list[EntryPoint] = [*entry_points(group=kind.group, name=name)]
    if len(points) == 1:
        return points[0]
    if points:
        packages = ", ".join(sorted(point.dist.name for point in points if point.dist))
        raise TaskError(
            f"{key}: {name!r} is offered by several packages ({packages}), expected one: "
            "uninstall the others"
        )
    others = {*entry_points(group=kind.group).names, *registry} - {*registry.own}
    known = [*kind.own, *sorted(each for each in others if not keras_file.is_keras(each))]
    raise TaskError(
        f"{key}: no installed package offers {name!r} (entry point group {kind.group}); "
        f"there is {', '.join(known) or 'none'}{did_you_mean(name, known)}"
    )
