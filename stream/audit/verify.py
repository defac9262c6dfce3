"""Audit a service from Kafka alone: is every event accounted for, once, and was it learned so?"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from operator import itemgetter

from headrace.stream.audit.alarms import Alarms
from headrace.stream.audit.dead_letters import missing
from headrace.stream.audit.metrics import Metrics
from headrace.stream.audit.published import Published, digest_of
from headrace.stream.audit.replay_range import earlier_topic
from headrace.stream.audit.report import Audit
from headrace.stream.errors import AuditError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, Range, TopicHistory
from headrace.stream.kafka.sink import TRANSACTION_S
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Entry, Record, seal
from headrace.stream.ledger.position import Offsets, Position
from headrace.stream.rows.late import Truth
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.run import begun
from headrace.stream.task import Task
from headrace.stream.training.learned import Learned
from headrace.stream.training.snapshot import SavedState

WAIT_S = 0.5
CAPACITY = 4096

OnProgress = Callable[[str, int, int], None]


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
    bytes, no prediction, alarm or dead letter is missing, no prediction or alarm stands there that
    it does not know, what metrics count is what it says, no transaction is left open.

    Args:
        deep: learn the last run again from its beginning, and compare every outcome and state, and
            the keys of predictions with those of their events.
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
        published = Published(task, kafka)
        stack.callback(published.close)
        alarms, metrics, entries = Alarms(task, kafka), Metrics(task, kafka), list[Entry]()
        walk = _Walk(audit)
        for entry in ledger.read(kafka, topic):
            walk.step(entry)
            published.check(audit, entry.record)
            entries.append(entry)
            if not audit.records % 100:
                on_progress("records", audit.records, 0)
        published.rest(audit)
        _dangling(audit, task, kafka)  # what the ledger speaks of can be read then
        letters, counted = task.output("dead-letter"), sum(e.record.dead_letters for e in entries)
        if lost := missing(kafka, letters, counted):
            audit.found(f"{letters}: {lost} of the {counted} dead letters in the ledger are gone")
        records = [entry.record for entry in entries]
        if audit.truth:
            left, told = task.output("expired"), audit.truth.expired + audit.truth.implied
            if lost := missing(kafka, left, told):
                audit.found(f"{left}: {lost} of the {told} events that expired are gone")
        if not first:
            alarms.check(audit, records)
            metrics.check(audit, records)
        _check_topics(audit, task, kafka, walk)
        if deep and audit.sound and entries:
            raw = history or stack.enter_context(closing(TopicHistory(kafka, task.input.topic)))
            late = None
            if task.labels:
                late = stack.enter_context(closing(TopicHistory(kafka, task.labels.topic)))
            _recompute(audit, task, raw, late, entries, published.keys, start, on_progress)
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
            self._check_range(each.range, self._position.offsets, "partition", where)
        for label in record.labels:
            self._check_range(label, self._position.labels, "labels partition", where)
        self._position.advance(record)
        if record.position not in ("", self._position.digest()):
            audit.found(f"{where}: the learner stood elsewhere than its records lead to")
        span = sum(each.stop - each.start for each in record.consumed)
        answered = record.predicted + record.rejected + record.repeated
        if answered > span or record.predicted != sum(each.predicted for each in record.consumed):
            audit.found(f"{where}: {answered} events answered of {span} offsets taken")
        if record.session_start and record.session_start.topics:
            self.topics = record.session_start.topics
        if record.truth:
            self._account(record.truth, where)
        audit.absent += span - answered
        audit.records += 1
        audit.epochs += record.session_start is not None
        audit.counts.add(record)
        self._last = record

    def _check_range(self, each: Range, positions: Offsets, what: str, where: str) -> None:
        position = positions.get(each.partition, 0)
        if each.start != position or each.stop <= each.start:
            self._audit.found(
                f"{where}: takes offsets {each.start} to {each.stop} of {what} "
                f"{each.partition}, where {position} was next"
            )

    def _account(self, truth: Truth, where: str) -> None:
        """Make sure that labels, and events that wait for one, are accounted for."""
        audit, total = self._audit, self._position.truth
        if not truth.balanced:
            audit.found(f"{where}: {truth.labels} labels, and the account is of others: {truth}")
        audit.pending = self._position.counts.events - total.scored - total.expired
        if audit.pending < 0 or total.held < 0:
            audit.found(f"{where}: more events were scored, or expired, than were predicted")
        audit.truth = audit.truth or Truth()
        audit.truth.add(truth)

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


def _dangling(audit: Audit, task: Task, kafka: KafkaConnection) -> None:
    """Wait for transactions that are open now; one that outlives its timeout hangs."""
    stages = ["predictions", "metrics", "drift", "dead-letter", "ledger"]
    if task.labels:
        stages.append("expired")
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
    labels: History | None,
    entries: list[Entry],
    published: Mapping[int, str],
    start: SavedState | None,
    on_progress: OnProgress,
) -> None:
    """Learn the last run again from its beginning."""
    records = [e.record for e in entries if e.record.run == entries[-1].record.run]
    for record in records[1:]:
        if record.session_start and record.session_start.new_topics:
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
    proven = [record for record in records if record.seq >= proven_from]
    keys = _Keys(audit, proven, published)
    trainer = begun(task, records[0], start, CAPACITY)
    replayer = LedgerReplayer(
        task, trainer, history, labels, proven_from=proven_from, on_learned=keys.compare
    )
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
        if trainer.join and trainer.join.pending != audit.pending:
            audit.found(
                f"{trainer.join.pending} events wait for their label, {audit.pending} by the ledger"
            )
        audit.recomputed = replayer.counts.events
    except AuditError as error:
        audit.found(str(error))


class _Keys:
    """Compare the keys of predictions with those of the events, as these are learned again."""

    def __init__(self, audit: Audit, records: list[Record], published: Mapping[int, str]) -> None:
        self._audit, self._published = audit, published
        self._waiting = deque(record for record in records if record.predicted)
        self._first: dict[int, int] = {}  # offset by partition
        for each in (each for record in records for each in record.consumed):
            self._first.setdefault(each.partition, each.start)
        self._keys: list[tuple[int, bytes | None]] = []  # with their partitions

    def compare(self, learned: Learned) -> None:
        rows, never = learned.rows, 1 << 63
        self._keys += [
            (partition, key)
            for key, partition, offset in zip(rows.key, rows.partition, rows.offset, strict=True)
            if offset >= self._first.get(partition, never)
        ]
        while self._waiting and len(self._keys) >= (count := self._waiting[0].predicted):
            seq = self._waiting.popleft().seq
            keys = [key for _, key in sorted(self._keys[:count], key=itemgetter(0))]
            del self._keys[:count]
            if self._published.get(seq, digest_of(keys)) != digest_of(keys):
                self._audit.found(f"record {seq}: the keys of its predictions are not its events'")
