"""How a classifier does, event after event: hits, calibration and ranking, beside baselines."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headrace.model import xla
from headrace.model.fold import Fold
from headrace.model.metrics import ranking, tally
from headrace.model.metrics.confusion import Counts, per_class, scores
from headrace.model.metrics.tally import FADED

# rows of the table: a label, 3 predictions, 3 hits, the log-loss; gaps by bin of the winning
# probability; events by which of the 3 predictors missed, as a sum of 1, 2 and 4
_LOSS, _GAPS, _MISSES = 7, 8, 9
_N_BINS = 15
_N_MISSES = 8
_P_MIN = 1e-7


class ScoredClass(NamedTuple):
    """Hold a block of K predictions, in their order, and the truth about them; K is 1 to 1000."""

    label: jax.Array  # i32[K]: 0 to C - 1; an event with another label is passed over
    probabilities: jax.Array  # f32[K, C]
    no_change: jax.Array  # i32[K]: the label known last, -1 if there is none
    weight: jax.Array  # f32[K] or bool[K]: 0 leaves the state as it is, all else scores the event
    answer: jax.Array | None = None  # i32[K]: the class predicted; None is the likeliest


class ClassificationMetrics(NamedTuple):
    """Sum up what is needed of the confusion of the model and two baselines, and keep scores."""

    sums: jax.Array  # f32[3, 8 C + 23] or, from 15 classes, f32[3, 10, C]: a tally, see `_cells`
    places: jax.Array  # i32[2]: the commonest label, the lowest of equals; the next line of newest
    newest: jax.Array  # f32[1001, C + 1]: probabilities and labels, see `ranking.empty`
    ranks: jax.Array  # u32[R, 2, 96]: events by their score, see `ranking.no_ranks`


def make_classification_metrics(
    n_classes: int, window: int = 1000
) -> Fold[ClassificationMetrics, ScoredClass, None]:
    """Make the metrics of a classifier, and of two baselines: the last label, the commonest one.

    The prediction is the class with the highest probability, the lowest one of equals, unless
    another is given as the answer. Before there is a label both baselines predict class 0. The
    commonest label is that from before the block, as the model too predicts a block with what it
    knew before; so the state depends on where blocks begin, and with blocks of one event it is
    that of each event after the other.

    Args:
        n_classes: C, at least 2.
        window: effective number of events of the fading metrics, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if n_classes < 2:
        raise ValueError(f"the metrics' n_classes is {n_classes}: expected at least 2")
    fade = tally.fading_factor(window)
    row, own = _cells(n_classes)

    def update(
        state: ClassificationMetrics, scored: ScoredClass
    ) -> tuple[ClassificationMetrics, None]:
        label, probabilities = scored.label, scored.probabilities
        majority, cursor = state.places
        counts = (scored.weight != 0) & (label >= 0) & (label < n_classes)
        model = scored.answer
        if model is None:
            model = jnp.argmax(probabilities, axis=1).astype(jnp.int32)
        predicted = (model, jnp.maximum(scored.no_change, 0), jnp.full_like(label, majority))
        hits = [p == label for p in predicted]
        hit_labels = [jnp.where(hit, label, -1) for hit in hits]
        missed = 7 - (hits[0] + 2 * hits[1] + 4 * hits[2])
        p = _pick(probabilities, jnp.clip(label, 0, n_classes - 1))
        loss = -jnp.log(jnp.where(p > _P_MIN, p, _P_MIN))  # also where p is not a number
        sure = _pick(probabilities, model)
        sure = jnp.clip(jnp.where(jnp.isnan(sure), 1.0, sure), 0.0, 1.0)
        fullest = jnp.maximum(jnp.ceil(sure * _N_BINS).astype(jnp.int32) - 1, 0)

        def spread(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *(1,) * row.ndim)

        values = (label, *predicted, *hit_labels, label, fullest, missed)
        place = xla.choose(row[None], [spread(value) for value in values])
        weight = jnp.where(row == _GAPS, spread(sure - hits[0]), 1.0)
        weight = jnp.where(row == _LOSS, spread(loss), weight)
        terms = jnp.where(place == own, weight, 0.0)
        table = tally.add(state.sums, terms, *tally.weights(counts, fade))
        table = jnp.where(counts.any(), table, state.sums)
        counted, lost = table.reshape(3, -1)[:2]
        ahead = (counted[label] - counted[majority]) + (lost[label] - lost[majority])
        ahead = jnp.where(counts, ahead, -1.0)
        lead = jnp.maximum(jnp.max(ahead), 0.0)
        lowest = jnp.min(jnp.where(ahead == lead, label, n_classes))
        commonest = jnp.where(lead > 0, lowest, jnp.minimum(lowest, majority))
        following = ranking.after(cursor, jnp.sum(counts, dtype=jnp.int32))
        newest = ranking.put(state.newest, cursor, jnp.where(counts, label, -1), probabilities)
        ranks = ranking.count(state.ranks, jnp.where(counts, label, -1), probabilities)
        places = xla.pack(commonest, following)
        return ClassificationMetrics(table, places, newest, ranks), None

    def init() -> ClassificationMetrics:
        return ClassificationMetrics(
            sums=tally.empty(*own.shape),
            places=jnp.zeros(2, jnp.int32),
            newest=ranking.empty(n_classes),
            ranks=ranking.no_ranks(n_classes),
        )

    return Fold(init, update)


