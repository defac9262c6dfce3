"""Learn a stream with a task's defaults, and hold it against what costs nothing to say."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.torture.streams import Torture
from headrace.stream.events import Records
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import validate
from headrace.stream.training.trainer import Trainer

Kind = Literal["classify", "regress"]
Floats = NDArray[np.float64]
BATCH = 1000
CLASSES = ["over", "under"]
OURS = "headrace"
FIRST = 10
NEWEST = 1000  # labels that a recent mean is of


class Tenth(NamedTuple):
    """Hold what became of a tenth of a stream."""

    ours: float  # mean error: the share missed, or the mean absolute error
    best: float  # the same of the baseline that is best over all
    typical: float  # our median error


class Tried(NamedTuple):
    """Hold what became of a stream.

    A score is the accuracy or the mean absolute error, from row FIRST on: of so few labels, whoever
    guesses best is best.
    """

    rows: int
    silent: int  # rows of which a number was not said: before a label, or before an error of one
    endless: int  # rows with an infinite number
    score: float
    baselines: dict[str, float]  # on the same rows
    second: Tenth
    last: Tenth
    resets: int  # of members that were lost

    @property
    def best(self) -> str:
        """Name the best baseline."""
        better = max if "majority" in self.baselines else min
        return better(self.baselines, key=self.baselines.__getitem__)


def learn(stream: Torture, kind: Kind) -> Tried:
    """Learn a stream from its events on, as the service would.

    Raises:
        ValueError: events were refused, so there is no prediction for each label.
    """
    label: NDArray[Any] = stream.classes() if kind == "classify" else stream.label
    task = validate(
        {
            "name": "torture",
            "input": {"topic": "torture"},
            "target": {"field": "y", "kind": kind}
            | ({"classes": CLASSES} if kind == "classify" else {}),
            "features": {
                name: {"kind": "number" if values.dtype.kind == "f" else "category"}
                for name, values in stream.columns.items()
            },
        },
        "bench torture",
    )
    trainer, normalizer, batches = Trainer(task, BATCH), Normalizer(task), list[Any]()
    for records in _records(stream, label):
        rows, refused = normalizer.normalize(records)
        if refused:
            raise ValueError(f"{len(refused)} events refused, the first for {refused[0].code}")
        batches.append(trainer.collect(trainer.submit(rows)).published)
    published = np.concatenate(batches)
    if kind == "classify":
        truth = np.searchsorted(CLASSES, label).astype(np.float64)
        answer = published.argmax(1).astype(np.float64)
    else:
        truth, answer = stream.label, published[:, 0]
    said = {OURS: answer, **dict(_baselines(kind, truth))}
    errors = {
        name: (truth != each).astype(np.float64) if kind == "classify" else np.abs(truth - each)
        for name, each in said.items()
    }
    means = {name: float(each[FIRST:].mean()) for name, each in errors.items()}
    scores = {name: 1.0 - mean if kind == "classify" else mean for name, mean in means.items()}
    best, tenth = min(set(means) - {OURS}, key=means.__getitem__), len(truth) // 10

    def part(rows: slice) -> Tenth:
        ours, other = errors[OURS][rows], errors[best][rows]
        return Tenth(float(ours.mean()), float(other.mean()), float(np.median(ours)))

    return Tried(
        rows=len(truth),
        silent=int(np.isnan(published).any(1).sum()),
        endless=int(np.isinf(published).any(1).sum()),
        score=scores.pop(OURS),
        baselines=scores,
        second=part(slice(tenth, 2 * tenth)),
        last=part(slice(-tenth, None)),
        resets=trainer.report()["resets"],
    )


def _records(stream: Torture, label: NDArray[Any]) -> Iterator[Records]:
    columns = {name: values.tolist() for name, values in stream.columns.items()}
    encode, labels = msgspec.json.encode, label.tolist()
    for first in range(0, len(labels), BATCH):
        end = min(first + BATCH, len(labels))
        values: list[bytes | None] = [
            encode(
                {"id": row, "y": labels[row]}
                | {name: each[row] for name, each in columns.items() if each[row] == each[row]}
            )
            for row in range(first, end)
        ]
        yield Records(
            topic="torture",
            values=values,
            keys=[None] * len(values),
            partitions=[0] * len(values),
            offsets=list(range(first, end)),
            timestamps_ms=[0] * len(values),
        )


def _baselines(kind: Kind, truth: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield what is said before each row by those that know only the labels before it."""
    before = np.concatenate([[np.nan], truth[:-1]])
    seen = np.arange(len(truth))
    yield "no-change", before
    with np.errstate(invalid="ignore"):
        total = np.concatenate([[0.0], np.cumsum(truth)[:-1]])
        recent = total - np.concatenate([np.zeros(min(NEWEST, len(total))), total[:-NEWEST]])
        mean, moving = total / seen, recent / np.minimum(seen, NEWEST)
    if kind == "classify":
        yield "majority", (mean > 0.5).astype(np.float64)
        yield "recent majority", (moving > 0.5).astype(np.float64)
    else:
        yield "mean", mean
        yield "recent mean", moving
        yield "median", _medians(truth)


def _medians(values: Floats) -> Floats:
    """Return the median of all values before each one, by two heaps: lower and upper half."""
    lower, upper, found = list[float](), list[float](), np.full(len(values), np.nan)
    for at, value in zip(count(), values.tolist()):
        if at:
            found[at] = -lower[0] if len(lower) > len(upper) else (upper[0] - lower[0]) / 2.0
        heapq.heappush(upper, -heapq.heappushpop(lower, -value))
        if len(upper) > len(lower):
            heapq.heappush(lower, -heapq.heappop(upper))
    return found
