"""The learner of a task, with what it names of other packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace.model import drift, encoders, frame, members, metrics, networks, pool
from headrace.model.frame import NEWEST, Change, Frame
from headrace.model.learner import Learner, make_learner, warm_up
from headrace.model.registry import Registry, told
from headrace.model.state import named
from headrace.stream.errors import TaskError
from headrace.stream.rows import frozen
from headrace.stream.task import Task, keras_file, plugins
from headrace.stream.task.origin import names_the_file
from headrace.stream.training import keras_network

REGISTRIES: tuple[Registry[Any], ...] = (
    members.MEMBERS,
    networks.NETWORKS,
    drift.DETECTORS,
    encoders.ENCODERS,
    metrics.METRICS,
)


@names_the_file
def load(task: Task) -> None:
    """Load what a task names of other packages, and its frozen encoders.

    Raises:
        TaskError: it is not installed or not there, or is not what it is named as.
    """
    for name in task.model.members:
        if name in members.OWN:
            raise TaskError(f"model.members: {name!r} is in every pool: leave it out")
    for registry in REGISTRIES:
        plugins.load(task, registry)
    for name, feature in task.frozen.items():
        frozen.load(name, feature)
    if (network := task.model.network) and keras_file.is_keras(network):
        keras_network.use(network)


@names_the_file
def learner_of(task: Task) -> Learner:
    """Return the learner of a task, with what it names of other packages.

    Raises:
        TaskError: that is not installed, or does not fit.
    """
    load(task)
    with _fitting(task):
        learner = make_learner(task.spec)
        names = pool.names(task.spec)
    if double := [opinion for opinion, count in Counter(names).items() if count > 1]:
        raise TaskError(
            f"model.members: {double[0]!r} names two opinions, expected a name for each"
        )
    return learner


@names_the_file
def first_state(learner: Learner, task: Task, capacity: int) -> Any:
    """Compile for `capacity` rows, and return the first state.

    Raises:
        TaskError: what comes from another package does not do what it has to.
    """
    with _fitting(task):
        state = warm_up(learner, capacity)
        if not task.spec.classes and (task.spec.members or task.spec.metrics):
            _try_converting(learner, state)
        return state


def _try_converting(learner: Learner, state: Any) -> None:
    """Convert the first state as if numbers got another frame, which else happens at an event."""
    held = Frame(learner.spec)
    newest = np.zeros((NEWEST, len(held.origin)))
    change = Change(held, np.zeros(len(held.origin), bool), newest)
    converted = frame.rebase(learner.spec, learner.copy(state), change, held)
    kinds, now = (
        {name: (str(leaf.dtype), leaf.shape) for name, leaf in named(each)}
        for each in (state, converted)
    )
    if wrong := [name for name in {**kinds, **now} if kinds.get(name) != now.get(name)]:
        raise ValueError(f"convert makes something else of {wrong[0]}")


@contextmanager
def _fitting(task: Task) -> Iterator[None]:
    """Lay what goes wrong on what the compiled loop has of other packages, if it has anything."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:  # whatever a stranger's function does
        named = [
            (key, name)
            for kind, key, name in plugins.foreign(task)
            if kind is not plugins.KINDS["encoder"]
        ]
        if not named:
            raise
        keys, names = (dict.fromkeys(each) for each in zip(*named, strict=True))
        which = f"{named[0][1]!r}" if len(named) == 1 else f"one of {', '.join(names)}"
        reason = told(error).removeprefix(f"{type(error).__name__}: ").partition("\n")[0]
        reason = reason or type(error).__name__
        raise TaskError(f"{', '.join(keys)}: {which} does not fit: {reason}") from error
