"""Points in the history of a run, and the part of the ledger that lies between two of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Literal

import numpy as np

from headrace.stream.errors import AuditError, HistoryError, UsageError
from headrace.stream.formats.times import time_ms
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range
from headrace.stream.ledger import fingerprint, ledger
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.service.run import begins_of, other_task, run_opening
from headrace.stream.task import Task


@dataclass(frozen=True)
class LedgerPosition:
    """Name a point of history: a record of the ledger, a raw event, or a time of learning."""

    kind: Literal["record", "event", "time"]
    at: int  # number of the record; raw offset; Unix time in ms
    partition: int = -1  # of an event; -1 = the only one

    def __str__(self) -> str:
        if self.kind == "record":
            return f"record #{self.at}"
        return f"offset {self.partition}:{self.at}" if self.kind == "event" else utc(self.at)


def parse_position(text: str) -> LedgerPosition:
    """Read `#812`, `1234`, `PARTITION:OFFSET` or an RFC 3339 time (UTC unless it says otherwise).

    Raises:
        UsageError: it is none of them.
    """
    if match := re.fullmatch(r"#(\d{1,18})", text, re.ASCII):
        return LedgerPosition("record", int(match[1]))
    if match := re.fullmatch(r"(?:(\d{1,9}):)?(\d{1,18})", text, re.ASCII):
        return LedgerPosition("event", int(match[2]), int(match[1] or -1))
    if isnan(found := time_ms(text)):
        raise UsageError(
            f"{text!r}: expected a time such as 2026-01-31T12:00:00Z, a record such as #812, or "
            "an offset such as 1234 or PARTITION:OFFSET"
        )
    return LedgerPosition("time", int(found))


def utc(unix_ms: int) -> str:
    """Write a time, to the millisecond."""
    return f"{np.datetime64(unix_ms, 'ms')}Z"


class ReplayRange:
    """Hold what the ledger says about its last run, from one moment of it to another.

    Attributes:
        opening: the record that began the run.
        proven_from: records before this one cannot be compared with the ledger.
        saved: digests of states by record, as the ledger announces them.
        topics: ids of the task's topics, as of the last start.
        offsets: raw offsets from the first to the last record.
    """

    def __init__(
        self, opening: Entry, begin: LedgerPosition | None, until: LedgerPosition | None
    ) -> None:
        self.opening = opening
        self.begins = begins_of(opening.record)
        self.begin, self.until = self._placed(begin), self._placed(until)
        self.proven_from = self.offsets = 0
        self.saved: dict[int, str] = {}
        self.topics: dict[str, str] = {}
        self._seen = 0
        self._first: Entry | None = None
        self._last: Entry | None = None
        self._tip = opening.record
        self._topic_from: Record | None = None  # that went on with another topic

    def add(self, entry: Entry) -> None:
        """Look at the next record of the run.

        Raises:
            AuditError: it does not follow the one before.
        """
        record = entry.record
        if record.seq != self.opening.record.seq and not ledger.follows(record, self._tip):
            raise AuditError(
                f"record {record.seq} of the ledger is not sealed to the one before it: it was "
                "changed, or one between was removed"
            )
        self._tip = record
        if record.session_start and record.session_start.recomputed:
            self.proven_from = max(self.proven_from, record.session_start.recomputed[1] + 1)
        if record.saved:
            self.saved[record.saved.seq] = record.saved.state
        if record.session_start and record.session_start.topics:
            self.topics = record.session_start.topics
        new_topics = record.session_start.new_topics if record.session_start else []
        if new_topics and record.seq != self.opening.record.seq:
            self._topic_from = record
        span = sum(each.stop - each.start for each in record.consumed)
        if self._first is None and _is_first(record, self.begin):
            self._first = entry
        if self._first is not None:
            self._seen += span
        if _is_last(record, self.until):
            self._last, self.offsets = entry, self._seen

    def ends(self) -> tuple[Entry, Entry]:
        """Return the first and the last record that are learned, in whole or in part.

        Raises:
            UsageError: a moment is not in this run, or nothing lies between the two.
            HistoryError: the raw topic, or that of labels, was another one before.
        """
        start, tip = self.opening.record, self._tip
        for entry, moment in ((self._first, self.begin), (self._last, self.until)):
            beyond = moment and moment.kind == "record" and not start.seq <= moment.at <= tip.seq
            if entry is None or beyond:
                raise UsageError(
                    f"{moment} is not in run {start.run[:8]}, the ledger's last: it has the "
                    f"records #{start.seq} to #{tip.seq}, of {utc(start.time_ms)} to "
                    f"{utc(tip.time_ms)}"
                )
        first, last = self._first, self._last
        assert first and last  # noqa: S101
        if self._topic_from and first.record.seq < self._topic_from.seq:
            raise earlier_topic(self._topic_from)
        same = first.record.seq == last.record.seq
        if last.record.seq < first.record.seq or (
            same and first.record.consumed and not self.ranges(first.record)
        ):
            raise UsageError(f"{self.until} lies before {self.begin}: nothing is between them")
        return first, last

    def ranges(self, record: Record) -> list[Range]:
        """Return what is to be learned of a record, in its order."""
        found = [each.range for each in record.consumed]
        if self.begin and _holds(record, self.begin):
            found = found[_place(found, self.begin) :]
            found[0] = found[0]._replace(start=self.begin.at)
        if self.until and _holds(record, self.until):
            place = _place(found, self.until)
            found = [
                *found[:place],
                *(r._replace(stop=self.until.at + 1) for r in found[place:][:1]),
            ]
        return [each for each in found if each.start < each.stop]

    def _placed(self, moment: LedgerPosition | None) -> LedgerPosition | None:
        if moment is None or moment.kind != "event" or moment.partition >= 0:
            return moment
        begins = self.begins.offsets
        if len(begins) > 1:
            raise UsageError(
                f"offset {moment.at}: the topic has {len(begins)} partitions: expected "
                f"PARTITION:OFFSET, such as 0:{moment.at}"
            )
        return replace(moment, partition=next(iter(begins), 0))


def earlier_topic(record: Record) -> HistoryError:
    """Say that what was learned before a record stood in a topic that is gone."""
    what = record.session_start.new_topics[0] if record.session_start else "raw"
    return HistoryError(
        f"record #{record.seq} went on with a {what} topic that was made again: what was learned "
        f"before it is gone, and cannot be learned again (but replay --from '#{record.seq}' can)"
    )


def _is_first(record: Record, moment: LedgerPosition | None) -> bool:
    """Return whether what begins at a moment has begun with this record."""
    if moment is None or moment.kind == "event":
        return moment is None or _holds(record, moment)
    return (record.seq if moment.kind == "record" else record.time_ms) >= moment.at


def _is_last(record: Record, moment: LedgerPosition | None) -> bool:
    """Return whether what ends at a moment may end with this record: the last such one it is."""
    if moment is None or moment.kind == "event":
        return moment is None or _holds(record, moment)
    return (record.seq if moment.kind == "record" else record.time_ms) <= moment.at


def _holds(record: Record, moment: LedgerPosition) -> bool:
    return moment.kind == "event" and any(
        each.partition == moment.partition and each.start <= moment.at < each.stop
        for each in record.consumed
    )


def _place(ranges: Sequence[Range], moment: LedgerPosition) -> int:
    """Return the place of a moment's partition among ranges; their count if it is not there."""
    places = (n for n, each in enumerate(ranges) if each.partition == moment.partition)
    return next(places, len(ranges))


def scan(
    task: Task, kafka: KafkaConnection, begin: LedgerPosition | None, until: LedgerPosition | None
) -> ReplayRange:
    """Read the ledger's last run, and check that it is sealed and of this task.

    Raises:
        UsageError: there is no run, or a moment is not in it.
        RecoveryError: the task is another than the ledger's; names what differs.
        AuditError: the ledger is broken.
    """
    topic = task.output("ledger")
    tip = ledger.tip(kafka, topic)
    if tip is None:
        raise UsageError(f"{topic} is empty: {task.name} has learned nothing yet")
    opening = run_opening(kafka, topic, tip.record.run)
    said = opening.record.session_start
    if said and said.task != fingerprint.of_task(task):
        raise other_task(task, opening.record)
    span = ReplayRange(opening, begin, until)
    for entry in ledger.read(kafka, topic, opening.offset, tip.offset + 1):
        span.add(entry)
    span.ends()
    return span
