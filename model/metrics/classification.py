"""Prequential accuracy, macro F1, kappa and log-loss, beside two baselines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model import sums
from model.fold import Fold
from model.metrics import tally

_N_TERMS = 8  # a label, 3 predictions, 3 hits, the log-loss
_P_MIN = 1e-7
_FADED = 1e-3  # a class with less weight than this is no longer in the window


class ScoredClass(NamedTuple):
    """Hold one prediction and the truth about it."""

    label: jax.Array  # i32[]: 0 to C - 1; an event with another label is passed over
    probabilities: jax.Array  # f32[C]
    no_change: jax.Array  # i32[]: the label known last, -1 if there is none
    weight: jax.Array  # f32[] or bool[]: 0 leaves the state as it is, all else scores the event


class ClassificationMetrics(NamedTuple):
    """Sum up per class all that is needed of the confusion of the model and two baselines."""

    sums: jax.Array  # f32[3, 8, C]: a tally of labels, predictions, hits and log-loss
    majority: jax.Array  # i32[]: the commonest label so far, the lowest one of equals


def make_classification_metrics(
    n_classes: int, window: int = 1000
) -> Fold[ClassificationMetrics, ScoredClass, None]:
    """Make the metrics of a classifier, and of two baselines: the last label, the commonest one.

    The prediction is the class with the highest probability, the lowest one of equals. Before
    there is a label both baselines predict class 0.

    Args:
        n_classes: C, at least 2.
        window: effective number of events of the fading metrics, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if n_classes < 2:
        raise ValueError(f"the metrics' n_classes is {n_classes}: expected at least 2")
    fade = tally.fading_factor(window)
    classes = np.arange(n_classes)

    def update(
        state: ClassificationMetrics, scored: ScoredClass
    ) -> tuple[ClassificationMetrics, None]:
        label, majority = scored.label, state.majority
        counts = (scored.weight != 0) & (label >= 0) & (label < n_classes)
        model = jnp.argmax(scored.probabilities).astype(jnp.int32)
        predicted = (model, jnp.maximum(scored.no_change, 0), majority)
        hits = [jnp.where(p == label, label, -1) for p in predicted]
        p = scored.probabilities[jnp.clip(label, 0, n_classes - 1)]
        loss = -jnp.log(jnp.where(p > _P_MIN, p, _P_MIN))  # also where p is not a number
        places = sums.once(sums.pack(label, *predicted, *hits, label))
        weights = jnp.where(np.arange(_N_TERMS) == _N_TERMS - 1, sums.once(loss), 1.0)
        terms = jnp.where(places[:, None] == classes, weights[:, None], 0.0)
        table = jnp.where(counts, tally.add(state.sums, terms, fade), state.sums)
        ahead = jnp.sum(table[:2, 0, label] - table[:2, 0, majority])
        overtakes = counts & ((ahead > 0) | ((ahead == 0) & (label < majority)))
        return ClassificationMetrics(table, jnp.where(overtakes, label, majority)), None

    def init() -> ClassificationMetrics:
        return ClassificationMetrics(tally.empty(_N_TERMS, n_classes), jnp.int32(0))

    return Fold(init, update)


def classification_report(state: ClassificationMetrics) -> dict[str, Any]:
    """Return accuracy, macro F1, Cohen's kappa and log-loss as plain numbers, None where undefined.

    Macro F1 is over the classes seen as a label or as a prediction; in the window, over those of
    which a thousandth of an event is left. Log-loss takes probabilities below 1e-7 as 1e-7.

    Example:
        {"all": {"accuracy": .9, "macro_f1": .8, "kappa": .7, "log_loss": .2, "events": 100},
         "window": {...}, "baselines": {"no_change": {"all": {...}, "window": {...}},
         "majority": {...}}}
    """
    report: dict[str, Any] = {"baselines": {"no_change": {}, "majority": {}}}
    for span, table in tally.spans(state.sums).items():
        labels, predicted, hits, losses = table[0], table[1:4], table[4:7], table[7]
        events = float(labels.sum())
        for k, name in enumerate(("no_change", "majority"), start=1):
            report["baselines"][name][span] = _scores(labels, predicted[k], hits[k])
        report[span] = _scores(labels, predicted[0], hits[0]) | {
            "log_loss": float(losses.sum() / events) if events else None,
            "events": int(events) if span == "all" else events,
        }
    return report


def _scores(labels: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> dict[str, float | None]:
    events = labels.sum()
    if not events:
        return {"accuracy": None, "macro_f1": None, "kappa": None}
    accuracy = hits.sum() / events
    chance = (labels * predicted).sum() / events**2
    either = labels + predicted
    seen = either > _FADED
    # of one class only, all is chance: fading sums need not say so exactly
    defined = np.count_nonzero(seen) > 1
    return {
        "accuracy": float(accuracy),
        "macro_f1": float(np.mean(2 * hits[seen] / either[seen])),
        "kappa": float((accuracy - chance) / (1 - chance)) if defined else None,
    }
