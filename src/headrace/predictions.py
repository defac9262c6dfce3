"""What is said of events, for programs: one by one, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa

from headrace.stream.events import DeadLetter, Explanation
from headrace.stream.training.learned import Learned
from headrace.stream.training.trainer import Trainer


@dataclass(frozen=True)
class Prediction:
    """Hold what was said about one event.

    Attributes:
        label: the class that is predicted; None for numbers, and before there is a class.
        value: the number that is predicted; None for classes, and before any label is known.
        probabilities: of each class, calibrated on the stream so far; empty for numbers.
        low, high: what holds the value with the probability `model.coverage`; None for classes,
            and before there are errors to go by.
        holdout: whether what is done should not depend on it, as `labels.holdout` says.
        explanation: what drove it, where the task sets `model.explain`; else None. Its `base` and
            what each of its `inputs` adds make the value, or the probability of the label.
    """

    label: str | None = None
    value: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    holdout: bool = False
    explanation: Explanation | None = None


def first_of(trainer: Trainer, learned: Learned, known: int) -> Prediction:
    """Return what was said of the first row, when so many classes were known."""
    said = trainer.predictions(learned)[0]
    if not trainer.spec.classes:
        low, high = said.interval or (None, None)
        value = cast("float | None", said.prediction)
        return Prediction(None, value, {}, low, high, said.holdout, said.explanation)
    names = [*learned.classes][:known]
    chances = dict(zip(names, said.probabilities or (), strict=False))
    label = cast("str | None", said.prediction)
    return Prediction(label, None, chances, holdout=said.holdout, explanation=said.explanation)


def table_of(
    trainer: Trainer, first: int, rows: int, letters: list[DeadLetter], learned: Learned | None
) -> pa.Table:
    """Return a line for each of so many `rows` from the `first` on."""
    kind: Any = pa.string() if trainer.spec.classes else pa.float64()
    said: dict[str, Any] = dict.fromkeys(["low", "high"], kind)
    if trainer.spec.classes:
        said = {"probabilities": pa.list_(pa.float32())}
    schema = pa.schema({"prediction": kind, **said, "rejected": pa.string()})
    columns: dict[str, list[Any]] = {name: [None] * rows for name in schema.names}
    for letter in letters:
        columns["rejected"][letter.offset - first] = letter.code
    for each in trainer.predictions(learned) if learned else []:
        at = each.offset - first
        columns["prediction"][at] = each.prediction
        if each.probabilities is not None:
            columns["probabilities"][at] = each.probabilities
        elif each.interval is not None:
            columns["low"][at], columns["high"][at] = each.interval
    return pa.Table.from_pydict(columns, schema)
