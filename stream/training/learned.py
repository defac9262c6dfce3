"""What the compiled loop is working on, and what came of it, line by line as the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model.batch import Outcome
from headrace.model.frame import Frame
from headrace.model.spec import Spec
from headrace.stream.events import DriftRecord, Explanation
from headrace.stream.rows.classes import Classes
from headrace.stream.rows.rows import Rows
from headrace.stream.training.joined import Joined


class Attributions(NamedTuple):
    """Hold how much each input of a row moved its prediction."""

    parts: Any  # f32[F, O]  of each class, or of the number
    answers: Any  # f32[C]  what is predicted of the mixed rows, see `Walks`
    steps: NDArray[np.float32]  # [F, C]
    frame: Frame  # that they are counted in


class Part(NamedTuple):
    """Hold consecutive rows that the compiled loop is working on."""

    rows: int
    outcome: Outcome
    frame: Frame
    left: Sequence[int] = ()  # numbers of the rows that are taken out with it
    explained: Attributions | None = None  # of its first row


class Pending(NamedTuple):
    """Hold a micro-batch that the compiled loop is working on."""

    rows: Rows
    parts: list[Part]
    joined: Joined | None  # where labels come by themselves


@dataclass(frozen=True)
class Learned:
    """Hold what came of a micro-batch, line by line as its rows."""

    rows: Rows
    published: NDArray[Any]  # [n, P]  float32 of classes, float64 of numbers; NaN = nothing said
    answer: NDArray[np.float64]  # [n]  class index or value, NaN = nothing said
    step: NDArray[np.int64]  # [n]
    drift: list[DriftRecord]
    classes: Classes  # by their index; later ones may be among them
    explanations: Mapping[int, Explanation] = field(default_factory=dict)  # by place of the row
    attributions: Mapping[int, Attributions] = field(default_factory=dict)

    def outcome(self, first: int = 0, last: int | None = None) -> str:
        """Digest what was said about some of the rows: numbers and optimizer steps, bit for bit."""
        said = sha256(self.published[first:last].tobytes())
        said.update(self.step[first:last].tobytes())
        return said.hexdigest()


class Foreseen(NamedTuple):
    """Hold what would come of rows, and how the learner would stand then."""

    found: Learned
    state: Any
    frame: Frame
    classes: Classes
    learned: int
    explaining: Any  # `Explaining`, None without


def answers(spec: Spec, published: NDArray[Any]) -> NDArray[np.float64]:
    """Return the predictions among published numbers [n, P]: class index or value, NaN = none."""
    if not spec.classes:
        return published[:, 0].astype(np.float64)
    chances = published[:, : spec.classes]
    chosen = published[:, -1] if spec.decides else chances.argmax(1)
    return np.where(chances.max(1) > 0, chosen, np.nan)
