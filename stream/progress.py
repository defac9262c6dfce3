"""How far a learner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Say how far a learner is; counts are of the whole run, restarts included."""

    events: int  # predicted
    rejected: int  # refused by the normaliser
    repeated: int  # refused here: their id came a short while before, or their class finds no room
    duplicates: int  # features that came twice and were dropped
    healed: int  # events whose features never came, normalised by the learner
    lag: int
    events_per_second: float
    record: int  # of the ledger, the last one written
    checkpoint_age_s: float | None
    report: dict[str, Any]
