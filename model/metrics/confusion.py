"""What labels, predictions and hits per class amount to, in numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.model.metrics.tally import FADED


class Counts(NamedTuple):
    """Hold what is needed of a confusion matrix of C classes; fading counts are fractions."""

    labels: np.ndarray  # f64[C]: events of each class
    predicted: np.ndarray  # f64[C]: events predicted as each class
    hits: np.ndarray  # f64[C]: events of each class predicted as such


def per_class(counts: Counts) -> list[dict[str, float]]:
    """Return precision, recall, F1, each in [0, 1] and 0 where undefined, and support per class."""
    ratios = [_ratio(counts.hits, whole) for whole in (counts.predicted, counts.labels)]
    columns = (*ratios, _ratio(2 * counts.hits, counts.labels + counts.predicted), counts.labels)
    names = ("precision", "recall", "f1", "support")
    return [
        {name: float(value) for name, value in zip(names, row, strict=True)}
        for row in zip(*columns, strict=True)
    ]


def scores(counts: Counts) -> dict[str, float | None]:
    """Return what the confusion matrix says, as `classification_report` explains."""
    names = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
    micro = ("micro_precision", "micro_recall", "micro_f1")
    labels, predicted, hits = counts
    events = labels.sum()
    if not events:
        return dict.fromkeys((*names, *micro, "kappa"))
    accuracy = hits.sum() / events
    seen = labels + predicted > FADED
    chance = (labels * predicted).sum() / events**2
    recall = _ratio(hits, labels)
    values = (
        accuracy,
        recall[labels > FADED].mean(),
        _ratio(hits, predicted)[seen].mean(),
        recall[seen].mean(),
        _ratio(2 * hits, labels + predicted)[seen].mean(),
    )
    # of one class only, all is chance: fading sums need not say so exactly
    defined = np.count_nonzero(seen) > 1
    found: dict[str, Any] = dict(zip(names, map(float, values), strict=True))
    return (
        found
        | dict.fromkeys(micro, float(accuracy))
        | {"kappa": float((accuracy - chance) / (1 - chance)) if defined else None}
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    ratio: np.ndarray = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return ratio
