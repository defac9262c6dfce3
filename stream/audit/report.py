"""What an audit checked, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.stream.ledger.position import Counts

FINDINGS = 20  # reported at most


@dataclass
class Audit:
    """Report what was checked, and what is wrong."""

    records: int = 0
    runs: int = 0
    epochs: int = 0
    counts: Counts = field(default_factory=Counts)
    absent: int = 0  # raw offsets that held no record when they were taken
    predictions: int = 0  # read and found as the ledger says
    metrics: int = 0  # read, and their counts found in the ledger
    expired: int = 0  # predicted, and gone by retention
    checkpoints: int = 0  # announced states, recomputed and equal (deep)
    recomputed: int = 0  # events learned again and equal (deep)
    state: str | None = None  # digest of the state at the tip (deep)
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"sound": self.sound, **msgspec.to_builtins(self)}

    def found(self, what: str) -> None:
        """Note something that is wrong."""
        if len(self.findings) < FINDINGS:
            self.findings.append(what)
