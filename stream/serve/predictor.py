"""What the newest release of a learner says of events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from headrace.model import counter
from headrace.model.batch import empty_batch
from headrace.stream.errors import HeadraceError
from headrace.stream.events import Explanation, Reject
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.process.garbage import tune_memory
from headrace.stream.serve.event_reader import EventReader
from headrace.stream.task import Task
from headrace.stream.training.asking import LINES, Frozen, ask, predictions, thaw
from headrace.stream.training.explainer import Explainer
from headrace.stream.training.late_labels import Draws
from headrace.stream.training.plugins import learner_of
from headrace.stream.training.programs import keep_programs
from headrace.stream.training.snapshot import Tensors


class NotReleasedError(HeadraceError):
    """Report that there is no state yet to answer by."""


class NotExplainedError(HeadraceError):
    """Report that the task does not let predictions be explained."""


class Answer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hold what is said about one event that was asked about.

    `prediction`, `probabilities`, `interval` and `holdout` are those of `<task>.predictions`.
    """

    id: str | int | None  # null for an event without
    prediction: str | float | None  # null before there is a class
    step: int  # of the learner, then
    version: str  # of the state: run and record of the ledger
    probabilities: list[float] | None = None
    interval: list[float] | None = None
    holdout: bool = False
    explanation: Explanation | None = None  # if it was asked for


@dataclass(frozen=True)
class LoadedRelease:
    """Hold a learner's state as it was released, ready to be asked."""

    frozen: Frozen
    manifest: Manifest
    step: int

    @property
    def version(self) -> str:
        """Name the state: its run and record of the ledger."""
        return f"{self.manifest.run[:12]}-{self.manifest.seq}"

    @property
    def age_s(self) -> float:
        """Return how long ago the state was that of the learner."""
        return max(time.time_ns() // 1_000_000 - self.manifest.time_ms, 0) / 1000


class Predictor:
    """Answer by the newest release; another may be taken over at any time, between two answers.

    Raises:
        TaskError: something that the task names is missing, or does not fit.
    """

    def __init__(self, task: Task) -> None:
        keep_programs()
        self.task, self._learner = task, learner_of(task)
        self._reader, self._draws = EventReader(task), Draws(task)
        self._explainer: Explainer | None = None
        self.release: LoadedRelease | None = None
        """What is answered by; None before the first release."""

    def take_over(self, manifest: Manifest, tensors: Tensors) -> None:
        """Answer by another state from now on; the first time all is compiled before."""
        frozen = thaw(self.task, self._learner, tensors)
        if self.release is None:
            blank = empty_batch(self.task.spec, LINES)
            np.asarray(self._learner.ask(frozen.state, blank, np.int32(0))[0])
            if frozen.background is not None:
                self._explainer = Explainer(self.task, frozen.state)
            tune_memory()  # a full collection would hold answers up for a tenth of a second
        step = int(counter.value(np.asarray(frozen.state.step)[None])[0])
        self.release = LoadedRelease(frozen, manifest, step)

    def explain(self, raws: Sequence[bytes]) -> list[Answer | Reject]:
        """Return what `answer` does, and what drove each prediction.

        Raises:
            NotExplainedError: the task does not let predictions be explained.
            NotReleasedError: nothing was released yet.
        """
        if self.task.model.explain is None:
            raise NotExplainedError(
                f"{self.task.name} explains no prediction: set model.explain in its task file, "
                "to 0 for those that are asked for"
            )
        return self.answer(raws, why=True)

    def answer(self, raws: Sequence[bytes], *, why: bool = False) -> list[Answer | Reject]:
        """Return what is said of each event, or why it is refused; all by one state.

        Args:
            why: whether it is explained, too.

        Raises:
            NotReleasedError: nothing was released yet.
        """
        release = self.release
        if release is None:
            raise NotReleasedError(f"nothing of {self.task.name} was released yet")
        rows, refused, nameless = self._reader.read(raws)
        found: list[Any] = [refused.get(place) for place in range(len(raws))]
        if rows.id:
            learned = ask(release.frozen, rows)
            if why and self._explainer:
                told = self._explainer.explain(release.frozen, rows, learned)
                learned = replace(learned, explanations=told)
            held_out = self._draws.held_out(rows.id)
            version = release.version
            for each in predictions(self._learner.spec, learned, held_out):
                named = each.offset not in nameless
                found[each.offset] = Answer(
                    each.id if named else None,
                    each.prediction,
                    each.step,
                    version,
                    each.probabilities,
                    each.interval,
                    each.holdout and named,
                    each.explanation,
                )
        return found
