"""Whether the counts in the metrics are the ledger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import asdict, replace
from typing import NamedTuple

import msgspec

from headrace.stream.audit.report import Audit, place_of
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger.ledger import Record
from headrace.stream.ledger.position import Counts
from headrace.stream.rows.late import Truth
from headrace.stream.task import Task

AHEAD = 2  # micro-batches that a learner has taken and not yet written a record of, at most


class _Told(msgspec.Struct):
    """Hold what a record of `<task>.metrics` counts; of earlier versions perhaps less."""

    record: int | None = None  # the last one that was written before
    events: int | None = None
    rejected: int | None = None
    repeated: int | None = None
    duplicates: int | None = None
    healed: int | None = None
    labels: Truth | None = None

    def counts(self) -> dict[str, int]:
        told = {name: getattr(self, name) for name in asdict(Counts())} | _of_labels(self.labels)
        return {name: count for name, count in told.items() if count is not None}


class _Stand(NamedTuple):
    """Hold how a learner stands after a record."""

    session: tuple[str, int]  # run and epoch
    counts: Mapping[str, int]


class Metrics:
    """Compare what is in `<task>.metrics` now with the ledger as it is read later.

    A learner that measures has taken up to AHEAD micro-batches of which it writes the records
    next. So what it counts stands after one of these; or, where it ended before, somewhere behind
    the last record that it wrote. What retention took is not missed.
    """

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self._topic, self._kafka = task.output("metrics"), kafka
        self._now = kafka.ends([self._topic], committed=True)

    def check(self, audit: Audit, records: Sequence[Record]) -> None:
        """Compare them with all records of the ledger."""
        stands = _stands(records)
        before: dict[int, _Told] = {}  # by partition
        with closing(self._kafka.source(self._topic, or_later=True)) as source:
            ends = {p: self._now.get((self._topic, p), 0) for p in source.partitions}
            for message, told in audit.decoded(source, ends, _Told, "metrics"):
                last = before.get(message.partition())
                if wrong := _wrong(told, last, stands):
                    audit.found(f"{place_of(message)}: {wrong}")
                else:
                    before[message.partition()] = told
                    audit.metrics += 1


def _stands(records: Sequence[Record]) -> dict[int, _Stand]:
    found: dict[int, _Stand] = {}
    run, counts, truth = "", Counts(), Truth()
    for record in records:
        if record.run != run:
            run, counts, truth = record.run, Counts(), Truth()
        counts, truth = replace(counts), copy(truth)
        counts.add(record)
        truth.add(record.truth or Truth())
        found[record.seq] = _Stand((run, record.epoch), asdict(counts) | _of_labels(truth))
    return found


def _of_labels(truth: Truth | None) -> dict[str, int]:
    """Return the counts of labels that never become less."""
    if truth is None:
        return {}
    counts = msgspec.structs.asdict(truth)
    del counts["held"]
    return {f"labels {name}": count for name, count in counts.items()}


def _wrong(told: _Told, before: _Told | None, stands: Mapping[int, _Stand]) -> str | None:
    """Say what cannot be, if anything."""
    counts, seq = told.counts(), told.record
    if seq is None:
        return None  # an earlier version's
    if seq not in stands:
        return f"it speaks of record {seq}, which the ledger has not"
    session, least = stands[seq]
    if before and before.record is not None:
        if before.record > seq:
            return f"it speaks of record {seq} after {before.record}"
        if stands[before.record].session == session and any(
            count > counts.get(name, count) for name, count in before.counts().items()
        ):
            return f"it counts {_shown(counts)} after {_shown(before.counts())}"
    if any(count < least[name] for name, count in counts.items()):
        return f"it counts {_shown(counts)}, the ledger {_shown(least)} at record {seq}"
    later = [stands.get(at) for at in range(seq, seq + AHEAD + 1)]
    wanted = [each.counts for each in later if each and each.session == session]
    if len(wanted) > AHEAD and not any(counts.items() <= each.items() for each in wanted):
        return f"it counts {_shown(counts)}, which the ledger does at no record from {seq} on"
    return None


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing"
