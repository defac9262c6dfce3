"""What an audit checked, and what it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from headrace.stream.kafka.source import Source
from headrace.stream.ledger.position import Counts
from headrace.stream.rows.late import Truth

FINDINGS = 20  # reported at most
READ = 5_000
WAIT_S = 0.5

T = TypeVar("T")


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
    truth: Truth | None = None  # what became of late labels; None where there are none
    pending: int = 0  # events of the last run that wait for their label
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

    def decoded(
        self, source: Source, ends: Mapping[int, int], form: type[T], what: str
    ) -> Iterator[tuple[Any, T]]:
        """Yield the messages of a topic before `ends`, by partition, and what they hold.

        One that does not hold it is noted, as no record of `what`.
        """
        while any(source.position[p] < end for p, end in ends.items()):
            for message in source.messages(READ, WAIT_S):
                if message.offset() >= ends.get(message.partition(), 0):
                    continue
                try:
                    yield message, msgspec.json.decode(message.value() or b"", type=form)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    self.found(f"{place_of(message)} is no record of {what}: {error}")


def place_of(message: Any) -> str:
    """Return where a message stands: topic, partition and offset."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}"
