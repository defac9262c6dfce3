"""The rows of one micro-batch as the core takes them, and what it gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from headrace.model import aggregates, waiting
from headrace.model.spec import Spec

EVIDENCE = ("fired", "before", "after", "statistic", "threshold", "window")


class Batch(NamedTuple):
    """Hold rows of fixed capacity B; only the first `count` are read.

    The arrays are numpy on the way in and traced inside the loop. Ids and entity hashes are
    unsigned 32-bit; id 0 means absent.
    """

    numeric: Any  # f32[B, N]  NaN = missing
    ids: Any  # u32[B, S]  hashed categories, crosses, lists, tokens, words in order
    entity: Any  # u32[B, 2]  keyed hash of the entity
    label: Any  # f32[B]  class index or value, NaN = unknown
    image: Any  # u8[B, H, W, C]
    weight: Any  # f32[B, W]  how much the row teaches; W is 1 if rows say so, else 0
    time: Any  # i32[B, T]  see `aggregates.clock`
    line: Any  # i32[B, 2]  what it is (see `late_scores`), and the slot of its row; -1: `loaded`
    loaded: Any  # u32[B, W]  rows of labels that bring them; W is 0 if none does
    unloaded: Any  # i32[B, 1]  slots whose rows are wanted as they are in the end; [B, 0] if W is 0


class Outcome(NamedTuple):
    """Hold what came out, one line for each row."""

    published: Any  # f32[B, P]  class probabilities (see `Spec.published`), or value, low, high
    step: Any  # u32[B, 2]  optimizer steps behind the prediction: counters
    alarms: Any  # f32[B, D, 6]  EVIDENCE by the spec's detectors
    rungs: Any  # f32[B, 10]  what the ladder did: `ladder.AT_ONCE`, then `ladder.LATER`
    lost: Any  # f32[B]  which of `pool.resettable` began anew: a sum of 2^place
    moved: Any  # f32[B, 3, 3]  columns that moved, see `scoring.most_moved`
    unloaded: Any  # u32[B, W]  the rows in the batch's slots of this name, not line by line


def empty_batch(spec: Spec, capacity: int) -> Batch:
    """Make a batch of `capacity` rows that holds nothing yet."""
    return Batch(
        numeric=np.full((capacity, spec.numeric), np.nan, np.float32),
        ids=np.zeros((capacity, spec.ids), np.uint32),
        entity=np.zeros((capacity, 2), np.uint32),
        label=np.full(capacity, np.nan, np.float32),
        image=np.zeros((capacity, *spec.image), np.uint8),
        weight=np.ones((capacity, int(spec.weighted)), np.float32),
        time=np.zeros((capacity, aggregates.clock(spec, np.zeros(0, np.int64)).shape[1]), np.int32),
        line=np.zeros((capacity, 2 if spec.waiting else 0), np.int32),
        loaded=np.zeros((capacity, waiting.words(spec)), np.uint32),
        unloaded=np.zeros((capacity, int(spec.loads)), np.int32),
    )
