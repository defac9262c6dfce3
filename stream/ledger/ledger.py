"""The ledger: what was learned from which offsets, record by record, each sealed into the next.

`<task>.ledger` has one partition and is kept for ever. A record stands there for each micro-batch,
in the same transaction as the outputs of that batch, and one for each start of a learner. What it
says is believed only after it was read back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any, NamedTuple, TypedDict, Unpack

import msgspec

from headrace.stream.errors import AuditError, FencedError, InDoubtError, RecoveryError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range
from headrace.stream.kafka.sink import TRANSACTION_S
from headrace.stream.kafka.source import Source
from headrace.stream.rows.late import Truth

READ = 5_000
WAIT_S = 1.0
BACK_S = 20.0
UNDECIDED_S = TRANSACTION_S + 10
LATEST = 32  # offsets looked at first to find the last record


class Consumed(NamedTuple):
    """Say that offsets `start` to `stop` of a raw partition were taken; how many were predicted."""

    partition: int
    start: int
    stop: int
    predicted: int

    @property
    def range(self) -> Range:
        """Return the offsets alone."""
        return Range(self.partition, self.start, self.stop)


class SessionStart(msgspec.Struct, frozen=True, omit_defaults=True):
    """Say which code learns which task from here on; the first of a run holds the whole task."""

    task: str  # fingerprints
    code: str
    version: str
    settings: dict[str, Any] | None = None
    begins: dict[int, int] | None = None  # a new run, or topic: the first offset by partition
    label_begins: dict[int, int] | None = None  # the same of the labels topic
    start: str | None = None  # a new run: sha256 of the saved state that it begins with
    topics: dict[str, str] | None = None  # ids by name
    recomputed: tuple[int, int] | None = None  # records whose predictions this state forgets

    @property
    def new_topics(self) -> list[str]:
        """Name the topics that are read from their beginning from here on: "raw", "labels"."""
        begins = {"raw": self.begins, "labels": self.label_begins}
        return [what for what, offsets in begins.items() if offsets is not None]


class Saved(msgspec.Struct, frozen=True):
    """Say that a checkpoint was written: the state after record `seq`, by its digest."""

    seq: int
    state: str


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Hold what one transaction did. `chain` seals it, and all before it.

    Some fields have shorter names in the topic, which holds records of earlier versions.
    """

    seq: int
    run: str  # one state and its history; another begins from scratch
    epoch: int  # grows by one at each start of a learner
    time_ms: int  # Unix time
    consumed: tuple[Consumed, ...] = ()  # by partition; each range begins where its last one ended
    predicted: int = msgspec.field(default=0, name="used")  # events
    rejected: int = 0  # events refused by the normaliser
    repeated: int = 0  # events refused by the learner: an id that came before, a class without room
    duplicates: int = 0  # rows of the features topic that came again, and were dropped
    healed: int = 0  # events whose row never came, normalised by the learner
    dead_letters: int = msgspec.field(default=0, name="letters")  # records of <task>.dead-letter
    alarms: int = 0  # of <task>.drift
    # Of what the model said, as numbers: what a replay must give again.
    output_digest: str = msgspec.field(default="", name="outcome")
    predictions: str = ""  # digest of the bytes in <task>.predictions
    labels: tuple[Range, ...] = ()  # offsets of the labels topic; see `rows.late.placed`
    truth: Truth | None = None  # what became of labels, and of events that wait for one
    reading: dict[int, int] = {}  # next offsets of the features topic, where that is read
    session_start: SessionStart | None = msgspec.field(default=None, name="opening")
    saved: Saved | None = None
    position: str = ""  # digest of where the learner stands after it, see `stream.ledger.position`
    chain: str = ""


class Fields(TypedDict, total=False):
    """Name what a record may say beside its place in the ledger; see `Record`."""

    consumed: tuple[Consumed, ...]
    predicted: int
    rejected: int
    repeated: int
    duplicates: int
    healed: int
    dead_letters: int
    alarms: int
    output_digest: str
    predictions: str
    labels: tuple[Range, ...]
    truth: Truth | None
    reading: dict[int, int]
    session_start: SessionStart | None
    saved: Saved | None
    position: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def seal(record: Record, before: str) -> Record:
    """Return the record with its chain: sha256 over the chain before it and all that it says."""
    bare = msgspec.structs.replace(record, chain="")
    return msgspec.structs.replace(
        record, chain=sha256(before.encode() + b"\n" + _encode(bare)).hexdigest()
    )


def follows(record: Record, before: Record) -> bool:
    """Return whether a record is the next one after another, and sealed to it."""
    return record.seq == before.seq + 1 and record.chain == seal(record, before.chain).chain


def encode(record: Record) -> bytes:
    """Return the record as it stands in the topic."""
    return _encode(record)


class Entry(NamedTuple):
    """Hold a record and the offset it stands at."""

    offset: int
    record: Record


