"""A state as arrays by name: what is kept of a learner, and told of it by a digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.model import frame
from headrace.model.state import named
from headrace.stream.rows.classes import came_shape
from headrace.stream.task import Task
from headrace.stream.training import background, explaining, join_arrays
from headrace.stream.training.plugins import learner_of

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SavedState:
    """Hold the state of a learner that was saved."""

    tensors: Tensors
    learned: int  # labels
    code: str | None = None  # fingerprint of what learned it; None: of this

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the state, as of `digest`."""
        return digest(self.tensors)


class Snapshot(NamedTuple):
    """Hold the state after the last submitted row, while the learner goes on."""

    state: Any
    recent: list[str | int]
    came: NDArray[np.uint8]
    frame: NDArray[np.float64]
    learned: int
    join: dict[str, Any] | None = None
    rows: Callable[[NDArray[np.int64]], NDArray[np.uint8]] | None = None  # that wait outside
    explaining: Mapping[str, Any] | None = None  # what explanations go by

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Wait for the state, and give its arrays by name.

        `recent` holds the remembered ids, `came` the classes that came, and `frame` what numbers
        are counted from. Where labels come by themselves, others hold what waits for them; where
        predictions are explained, what that goes by.
        """
        ids = np.frombuffer(msgspec.msgpack.encode(self.recent), np.uint8)
        arrays = {name: np.asarray(leaf) for name, leaf in named(self.state)}
        if self.join:
            arrays |= join_arrays.arrays(self.join)
        if self.join and self.rows:
            arrays["left_rows"] = self.rows(self.join["newest"].outside(self.join["status"]))
        for name, array in (self.explaining or {}).items():
            arrays[name] = np.asarray(array)
        return arrays | {"recent": ids, "came": self.came, "frame": self.frame}


def digest(tensors: Tensors) -> str:
    """Digest a state: sha256 over names, types, shapes and bytes."""
    total = sha256()
    for name, array in sorted(tensors.items()):
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def shapes_of(task: Task) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array of a task's state, by name; (-1,) is any length."""
    state = jax.eval_shape(learner_of(task).init)
    found = {name: (str(leaf.dtype), leaf.shape) for name, leaf in named(state)}
    if waiting := task.spec.waiting:
        most = task.labels.max_pending if task.labels else waiting
        found |= join_arrays.shapes_of(most, task.target.horizon, outside=task.spec.loads)
    if task.model.explain is not None:
        found |= explaining.shapes_of(task)
    return found | {
        "recent": ("uint8", (-1,)),
        "came": ("uint8", came_shape(task)),
        "frame": ("float64", frame.blank(task.spec).shape),
    }


def released_shapes(task: Task) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array that it takes to predict: what waits is left out."""
    state = {name for name, _ in named(jax.eval_shape(learner_of(task).init))}
    kept = {name for name in state if not name.startswith("waiting")} | {"came", "frame"}
    if task.model.explain is not None:
        kept |= background.shapes_of(task.spec).keys()
    return {name: each for name, each in shapes_of(task).items() if name in kept}
