"""What becomes of events that are published."""

from __future__ import annotations

from dataclasses import dataclass

NAMED_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a publish stands; `seconds` since its first event."""

    sent: int
    acknowledged: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of the events that were taken: sent == acknowledged + failed, always.

    `first_errors` names the first ten failed events, each with the reason.
    """

    sent: int
    acknowledged: int
    failed: int
    seconds: float
    first_errors: tuple[str, ...]

    def beside(self, other: Delivery) -> Delivery:
        """Return what became of both."""
        errors = (*self.first_errors, *other.first_errors)[:NAMED_ERRORS]
        counts = (self.sent + other.sent, self.acknowledged + other.acknowledged)
        seconds = max(self.seconds, other.seconds)
        return Delivery(*counts, self.failed + other.failed, seconds, errors)
