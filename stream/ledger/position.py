"""Where a learner stands in its streams after a record of the ledger, and what it has done."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import msgspec

from headrace.stream.events import Records
from headrace.stream.kafka.history import Range
from headrace.stream.ledger.ledger import Record
from headrace.stream.rows.late import Truth

Offsets = dict[int, int]
"""An offset by partition."""


@dataclass
class Counts:
    """Count what a learner has done with its stream since its run began."""

    events: int = 0  # predicted
    rejected: int = 0
    repeated: int = 0
    duplicates: int = 0
    healed: int = 0

    def add(self, record: Record) -> None:
        """Add what one record of the ledger says."""
        self.events += record.predicted
        self.rejected += record.rejected
        self.repeated += record.repeated
        self.duplicates += record.duplicates
        self.healed += record.healed


@dataclass
class Position:
    """Say where a learner stands: what it reads next, and what it has done so far."""

    offsets: Offsets = field(default_factory=dict)  # of the raw topic
    reading: Offsets = field(default_factory=dict)  # of the features topic
    counts: Counts = field(default_factory=Counts)
    fields: dict[str, Any] = field(default_factory=dict)  # of `formats.new_fields`
    labels: Offsets = field(default_factory=dict)  # of the labels topic
    truth: Truth = field(default_factory=Truth)

    def advance(self, record: Record) -> None:
        """Move on to after a record."""
        if record.session_start and record.session_start.begins is not None:
            self.offsets, self.reading = dict(record.session_start.begins), {}
        if record.session_start and record.session_start.label_begins is not None:
            self.labels = dict(record.session_start.label_begins)
        for each in record.consumed:
            self.offsets[each.partition] = each.stop
        self.reading.update(record.reading)
        self.labels.update({each.partition: each.stop for each in record.labels})
        self.counts.add(record)
        if record.truth:
            self.truth.add(record.truth)

    def digest(self) -> str:
        """Digest offsets and counts, in 16 characters.

        What is read of the features topic is left out: whatever a learner skips there it makes
        itself, and whatever it reads again it drops. So are fields, which decide nothing.
        """
        parts: tuple[Any, ...] = (sorted(self.offsets.items()), self.counts)
        if self.labels:
            parts = (*parts, sorted(self.labels.items()), self.truth)
        return sha256(msgspec.json.encode(parts)).hexdigest()[:16]

    def copy(self) -> Position:
        """Copy it: the original goes on."""
        return Position(
            dict(self.offsets),
            dict(self.reading),
            replace(self.counts),
            self.fields,
            dict(self.labels),
            copy(self.truth),
        )


def advance(positions: Offsets, records: Records) -> list[Range]:
    """Move positions behind the records, and give the ranges that this covers."""
    return move(
        positions, {p: at + 1 for p, at in zip(records.partitions, records.offsets, strict=True)}
    )


def move(positions: Offsets, stops: Offsets) -> list[Range]:
    """Move positions there, and give the ranges that this covers."""
    starts = {p: positions.get(p, 0) for p in stops}
    positions.update(stops)
    return [Range(p, starts[p], stops[p]) for p in sorted(stops) if starts[p] < stops[p]]
