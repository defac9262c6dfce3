"""How well scores rank the classes: the newest in full, all that there were by coarse steps."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

N_NEWEST = 1000  # scored events that are ranked
STEPS = 96  # of log-odds, by which all events are ranked
EDGES = (1 / (1 + np.exp(-0.3 * (np.arange(STEPS - 1) - STEPS // 2 + 1)))).astype(np.float32)
MAX_CLASSES = 32  # of more classes no scores are kept: 132 KB of state would become 4 MB


def empty(n_classes: int) -> jax.Array:
    """Return room for the newest scores, f32[1001, C + 1]; none, f32[0, C + 1], above 32 classes.

    A line is the probabilities of one event and 1 more than its label, 0 where there is none yet.
    The last line takes what is passed over, as zeros.
    """
    lines = N_NEWEST + 1 if n_classes <= MAX_CLASSES else 0
    return jnp.zeros((lines, n_classes + 1), jnp.float32)


def put(
    newest: jax.Array, cursor: jax.Array, labels: jax.Array, probabilities: jax.Array
) -> jax.Array:
    """Write K events over the oldest ones, from line `cursor`; one of label -1 leaves no trace.

    The array is written in place and never read: a read beside the write would have XLA copy it.
    """
    if not newest.shape[0]:
        return newest
    k, n_classes = probabilities.shape
    counts = labels >= 0
    padded = jnp.pad(probabilities, ((0, 0), (0, 1)))
    lines = jnp.where(np.arange(n_classes + 1) < n_classes, padded, labels[:, None] + 1.0)
    lines = jnp.where(counts[:, None], lines, 0.0)
    before = jnp.sum(np.tri(k, k=-1, dtype=bool) & counts, axis=1, dtype=jnp.int32)
    at = jnp.where(counts, after(cursor, before), N_NEWEST)
    for row in range(k):
        newest = lax.dynamic_update_slice(newest, lines[row : row + 1], (at[row], 0))
    return newest


def after(cursor: jax.Array, n_events: jax.Array) -> jax.Array:
    """Return the line that comes `n_events` after `cursor`, both at most 1000."""
    moved = cursor + n_events
    return jnp.where(moved < N_NEWEST, moved, moved - N_NEWEST)


def no_ranks(n_classes: int) -> jax.Array:
    """Return counts of no events by class, truth and score, u32[R, 2, STEPS].

    R is C, 1 of two classes, as the scores of class 1 say all, or 0 above 32. Second, 0 counts the
    events of other classes and 1 those of the class. A score is a step of the log-odds.
    """
    rows = 1 if n_classes == 2 else n_classes if n_classes <= MAX_CLASSES else 0
    return jnp.zeros((rows, 2, STEPS), jnp.uint32)


def count(ranks: jax.Array, labels: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Count K events, f32[K, C], by their scores; one of label -1 is passed over.

    When a count is 2^31 - 1 all are halved, so that they never end.
    """
    if not len(ranks):
        return ranks
    classes = np.arange(probabilities.shape[1])[-len(ranks) :]
    own = (labels[:, None] == classes)[..., None] == np.array([False, True])
    step = (probabilities[:, classes, None] > EDGES).sum(-1)[..., None] == np.arange(STEPS)
    known = (labels >= 0)[:, None, None, None]
    there = own[..., None] & step[:, :, None] & known
    ranks = ranks + there.sum(0, dtype=jnp.uint32)
    return ranks >> (ranks.max() >= np.uint32((1 << 31) - 1)).astype(jnp.uint32)


def exact_ranks(newest: np.ndarray) -> list[np.ndarray]:
    """Return counts as `count` keeps them of the newest events, each score a step of its own."""
    lines = newest[newest[:, -1] > 0]
    labels, scores = lines[:, -1] - 1, np.nan_to_num(lines[:, :-1], nan=-np.inf)
    n_classes = scores.shape[1]
    ranks = []
    for c in (1,) if n_classes == 2 else range(n_classes):
        found, step = np.unique(scores[:, c], return_inverse=True)
        ranks.append(
            np.array(
                [
                    np.bincount(step[(labels == c) == own], minlength=len(found))
                    for own in (False, True)
                ],
                np.float64,
            )
        )
    return ranks


def roc_auc(ranks: Sequence[np.ndarray]) -> float | None:
    """Return the area under the ROC curve, in [0, 1], None where it is undefined.

    Of two classes it is the probability that an event of class 1 has a higher score of class 1
    than one of class 0, ties counting half: the Mann-Whitney statistic. Of more, it is the mean of
    that for each class against the rest, over the classes that occur as a label. It is undefined
    where fewer than two do. A score that is not a number is below all others.

    References:
        Hanley & McNeil 1982, The meaning and use of the area under a receiver operating
        characteristic (ROC) curve, Radiology 143. Fawcett 2006, An introduction to ROC analysis,
        Pattern Recognition Letters 27, 8 (one against the rest).
    """
    areas = []
    for others, own in ranks:
        below = np.cumsum(others) - others / 2
        if own.any() and others.any():
            areas.append(float(own @ below / (own.sum() * others.sum())))
    return float(np.mean(areas)) if areas else None


def pr_auc(ranks: Sequence[np.ndarray], exact: bool) -> list[float | None]:
    """Return the area under the precision-recall curve of each class, in [0, 1].

    As a step function, which is the average precision: the mean, over the class's events, of the
    share of its events among all whose score is as high at least. By chance it is the share of the
    class, so that of a rare one it tells more than the area under the ROC curve. None where a
    class does not occur, or no other. Unless scores are `exact`, those of one step are taken as
    evenly mixed, not as equal.

    References:
        Davis & Goadrich 2006, The relationship between precision-recall and ROC curves, ICML
        (what lies between two points of the curve). Saito & Rehmsmeier 2015, The precision-recall
        plot is more informative than the ROC plot when evaluating binary classifiers on
        imbalanced datasets, PLOS ONE 10.
    """
    if len(ranks) == 1:  # of class 1; the scores of class 0 run the other way
        ranks = [ranks[0][::-1, ::-1], ranks[0]]
    areas: list[float | None] = []
    for each in ranks:
        others, own = each[:, ::-1]
        others, own = others[own + others > 0], own[own + others > 0]
        if not (own.any() and others.any()):
            areas.append(None)
            continue
        events, higher, hits = own + others, np.cumsum(own + others), np.cumsum(own)
        precision = hits / higher
        if not exact:
            share, before = own / events, higher - events
            grown = np.log(higher / np.maximum(before, 1e-300)) / events
            missing = np.where(before > 0, hits - own - before * share, 0.0)
            precision = share + np.where(before > 0, missing * grown, 0.0)
        areas.append(float(own @ precision / own.sum()))
    return areas


def together(areas: Sequence[float | None]) -> float | None:
    """Return the area of class 1 of two, or the mean over the classes that have one."""
    if len(areas) == 2:
        return areas[1]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None
