"""Read the records of a labels topic: as strictly as events, by the same rules."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from headrace.stream.events import DeadLetter, Records, Reject, dead_letter
from headrace.stream.rows.late import LateLabel, labels_of
from headrace.stream.rows.normalizer import EXCLUDED, Normalizer
from headrace.stream.task import Task


class ReadLabels(NamedTuple):
    """Hold the labels of some records, in their order."""

    labels: list[LateLabel]
    arrived_ms: list[int]  # Kafka's timestamps
    letters: list[DeadLetter]  # of records that are no labels


class LabelReader:
    """Read the labels of one task; `read(records)` is a pure function.

    Raises:
        ValueError: the task names no labels topic.
    """

    def __init__(self, task: Task) -> None:
        if task.labels is None:
            raise ValueError(f"task {task.name} has no [labels]")
        told = task.labels
        same = ("topic", "id", "time", "weight", "propensity", "exclude")
        mapped = {key: getattr(told, key) for key in same} | {"entity": told.source}
        source = task.input.model_copy(update=mapped)
        target = task.target.model_copy(update={"field": told.label})
        empty: dict[str, Any] = {"features": {}, "calendar": (), "cross": (), "labels": None}
        self._normalizer = Normalizer(
            task.model_copy(update={"input": source, "target": target} | empty)
        )

    @property
    def non_finite(self) -> int:
        """Return how many NaN and Infinity, which are no JSON, were read as missing so far."""
        return self._normalizer.non_finite

    def read(self, records: Records) -> ReadLabels:
        """Return labels, and a dead letter for each other record; the records have timestamps."""
        rows, letters = self._normalizer.normalize(records)
        letters = [_of_label(letter) for letter in letters]
        labels, arrived, stamps = list[LateLabel](), list[int](), rows.arrived_ms.tolist()
        found = labels_of(rows)
        if weights := rows.weight.ravel().tolist():
            pairs = zip(found, weights, strict=True)
            found = [label and label._replace(weight=weight) for label, weight in pairs]
        for place, label in enumerate(found):
            if label is not None:
                labels.append(label)
                arrived.append(stamps[place])
                continue
            reject = Reject("label", f"id {rows.id[place]!r}: null or absent, expected a label")
            coordinates = rows.partition[place], rows.offset[place]
            letters.append(dead_letter(reject, records.topic, *coordinates, rows.key[place], None))
        letters.sort(key=lambda letter: (letter.partition, letter.offset))
        return ReadLabels(labels, arrived, letters)


def _of_label(letter: DeadLetter) -> DeadLetter:
    """Name the key that excludes a source."""
    if letter.code != EXCLUDED:
        return letter
    detail = letter.detail.replace("input.exclude", "labels.exclude")
    return msgspec.structs.replace(letter, detail=detail)
