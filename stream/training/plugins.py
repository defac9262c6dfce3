"""Members of the pool from other packages, found by name among what is installed.

A task file names them; it never names a module to import. A package offers a member as an entry
point of the group `headrace.members`; a program registers one by `headrace.model.members.register`.
"""

from __future__ import annotations

from collections import Counter
from importlib.metadata import entry_points
from typing import Any

from headrace.model import members, pool
from headrace.model.learner import Learner, make_learner, warm_up
from headrace.stream.errors import TaskError
from headrace.stream.task import Task
from headrace.stream.task.plugins import GROUP


def learner_of(task: Task) -> Learner:
    """Return the learner of a task, with the members that it names.

    Raises:
        TaskError: a member is not installed, or is none.
    """
    for name in task.model.members:
        if name in members.OWN:
            raise TaskError(f"model.members: {name!r} is in every pool: leave it out")
        if name not in members.MEMBERS:
            members.register(name, _installed(name))
    if task.model.members:
        counted = Counter(pool.names(task.spec))
        if double := [opinion for opinion, count in counted.items() if count > 1]:
            raise TaskError(
                f"model.members: {double[0]!r} names two opinions, expected a name for each"
            )
    return make_learner(task.spec)


def first_state(learner: Learner, task: Task, capacity: int) -> Any:
    """Compile for `capacity` rows, and return the first state.

    Raises:
        TaskError: a member from another package does not do what a member has to.
    """
    try:
        return warm_up(learner, capacity)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        if not task.model.members:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TaskError(
            f"model.members: one of {', '.join(task.model.members)} does not fit: {reason[:300]}; "
            "see headrace.model.members.Member for the shapes that are expected"
        ) from error


def _installed(name: str) -> members.Member:
    """Load the member that an installed package offers by this name."""
    points = [*entry_points(group=GROUP, name=name)]
    if len(points) > 1:
        packages = ", ".join(sorted(point.dist.name for point in points if point.dist))
        raise TaskError(
            f"model.members: {name!r} is offered by several packages ({packages}), expected one: "
            "uninstall the others"
        )
    for point in points:
        try:
            found = point.load()
        except Exception as error:  # whatever a stranger's module does
            raise TaskError(
                f"model.members: {name!r} ({point.value}) cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, members.Member):
            raise TaskError(
                f"model.members: {name!r} ({point.value}) is a {type(found).__name__}, expected a "
                "headrace.model.members.Member"
            )
        return found
    offered = sorted({*entry_points(group=GROUP).names, *members.MEMBERS} - {*members.OWN})
    raise TaskError(
        f"model.members: no installed package offers {name!r} (entry point group {GROUP}); there "
        f"is {', '.join(offered) or 'none'}"
    )
