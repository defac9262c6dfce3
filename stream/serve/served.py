"""The tasks that are served: what answers for each, and by which state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from headrace.stream.ledger import fingerprint
from headrace.stream.serve.batcher import Batcher
from headrace.stream.serve.following import Following
from headrace.stream.serve.predictor import Predictor
from headrace.stream.task import Task


class Served(NamedTuple):
    """Hold what one task is served by."""

    task: Task
    predictor: Predictor
    batcher: Batcher
    explainer: Batcher
    following: Following


def served_tasks(
    tasks: Sequence[Task], following: Callable[[Predictor], Following]
) -> dict[str, Served]:
    """Make what serves each of some tasks.

    Args:
        following: makes what keeps a predictor up to date.
    """
    found = {}
    for task in tasks:
        predictor = Predictor(task)
        answers, reasons = Batcher(predictor.answer), Batcher(predictor.explain, few=0)
        found[task.name] = Served(task, predictor, answers, reasons, following(predictor))
    return found


def standing(one: Served) -> dict[str, Any]:
    """Say by which state a task is served, and how far that is behind."""
    release, following = one.predictor.release, one.following
    classes = release and one.task.spec.classes
    return {
        "name": one.task.name,
        "version": release and release.version,
        "step": release and release.step,
        "released_ms": release and release.manifest.time_ms,
        "behind_events": following.behind_events,
        "behind_s": following.behind_s,
        "classes": [*release.frozen.classes] if release and classes else None,
        "headrace": version("headrace"),
        "task": fingerprint.settings_of(one.task),
    }
