"""How far a learner is, and whether it stands still though there is work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STALLED_S = 30.0


@dataclass(frozen=True)
class Progress:
    """Say how far a learner is; counts are of the whole run, restarts included."""

    events: int  # predicted
    rejected: int  # refused by the normaliser
    repeated: int  # refused here: their id came a short while before, or their class finds no room
    duplicates: int  # features that came twice and were dropped
    healed: int  # events whose features never came, normalised by the learner
    learned: int  # events with a label
    lag: int
    events_per_second: float
    record: int  # of the ledger, the last one written
    checkpoint_age_s: float | None
    new_fields: dict[str, int]  # events by field that is new in mid-stream, and not of the task
    labels: dict[str, Any] | None  # what became of late ones, and how many events wait for one
    report: dict[str, Any]


class Stall:
    """Notice that records wait and none can be read: those of a transaction that is still open."""

    def __init__(self) -> None:
        self._taken, self._since_s = -1, 0.0
        self._told = False

    def look(self, progress: Progress, now_s: float) -> str | None:
        """Return a line for a person, once each time that it stands still for STALLED_S.

        Args:
            now_s: of the monotonic clock.
        """
        taken = progress.events + progress.rejected + progress.repeated + progress.duplicates
        taken += progress.labels["labels"] if progress.labels else 0
        if taken != self._taken or not progress.lag:
            self._taken, self._since_s, self._told = taken, now_s, False
        elif now_s - self._since_s >= STALLED_S and not self._told:
            self._told = True
            return waits(progress.lag)
        return None


def waits(records: int) -> str:
    """Say that records wait behind a transaction."""
    return (
        f"{records:,} records wait and cannot be read: a producer's transaction is still open "
        "there (kafka-transactions.sh find-hanging names it)"
    )
