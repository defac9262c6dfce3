"""Which of a learner's predictions are explained, and what that goes by as it learns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from headrace.model.frame import Frame
from headrace.model.state import State
from headrace.stream.rows.inputs import inputs_of
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.training import background
from headrace.stream.training.background import Background, drawn
from headrace.stream.training.explainer import Explainer
from headrace.stream.training.learned import Attributions, Learned, Pending


class Explaining:
    """Choose predictions to be explained, and explain each from what was learned before it.

    Nothing depends on how a stream is cut into micro-batches.

    Attributes:
        background: of all rows so far.
        importance: of the inputs so far, see `attributions`.
        only: numbers of the events that are explained, if not a share of all; the first is 0.
    """

    only: NDArray[np.int64] | None = None

    def __init__(self, task: Task, share: float, state: State) -> None:
        self.explainer, self._share = Explainer(task, state), share
        self.background, self.importance = Background(task.spec), self.explainer.blank()
        self._events, self._chosen = np.zeros(0, np.int64), set[int]()  # of the micro-batch

    def copy(self) -> Explaining:
        """Return another one that goes on by itself."""
        found = copy(self)
        found.background = self.background.copy()
        return found

    def chosen(self, events: Sequence[int]) -> list[int]:
        """Return which of the next events are explained.

        Args:
            events: their lines.
        """
        self._events = np.array(events, np.int64)
        numbers = self.background.met + np.arange(len(events))
        wanted = drawn(numbers, "explain") < self._share
        if self.only is not None:
            wanted = np.isin(numbers, self.only)
        lines: list[int] = self._events[wanted].tolist()
        self._chosen = {*lines}
        return lines

    def explain(
        self, state: State, counted: Frame, rows: Rows, first: int, stop: int
    ) -> Attributions | None:
        """Begin to explain the first of some lines if it is chosen, and meet them; does not wait.

        Args:
            state: before these lines.
        """
        found = None
        if first in self._chosen:
            found, self.importance = self.explainer.ask(
                state, counted, rows, first, self.background, self.importance
            )
        inner = slice(*np.searchsorted(self._events, (first, stop)))
        self.background.add(rows, self._events[inner])
        return found

    def explained(self, pending: Pending, learned: Learned) -> Learned:
        """Put explanations to what came of a micro-batch; waits for them."""
        asked, first = dict[int, Attributions](), 0
        for part in pending.parts:
            if part.explained:
                asked[first] = part.explained
            first += part.rows
        if joined := pending.joined:
            asked = {bisect_left(joined.events, line): each for line, each in asked.items()}
        told = self.explainer.told(asked, learned)
        return replace(learned, explanations=told, attributions=asked)

    def rebase(self, before: Frame, after: Frame) -> None:
        """Count the importance in another unit."""
        if len(after.unit) and before.unit[-1] != after.unit[-1]:
            factor = np.float32(before.unit[-1] / after.unit[-1])
            self.importance = self.importance.at[:-1].multiply(factor)

    def arrays(self) -> dict[str, Array | NDArray[Any]]:
        """Copy what `restore` takes."""
        return self.background.copy().arrays() | {"importance": self.importance}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from arrays of this kind."""
        self.background.restore(tensors)
        self.importance = jnp.array(tensors["importance"])


def pieces(first: int, end: int, most: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the ends of pieces of `most` lines at most, which also begin at each cut."""
    inner = cuts[bisect_right(cuts, first) : bisect_left(cuts, end)]
    for start, stop in pairwise([first, *inner, end]):
        for at in range(start, max(stop, start + 1), most):
            yield at, min(stop, at + most)


def shapes_of(task: Task) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array, by its name in a state."""
    return background.shapes_of(task.spec) | {
        "importance": ("float32", (len(inputs_of(task)) + 1,))
    }
