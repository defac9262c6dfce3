"""Audit a service from Kafka alone: is every event accounted for, once, and was it learned so?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from headrace.stream.audit.dead_letters import missing
from headrace.stream.audit.replay_range import earlier_topic
from headrace.stream.errors import AuditError
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, TopicHistory
from headrace.stream.kafka.sink import TRANSACTION_S
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Entry, Record, seal
from headrace.stream.ledger.position import Counts, Position
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.run import begun
from headrace.stream.task import Task
from headrace.stream.training.snapshot import SavedState

READ = 16_384
WAIT_S = 0.5
VISIBLE_S = 5.0  # that a prediction may be seen later than the record that speaks of it
FINDINGS = 20  # reported at most
CAPACITY = 4096

OnProgress = Callable[[str, int, int], None]


@dataclass
class Audit:
    """Report what was checked, and what is wrong."""

    records: int = 0
    runs: int = 0
    epochs: int = 0
    counts: Counts = field(default_factory=Counts)
    absent: int = 0  # raw offsets that held no record when they were taken
    predictions: int = 0  # read and found as the ledger says
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


def verify(
    task: Task,
    kafka: KafkaConnection,
    *,
    deep: bool = False,
    history: History | None = None,
    start: SavedState | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Audit:
    """Audit a running or stopped service.

    The ledger is dense and chained, ranges abut, predictions are as many as it says and the very
    bytes, no prediction and no dead letter is missing, no prediction stands there that it does not
    know, no transaction is left open.

    Args:
        deep: learn the last run again from its beginning, and compare every outcome and state.
        history: the raw events, for `deep`; default: the raw topic.
        start: for `deep`, the saved learner that the last run began with.

    Raises:
        AuditError: the ledger cannot be read as one.
        HistoryError: with `deep`, raw events are gone.
        UsageError: with `deep`, the run began with a saved learner, and `start` is not that.
        BrokerError: no broker, or a topic is missing.
    """
    audit, started_s = Audit(), time.monotonic()
    topic = task.output("ledger")
    with ExitStack() as stack:
        if first := ledger.beginning(kafka, topic):
            audit.found(f"{topic}: records before offset {first:,} were deleted")
        published = _Published(task, kafka)
        stack.callback(published.close)
        entries = []
        walk = _Walk(audit)
        for entry in ledger.read(kafka, topic):
            walk.step(entry)
            published.check(audit, entry.record)
            entries.append(entry)
            if not audit.records % 100:
                on_progress("records", audit.records, 0)
        published.rest(audit)
        letters, counted = task.output("dead-letter"), sum(e.record.dead_letters for e in entries)
        if lost := missing(kafka, letters, counted):
            audit.found(f"{letters}: {lost} of the {counted} dead letters in the ledger are gone")
        _check_topics(audit, task, kafka, walk)
        _dangling(audit, task, kafka)
        if deep and audit.sound and entries:
            raw = history or stack.enter_context(closing(TopicHistory(kafka, task.input.topic)))
            _recompute(audit, task, raw, entries, start, on_progress)
    audit.seconds = round(time.monotonic() - started_s, 3)
    return audit


class _Walk:
    """Follow the ledger, record by record."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._last: Record | None = None
        self._position = Position()
        self.topics: dict[str, str] = {}  # ids by name, as of the last start

    @property
    def partitions(self) -> set[int]:
        """Return the partitions of the raw topic from which something was taken."""
        return {partition for partition, at in self._position.offsets.items() if at}

    def step(self, entry: Entry) -> None:
        record, last, audit = entry.record, self._last, self._audit
        where = f"ledger offset {entry.offset}, record {record.seq}"
        if record.seq != (last.seq + 1 if last else 0):
            audit.found(f"{where}: expected record {last.seq + 1 if last else 0}")
        if seal(record, last.chain if last else "").chain != record.chain:
            audit.found(f"{where}: its chain does not follow from what it says and the one before")
        if last and record.epoch != last.epoch + bool(record.session_start):
            audit.found(f"{where}: epoch {record.epoch} after {last.epoch}: two learners wrote")
        if last is None or record.run != last.run:
            self._begin(record, where)
        for each in record.consumed:
            position = self._position.offsets.get(each.partition, 0)
            if each.start != position or each.stop <= each.start:
                audit.found(
                    f"{where}: takes offsets {each.start} to {each.stop} of partition "
                    f"{each.partition}, where {position} was next"
                )
        self._position.advance(record)
        if record.position not in ("", self._position.digest()):
            audit.found(f"{where}: the learner stood elsewhere than its records lead to")
        span = sum(each.stop - each.start for each in record.consumed)
        answered = record.predicted + record.rejected + record.repeated
        if answered > span or record.predicted != sum(each.predicted for each in record.consumed):
            audit.found(f"{where}: {answered} events answered of {span} offsets taken")
        if record.session_start and record.session_start.topics:
            self.topics = record.session_start.topics
        audit.absent += span - answered
        audit.records += 1
        audit.epochs += record.session_start is not None
        audit.counts.add(record)
        self._last = record

    def _begin(self, record: Record, where: str) -> None:
        self._audit.runs += 1
        self._position, self.topics = Position(), {}
        if record.session_start is None or record.session_start.settings is None:
            self._audit.found(f"{where}: run {record.run[:8]} begins without an opening")