def read(
    kafka: KafkaConnection, topic: str, start: int | None = None, stop: int | None = None
) -> Iterator[Entry]:
    """Yield the committed records from an offset, or from the first.

    Args:
        stop: the offset to end before, which is waited for; default: what is now the end.

    Raises:
        AuditError: something stands there that is no record of a ledger.
        RecoveryError: a transaction hides `stop`, and does not end.
        TopicError, BrokerError: no such topic; no broker.
    """
    offsets = None if start is None else {0: start}
    source = kafka.source(topic, offsets=offsets, partitions=[0])
    try:
        yield from entries_of(source, stop)
    finally:
        source.close()


def entries_of(source: Source, stop: int | None = None) -> Iterator[Entry]:
    """Yield entries until `stop`, or else the end, is reached.

    Raises:
        RecoveryError: a transaction before `stop` stays open.
    """
    give_up_s = time.monotonic() + UNDECIDED_S
    while 0 not in source.ended if stop is None else source.position[0] < stop:
        records = source.poll(READ, WAIT_S)
        if records:
            for entry in _entries(records.offsets, records.values):
                if stop is None or entry.offset < stop:
                    yield entry
            give_up_s = time.monotonic() + UNDECIDED_S  # whoever was given them took their time
        elif time.monotonic() > give_up_s:
            raise RecoveryError(
                f"{source.topic}: a transaction at offset {source.position[0]} neither ends nor "
                "times out, and hides all that comes after it; find whose it is, and abort it: "
                "kafka-transactions.sh find-hanging, and abort"
            )


def _entries(offsets: Sequence[int], values: Sequence[bytes | None]) -> list[Entry]:
    try:
        return [Entry(at, _decode(raw or b"")) for at, raw in zip(offsets, values, strict=True)]
    except msgspec.MsgspecError as error:
        raise AuditError(
            f"the ledger holds something that is no record, at or after offset {offsets[0]}: "
            f"{error}; somebody else wrote to it"
        ) from error


def beginning(kafka: KafkaConnection, topic: str) -> int:
    """Return the first offset that is there; above 0, somebody has deleted what the ledger said."""
    with closing(kafka.source(topic, partitions=[0])) as source:
        return source.begins[0]


def tip(kafka: KafkaConnection, topic: str, *, decided: bool = False) -> Entry | None:
    """Find the last committed record, reading the end of the topic alone; None in an empty one.

    Args:
        decided: wait until nothing is open before what is now the end. For those who have fenced
            all writers: what they find then stays the last record. What a reader of committed
            records takes for the end may for a moment lie before records that it has yet to see,
            as after an election (KIP-207), and a record written after those would break the chain.
    """
    stop = kafka.ends([topic], committed=False)[topic, 0] if decided else None
    source = kafka.source(topic, partitions=[0])
    begin, end = source.begins[0], source.ends()[0] if stop is None else stop
    source.close()
    looked = LATEST
    while True:
        start = max(end - looked, begin)
        *_, last = (None, *read(kafka, topic, start, stop))
        if last is not None or start == begin:
            return last
        looked *= 8


class Ledger:
    """Write on: number and seal records, and read each back before it counts.

    Args:
        after: the last record there is; None in an empty ledger.
        run: the run that goes on, or begins.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, after: Entry | None, run: str) -> None:
        self.topic, self.run = topic, run
        self.epoch = after.record.epoch + 1 if after else 0
        self._last = after.record if after else None
        start = {0: after.offset + 1} if after else None
        self._source = kafka.source(topic, offsets=start, partitions=[0], prompt=True)

    @property
    def seq(self) -> int:
        """Return the number of the next record."""
        return self._last.seq + 1 if self._last else 0

    def add(self, **fields: Unpack[Fields]) -> Record:
        """Make the next record; it has to be written in the transaction that is open."""
        now_ms = time.time_ns() // 1_000_000
        record = Record(seq=self.seq, run=self.run, epoch=self.epoch, time_ms=now_ms, **fields)
        self._last = seal(record, self._last.chain if self._last else "")
        return self._last

    def confirm(self, record: Record) -> Entry:
        """Read back the record that was committed; only then is it certain.

        Raises:
            FencedError: another learner's record stands in its place.
            InDoubtError: it does not come, or something else stands there.
        """
        give_up_s = time.monotonic() + BACK_S
        while time.monotonic() < give_up_s:
            records = self._source.poll(1, WAIT_S)
            if records is None:
                continue
            (entry,) = _entries(records.offsets, records.values)
            if entry.record != record:
                what = (
                    f"{self.topic}: at offset {entry.offset} stands record {entry.record.seq} of "
                    f"epoch {entry.record.epoch}, which this learner did not write there"
                )
                if entry.record.epoch > self.epoch:
                    raise FencedError(f"{what}: another one has taken over")
                raise InDoubtError(f"{what}; start again")
            return entry
        raise InDoubtError(
            f"{self.topic}: record {record.seq} was committed and cannot be read back; start again"
        )

    def close(self) -> None:
        """Stop reading."""
        self._source.close()
