"""How far a learner is, and whether it stands still though there is work."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from headrace.stream.ledger.position import Position
from headrace.stream.service.checkpointer import Checkpointer
from headrace.stream.service.label_source import LabelSource
from headrace.stream.service.row_source import RowSource
from headrace.stream.training.trainer import Trainer

METRICS_EVERY_S = 1.0
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
    offsets: dict[int, int]  # of the raw topic, to be read next, by partition
    events_per_second: float
    record: int  # of the ledger, the last one written
    checkpoint_age_s: float | None
    new_fields: dict[str, int]  # events by field that is new in mid-stream, and not of the task
    labels: dict[str, Any] | None  # what became of late ones, and how many events wait for one
    report: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return what stands in `<task>.metrics`."""
        found: dict[str, Any] = asdict(self) | {
            "time_ms": time.time_ns() // 1_000_000,
            "events_per_second": round(self.events_per_second, 1),
        }
        if self.labels is None:
            del found["labels"]
        report: dict[str, Any] = found.pop("report")
        return found | report


class Measure:
    """Measure how far a learner is, as often as it is due.

    Args:
        position: where it stands, which moves on.
        labels: where late labels come from; None if they come with their events.
    """

    def __init__(
        self,
        trainer: Trainer,
        position: Position,
        source: RowSource,
        labels: LabelSource | None,
        checkpointer: Checkpointer,
    ) -> None:
        self._trainer, self._position, self._source = trainer, position, source
        self._labels, self._checkpointer = labels, checkpointer
        self._before_s, self._before = time.monotonic(), self._taken()
        self._report: dict[str, Any] = {}
        self._reported: tuple[int, int] | None = None

    @property
    def is_due(self) -> bool:
        """Return whether it is time to measure again."""
        return time.monotonic() - self._before_s >= METRICS_EVERY_S

    def take(self, record: int) -> tuple[Progress, bool]:
        """Measure; return also whether anything is new since the last time.

        Args:
            record: of the ledger, the last one written.
        """
        now_s, taken, counts = time.monotonic(), self._taken(), self._position.counts
        age_s, passed_s = self._checkpointer.age_s, max(now_s - self._before_s, 1e-9)
        found = Progress(
            **asdict(counts),
            learned=self._trainer.learned,
            lag=self._source.lag(),
            offsets=dict(self._position.offsets),
            events_per_second=(taken[0] - self._before[0]) / passed_s,
            record=record,
            checkpoint_age_s=None if age_s is None else round(age_s, 1),
            new_fields={name: new.events for name, new in self._source.fields.found().items()},
            labels=self._truth(),
            report=self._scores(),
        )
        new = taken != self._before
        self._before_s, self._before = now_s, taken
        return found, new

    def _taken(self) -> tuple[int, int]:
        return self._position.counts.events, self._position.truth.labels

    def _truth(self) -> dict[str, Any] | None:
        """Account for labels, and for the events that wait for one."""
        join = self._trainer.join
        if not self._labels or not join:
            return None
        told = msgspec.structs.asdict(self._position.truth) | {"pending": join.pending}
        return told | {"lag": self._labels.lag(), "delay": join.delays.report()}

    def _scores(self) -> dict[str, Any]:
        """Return the metrics; those of before while nothing was learned."""
        learned = (self._position.counts.events, self._trainer.learned)
        if self._reported != learned:
            self._reported, self._report = learned, self._trainer.report()
        return self._report


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