def _pick(table: jax.Array, column: jax.Array) -> jax.Array:
    """Return one cell of each row; of a single row by a slice, which costs no kernel."""
    if len(table) == 1:
        return table[0, column[0]][None]
    return table[np.arange(len(table)), column]


def _cells(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Say of each cell of the table in which row it is, and for which class, bin or misses.

    With few classes the cells are in one line, as short ones are no good for vector code.
    """
    if n_classes >= _N_BINS:
        row = np.arange(_MISSES + 1)[:, None]
        return row, np.arange(n_classes) + 0 * row
    lengths = [n_classes] * _GAPS + [_N_BINS, _N_MISSES]
    return np.repeat(np.arange(len(lengths)), lengths), np.concatenate([*map(np.arange, lengths)])


def classification_report(state: ClassificationMetrics) -> dict[str, Any]:
    """Return plain numbers, None where undefined: shares are in [0, 1], kappas at most 1.

    "all" is over all events, "window" over the fading ones:

    - accuracy; balanced_accuracy, the mean recall of the classes that occur as a label.
    - macro_precision, macro_recall, macro_f1: means over the classes that occur as a label or as a
      prediction, each 0 where a class makes it 0 / 0; in the window, over those of which a
      thousandth of an event is left.
    - micro_precision, micro_recall, micro_f1: over all classes taken together. Each event has one
      label and one prediction, so that all three are the accuracy.
    - kappa: Cohen's, against chance; undefined while there is only one class.
    - kappa_m, kappa_t: the share of the majority's and of no-change's misses that the model avoids,
      undefined where there are none (in the window, a thousandth of one); below 0, it is worse.
    - log_loss, in nats, at least 0: a probability below 1e-7 is taken as 1e-7.
    - ece, the expected calibration error: how far the winning probability is from the share of
      hits, the mean over events of 15 bins of it, each open below, as (0, 1/15].
    - roc_auc, pr_auc: how well probabilities rank the classes, see `ranking.roc_auc` and
      `ranking.pr_auc`; left out above 32 classes. In the window, over the newest 1000 events, each
      in full; over all events by 96 steps of their log-odds.

    "per_class" is a list by class, each with its own pr_auc, too. Baselines have what hits and
    misses give.

    Example:
        {"all": {"accuracy": .9, "macro_f1": .8, "kappa": .7, "log_loss": .2, "events": 100, ...},
         "window": {...}, "baselines": {"no_change": {"all": {...}, "window": {...}},
         "majority": {...}}, "per_class": {"all": [{"precision": .9, "recall": .7, "f1": .8,
         "support": 60.0}, ...], "window": [...]}}

    References:
        Brodersen, Ong, Stephan, Buhmann 2010, The balanced accuracy and its posterior distribution,
        ICPR. Sokolova & Lapalme 2009, A systematic analysis of performance measures for
        classification tasks, Information Processing & Management 45 (macro, micro). Cohen 1960, A
        coefficient of agreement for nominal scales, Educational and Psychological Measurement 20.
        Bifet, de Francisci Morales, Read, Holmes, Pfahringer 2015, Efficient online evaluation of
        big data stream classifiers, KDD (kappa-M). Žliobaitė, Bifet, Read, Pfahringer, Holmes 2015,
        Evaluation methods and decision theory for classification of streaming data with temporal
        dependence, Machine Learning 98 (kappa-T). Good 1952, Rational decisions, Journal of the
        Royal Statistical Society B 14 (log-loss). Guo, Pleiss, Sun, Weinberger 2017, On
        calibration of modern neural networks, ICML (ECE).
    """
    report: dict[str, Any] = {"per_class": {}, "baselines": {"no_change": {}, "majority": {}}}
    row, own = _cells(state.newest.shape[1] - 1)
    row = np.broadcast_to(row, own.shape)
    for span, cells in tally.spans(state.sums).items():
        table = [cells[row == k] for k in range(_MISSES + 1)]
        model, no_change, majority = (Counts(table[0], table[k], table[k + 3]) for k in (1, 2, 3))
        events = float(model.labels.sum())
        missed = [table[_MISSES][own[row == _MISSES] & 2**k > 0].sum() for k in range(3)]
        for name, counts in (("no_change", no_change), ("majority", majority)):
            report["baselines"][name][span] = scores(counts)
        report["per_class"][span] = per_class(model)
        report[span] = scores(model) | {
            "kappa_m": _avoided(missed[0], missed[2]),
            "kappa_t": _avoided(missed[0], missed[1]),
            "log_loss": float(table[_LOSS].sum() / events) if events else None,
            "ece": float(np.abs(table[_GAPS]).sum() / events) if events else None,
            "events": int(events) if span == "all" else events,
        }
    newest, ranks = np.asarray(state.newest), np.asarray(state.ranks, np.float64)
    if len(newest):
        for span, ranked in (("all", [*ranks]), ("window", ranking.exact_ranks(newest))):
            areas = ranking.pr_auc(ranked, exact=span == "window")
            report[span] |= {
                "roc_auc": ranking.roc_auc(ranked),
                "pr_auc": ranking.together(areas),
            }
            for line, area in zip(report["per_class"][span], areas, strict=True):
                line["pr_auc"] = area
    return report


def _avoided(misses: float, of: float) -> float | None:
    return float(1 - misses / of) if of > FADED else None
