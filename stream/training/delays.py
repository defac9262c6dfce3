"""How long labels took: a histogram of fixed size, exact to a sixteenth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PARTS = 16  # of each power of two, as in HdrHistogram (Tene 2012)
_BUCKETS = 60 * _PARTS


class Delays:
    """Count delays; those below 0 count as 0."""

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(_BUCKETS, np.int64) if counts is None else counts.copy()

    def add(self, delays_ms: Sequence[int]) -> None:
        """Count some delays."""
        if delays_ms:
            buckets = [_bucket(delay) if delay > 0 else 0 for delay in delays_ms]
            self.counts += np.bincount(buckets, minlength=_BUCKETS)

    def quantile(self, share: float) -> int | None:
        """Return the delay in ms that so many are no longer than; None before the first."""
        total = int(self.counts.sum())
        if not total:
            return None
        at = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return _highest(at)

    def report(self) -> dict[str, Any]:
        """Return quantiles in ms."""
        return {f"p{int(100 * share)}_ms": self.quantile(share) for share in (0.5, 0.9, 0.99)}


def _bucket(delay: int) -> int:
    excess = max(delay.bit_length() - 5, 0)
    return min(excess * _PARTS + (delay >> excess), _BUCKETS - 1)


def _highest(bucket: int) -> int:
    """Return the longest delay that a bucket counts."""
    excess = max(bucket // _PARTS - 1, 0)
    return ((bucket - excess * _PARTS + 1) << excess) - 1
