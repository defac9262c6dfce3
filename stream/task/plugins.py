"""Which installed packages a task depends on beside headrace."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points

GROUP = "headrace.members"  # of entry points


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return package and version of members by name; those that no package offers are left out."""
    found = {}
    for name in names:
        for point in entry_points(group=GROUP, name=name):
            if point.dist:
                found[name] = f"{point.dist.name} {point.dist.version}"
    return found
