"""Which inputs drove a prediction: what each adds to what is usual, up to what is predicted."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from headrace.model import attributions
from headrace.model.batch import empty_batch
from headrace.model.frame import Frame
from headrace.model.state import State
from headrace.stream.events import Explanation
from headrace.stream.rows.inputs import Inputs
from headrace.stream.rows.rows import Rows
from headrace.stream.task import Task
from headrace.stream.training.asking import Frozen, batch_of, framed, moved
from headrace.stream.training.background import Background
from headrace.stream.training.learned import Attributions, Learned

DRAWN = 64  # ways to walk, of which each explanation takes the next one


class Explainer:
    """Explain predictions of one task, by the rows of a background.

    Everything is compiled when the constructor returns.

    Args:
        state: of the shapes that will be asked.
    """

    def __init__(self, task: Task, state: State) -> None:
        self._spec, self._inputs = task.spec, Inputs(task)
        count = len(self._inputs.all)
        self._walks = attributions.walks_of(count)
        self._attribute = attributions.make_attributions(self._spec)
        self._drawn = [
            attributions.draw_walks(count, self._walks, np.random.default_rng(seed))
            for seed in range(DRAWN)
        ]
        walks = self._drawn[0]
        self._lines = len(walks.origin)
        blank = empty_batch(self._spec, self._lines)
        jax.block_until_ready(  # type: ignore[no-untyped-call]
            self._attribute(state, blank, walks.steps, self.blank())
        )

    def blank(self) -> Array:
        """Return the importance of the inputs before anything was explained."""
        return jnp.asarray(attributions.blank(len(self._inputs.all)))

    def ask(
        self,
        state: State,
        counted: Frame,
        rows: Rows,
        at: int,
        background: Background,
        importance: Array,
    ) -> tuple[Attributions | None, Array]:
        """Begin to explain what is said of a row; does not wait.

        What is drawn for that goes by how many rows the background met.

        Returns:
            also the importance of the inputs after it. None without any row before it.
        """
        if not len(background):
            return None, importance
        random, walks = np.random.default_rng(background.met), self._drawn[background.met % DRAWN]
        origin = background.draw(self._walks, random)[walks.origin]
        mixed = self._inputs.mixed(rows, at, background, walks.own, origin)
        values = framed(self._spec, mixed)
        batch = batch_of(self._spec, self._lines, counted, mixed, values, 0, self._lines)
        parts, answers, importance = self._attribute(state, batch, walks.steps, importance)
        return Attributions(parts, answers, walks.steps, counted.copy()), importance

    def explain(self, held: Frozen, rows: Rows, learned: Learned) -> dict[int, Explanation]:
        """Return why rows would get their predictions if they came next, by place.

        Args:
            learned: what `asking.ask` said of them.
        """
        background, asked = held.background, dict[int, Attributions]()
        assert background is not None  # noqa: S101
        values = framed(self._spec, rows)
        for at in range(len(rows.id)):
            after = moved(held, values[at : at + 1])
            one, _ = self.ask(after.state, after.frame, rows, at, background, self.blank())
            if one:
                asked[at] = one
        return self.told(asked, learned)

    def told(self, asked: dict[int, Attributions], learned: Learned) -> dict[int, Explanation]:
        """Return the explanations of what was said, by place of the row; waits for them."""
        found = {}
        for at, each in asked.items():
            answer = learned.answer[at]
            place = int(answer) if self._spec.classes and answer == answer else 0
            numbers = np.asarray(each.parts)[:, place].astype(np.float64) * self._unit(each.frame)
            if answer != answer or not np.isfinite(numbers).all():
                continue  # nothing is said
            said = float(learned.published[at, place])
            told = dict(zip(self._inputs.names, numbers.tolist(), strict=True))
            base = said - math.fsum(told.values())
            of = learned.classes[place] if self._spec.classes else None
            found[at] = Explanation(base, told, of)
        return found

    def errors(self, asked: Attributions, label: float) -> NDArray[np.float64]:
        """Return what each input adds to the error of a prediction, float64[F].

        The error is 1 for a wrong class, or how far the number is from the label. Together they are
        the error less that of predicting by rows from the background (Lundberg et al. 2020, "From
        local explanations to global understanding with explainable AI for trees", on monitoring).
        """
        said = np.asarray(asked.answers)
        if self._spec.classes:
            error = (said != label).astype(np.float64)
        else:
            error = np.abs(asked.frame.to_external(said) - label)
        found: NDArray[np.float64] = asked.steps.astype(np.float64) @ error
        return found

    def report(self, importance: Array, unit: float) -> dict[str, Any]:
        """Return what metrics tell of the importance of inputs; nothing before there is any."""
        *sizes, count = np.asarray(importance).tolist()
        if not count:
            return {}
        told = zip(self._inputs.names, sizes, strict=True)
        return {"importance": {name: size * unit for name, size in told}}

    def _unit(self, counted: Frame) -> float:
        return 1.0 if self._spec.classes else float(counted.unit[-1])