def _check_topics(audit: Audit, task: Task, kafka: KafkaConnection, walk: _Walk) -> None:
    """Compare the topics that are there with those that the ledger speaks of."""
    there = {topic.name: topic for topic in kafka.describe_existing([*walk.topics])}
    for name, identity in walk.topics.items():
        if name not in there:
            audit.found(f"{name}: it was deleted since the last start")
        elif there[name].id != identity:
            audit.found(f"{name}: it was deleted and made again since the last start")
    raw = there.get(task.input.topic)
    if raw and (unknown := walk.partitions - set(range(raw.partitions))):
        audit.found(f"{raw.name}: the ledger takes from partition {min(unknown)}, there is none")


class _Published:
    """Compare the predictions topic with the ledger, forward, each partition on its own."""

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self._topic = task.output("predictions")
        first = kafka.source(self._topic)
        # What is committed now is in the ledger by the time that its end is read.
        self._ends = first.ends()
        first.close()
        self._partitions = {p: _Values(kafka, self._topic, p) for p in first.partitions}

    def check(self, audit: Audit, record: Record) -> None:
        if not record.predicted:
            return
        total, whole = sha256(), True
        for each in record.consumed:
            values = self._partitions.get(each.partition)
            if values is None:
                audit.found(
                    f"record {record.seq}: predicts partition {each.partition}, which "
                    f"{self._topic} has not"
                )
                whole = False
                continue
            if values.expired(each):
                audit.expired += each.predicted
                whole = False
                continue
            found = values.take(each.predicted)
            if len(found) < each.predicted:
                audit.found(
                    f"record {record.seq}: {len(found)} predictions in {self._topic}/"
                    f"{each.partition}, the ledger says {each.predicted}"
                )
                whole = False
            total.update(b"".join(found))
        if not whole:
            return
        audit.predictions += record.predicted
        if total.hexdigest() != record.predictions:
            audit.found(f"record {record.seq}: its predictions are not the bytes that were written")

    def rest(self, audit: Audit) -> None:
        for partition, values in self._partitions.items():
            if extra := values.left_before(self._ends[partition]):
                audit.found(
                    f"{self._topic}/{partition}: {extra} predictions that the ledger does not know"
                )

    def close(self) -> None:
        for values in self._partitions.values():
            values.source.close()


