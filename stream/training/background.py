"""A sample of the newest rows, which explanations compare others with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.spec import Spec
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task

SIZE = 64  # rows that are kept
SHARE = 1 / 16  # of the rows that are met, once there are so many
NAMES = ("numeric", "ids", "entity", "image")


class Background:
    """Keep a row in 16 of the newest 1,024; which one goes by its number, and so does all chance.

    Attributes:
        numeric, ids, entity, image: the rows' columns, as of `Rows`, of which `len` lines hold one.
        met: how many rows came.
    """

    numeric: NDArray[np.float64]
    ids: NDArray[np.uint32]
    entity: NDArray[np.uint32]
    image: NDArray[np.uint8]

    def __init__(self, spec: Spec) -> None:
        for name, (kind, shape) in _columns(spec).items():
            setattr(self, name, np.zeros(shape, kind))
        self.met, self._kept = 0, 0

    def __len__(self) -> int:
        return min(self._kept, SIZE)

    def add(self, rows: Rows, places: NDArray[np.int64]) -> None:
        """Meet rows, in their order, at some places."""
        numbers = self.met + np.arange(len(places))
        kept = places[(numbers < SIZE) | (drawn(numbers, "kept") < SHARE)]
        at = self._kept + np.arange(len(kept))
        self.met, self._kept = self.met + len(places), self._kept + len(kept)
        for name in NAMES if len(kept) else ():
            column, newest = getattr(self, name), kept[-SIZE:]
            column[at[-SIZE:] % SIZE] = getattr(rows, name)[newest]

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw `count` lines that hold a row; no line twice while there are others."""
        rounds = -(-count // len(self))
        found = random.permuted(np.tile(np.arange(len(self)), (rounds, 1)), axis=1)
        return found.reshape(-1)[:count]

    def copy(self) -> Background:
        """Return another one that is the same."""
        found = Background.__new__(Background)
        vars(found).update(vars(self))
        for name in NAMES:
            setattr(found, name, getattr(self, name).copy())
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `restore` takes; they change as rows are met."""
        counts = np.array([self.met, self._kept])
        return {f"background_{name}": getattr(self, name) for name in NAMES} | {
            "background_counts": counts
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from arrays of this kind."""
        for name in NAMES:
            setattr(self, name, np.array(tensors[f"background_{name}"]))
        self.met, self._kept = map(int, tensors["background_counts"])


def background_of(task: Task) -> Background | None:
    """Return an empty background; None where no prediction is to be explained."""
    return None if task.model.explain is None else Background(task.spec)


def drawn(numbers: Any, kind: str) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row's number, the same one always (SplitMix64).

    Args:
        kind: of chance; those of two kinds have nothing in common.
    """
    salt = np.uint64(int.from_bytes(kind.encode().ljust(8), "little"))
    with np.errstate(over="ignore"):
        mixed = np.asarray(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    found: NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def shapes_of(spec: Spec) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array of a background, by its name in a state."""
    found = {f"background_{name}": each for name, each in _columns(spec).items()}
    return found | {"background_counts": ("int64", (2,))}


def _columns(spec: Spec) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "numeric": ("float64", (SIZE, spec.numeric)),
        "ids": ("uint32", (SIZE, spec.ids)),
        "entity": ("uint32", (SIZE, 2)),
        "image": ("uint8", (SIZE, *spec.image)),
    }
