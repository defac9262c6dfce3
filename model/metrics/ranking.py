"""How well scores rank the classes: the newest ones are kept, and ranked when somebody asks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

N_NEWEST = 1000  # scored events that are ranked
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


def roc_auc(newest: np.ndarray) -> float | None:
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
    lines = newest[newest[:, -1] > 0]
    labels, scores = lines[:, -1] - 1, np.nan_to_num(lines[:, :-1], nan=-np.inf)
    present = np.unique(labels).astype(int)
    if len(present) < 2:
        return None
    chosen = (1,) if scores.shape[1] == 2 else present
    return float(np.mean([_mann_whitney(scores[:, c], labels == c) for c in chosen]))


def _mann_whitney(scores: np.ndarray, positive: np.ndarray) -> float:
    _, place, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    n = np.count_nonzero(positive)
    won = ranks[positive].sum() - n * (n + 1) / 2
    return float(won / (n * (len(scores) - n)))