class _Values:
    """Give the values of one partition forward."""

    def __init__(self, kafka: KafkaConnection, topic: str, partition: int) -> None:
        self.source = kafka.source(topic, partitions=[partition])
        self._partition = partition
        self._messages: list[Any] = []
        self._place = 0
        self._missed = False
        self._first: float | None = None  # raw offset of the first prediction that is left
        if self.source.begins[partition]:
            self._first = _offset(self._messages[0]) if self._fetch() else math.inf

    def expired(self, each: ledger.Consumed) -> bool:
        """Return whether retention took predictions of this range: what is left begins later."""
        if self._first is None:
            return False
        if each.start <= self._first < each.stop:
            at = map(_offset, self._messages[: each.predicted])
            left = (n for n, offset in enumerate(at) if offset >= each.stop)
            self._place = next(left, min(each.predicted, len(self._messages)))
            self._first = None
        return True

    def take(self, count: int) -> list[bytes]:
        """Take the next `count` values; fewer at the end."""
        give_up_s = time.monotonic() + (0 if self._missed else VISIBLE_S)
        while len(self._messages) - self._place < count:
            # The end that was seen may be past: what a record speaks of comes with the record.
            if not self._fetch(again=True) and time.monotonic() >= give_up_s:
                self._missed = True
                break
        found = self._messages[self._place : self._place + count]
        self._place += len(found)
        return [message.value() or b"" for message in found]

    def left_before(self, end: int) -> int:
        """Count what was not taken before offset `end`."""
        while self.source.position[self._partition] < end and self._fetch():
            pass
        return sum(message.offset() < end for message in self._messages[self._place :])

    def _fetch(self, *, again: bool = False) -> bool:
        while again or self._partition not in self.source.ended:
            again = False
            if messages := self.source.messages(READ, WAIT_S):
                self._messages = [*self._messages[self._place :], *messages]
                self._place = 0
                return True
        return False


def _offset(message: Any) -> int:
    """Return the raw offset that a prediction is of."""
    try:
        return msgspec.json.decode(message.value() or b"", type=Prediction).offset
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        where = f"{message.topic()}/{message.partition()}/{message.offset()}"
        raise AuditError(f"{where} is no prediction: {error}; somebody else wrote to it") from error


def _dangling(audit: Audit, task: Task, kafka: KafkaConnection) -> None:
    """Wait for transactions that are open now; one that outlives its timeout hangs."""
    stages = ("predictions", "metrics", "drift", "dead-letter", "ledger")
    topics = list(map(task.output, stages))
    written = kafka.ends(topics, committed=False)
    give_up_s = time.monotonic() + TRANSACTION_S + 10
    while late := [
        place for place, end in kafka.ends(topics, committed=True).items() if end < written[place]
    ]:
        if time.monotonic() > give_up_s:
            for topic, partition in late:
                audit.found(f"{topic}/{partition}: a transaction was left open")
            return
        time.sleep(WAIT_S)


def _recompute(
    audit: Audit,
    task: Task,
    history: History,
    entries: list[Entry],
    start: SavedState | None,
    on_progress: OnProgress,
) -> None:
    """Learn the last run again from its beginning."""
    records = [e.record for e in entries if e.record.run == entries[-1].record.run]
    for record in records[1:]:
        if record.session_start and record.session_start.begins is not None:
            raise earlier_topic(record)
    forgotten = [
        r.session_start.recomputed[1] + 1
        for r in records
        if r.session_start and r.session_start.recomputed
    ]
    proven_from = max(forgotten, default=0)
    saved = [record.saved for record in records if record.saved]
    states = {each.seq: each.state for each in saved if each.seq >= proven_from}
    total = sum(record.predicted for record in records)
    trainer = begun(task, records[0], start, CAPACITY)
    replayer = LedgerReplayer(task, trainer, history, proven_from=proven_from)
    try:
        for record in records:
            replayer.add(record)
            if record.seq in states:
                if (state := replayer.state()) != states[record.seq]:
                    audit.found(
                        f"record {record.seq}: the state comes out as {state[:16]}, the ledger "
                        f"announced {states[record.seq][:16]}"
                    )
                audit.checkpoints += 1
            on_progress("events learned again", replayer.counts.events, total)
        audit.state = replayer.state()
        audit.recomputed = replayer.counts.events
    except AuditError as error:
        audit.found(str(error))
