"""What people say of a task and its data by options, beside a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classify", "regress"]


@dataclass(frozen=True)
class Options:
    """Hold what is said beside the data: a task's columns by their roles, and how to read them.

    Attributes:
        kind: what the target is; None: by its values.
        drop: columns to leave out.
        time, entity: the columns with these roles.
        decimal: the decimal mark, where texts do not show which it is.
        dayfirst: whether 03/04/2026 is the third of April, where dates do not show it.
        max_classes: most classes that the target may have; None: labels.MOST_CLASSES.
    """

    kind: Kind | None = None
    drop: Sequence[str] = ()
    time: str | None = None
    entity: str | None = None
    decimal: Literal[".", ","] | None = None
    dayfirst: bool | None = None
    max_classes: int | None = None
