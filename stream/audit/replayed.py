"""What came of a replay."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headrace.stream.evaluation.compare import Comparison
from headrace.stream.evaluation.plot import Point
from headrace.stream.rows.refusals import Refusal


@dataclass(frozen=True)
class Replayed:
    """Say what was learned again, and how far it is proven to be what was learned then."""

    run: str
    records: tuple[int, int]  # the first and the last record of the ledger
    events: int  # predicted
    refused: int
    batches: int  # records with events that were learned whole
    equal: int  # of them, those whose outcome was compared with the ledger's: it is the same
    checkpoints: int  # states that the ledger announces: the same
    part: int | None  # a record that was learned in part, and is not proven
    stopped: bool  # before the end, as it was told to
    state: str  # digest
    seconds: float
    published: int
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    comparison: Comparison | None
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...]
    non_finite: int  # NaN and Infinity that are no JSON, and were read as missing
    curve: list[Point]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        found = asdict(self)
        del found["curve"]
        pace = (self.events + self.refused) / max(self.seconds, 1e-9)
        return found | {"seconds": round(self.seconds, 3), "events_per_second": round(pace, 1)}
