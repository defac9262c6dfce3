"""What leaves a learner: outputs and their record, together, and certain before they count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple, Unpack

import msgspec

from headrace.stream.events import Expired
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import Topic
from headrace.stream.kafka.transactions import Transactions
from headrace.stream.kafka.watch import TopicWatch
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Entry, Fields, Ledger, Record
from headrace.stream.process.failpoint import failpoint
from headrace.stream.task import Task
from headrace.stream.training.learned import Pending
from headrace.stream.training.trainer import Trainer


class Output(NamedTuple):
    """Hold records for one of the task's topics."""

    stage: str
    values: list[bytes]
    keys: list[bytes | None] | None = None
    partitions: list[int] | None = None


class Publisher:
    """Write micro-batches into transactions: one each, or several while a backlog waits.

    Args:
        watches: of the topics that are read. Nothing is committed before they were asked, after it
            was read, whether these topics are still those that the ledger speaks of.
        on_certain: called with each record that was committed and read back, in order.
    """

    last: Entry  # the last record that is certain

    def __init__(
        self,
        task: Task,
        transactions: Transactions,
        book: Ledger,
        watches: Sequence[TopicWatch],
        on_certain: Callable[[Entry], None],
    ) -> None:
        self._task, self._transactions, self._book = task, transactions, book
        self._watches = watches
        self._on_certain = on_certain
        self._records: list[Record] = []  # in the transaction that is open
        self._begun_s: float | None = None

    @property
    def settled(self) -> bool:
        """Return whether no commit is under way."""
        return self._transactions.settled

    @property
    def age_s(self) -> float:
        """Return how long the transaction has been open; 0 without one."""
        return 0.0 if self._begun_s is None else time.monotonic() - self._begun_s

    def write(self, outputs: Sequence[Output] = (), **fields: Unpack[Fields]) -> None:
        """Write a record of these fields, and its outputs.

        The record goes first: so Kafka is told of all partitions in one request.
        """
        self._begin()
        record = self._book.add(**fields)
        self._records.append(record)
        self._transactions.send(self._book.topic, [ledger.encode(record)], partitions=[0])
        failpoint("record sent")
        self.send(outputs)

    def send(self, outputs: Sequence[Output]) -> None:
        """Write outputs without a record."""
        self._begin()
        for stage, values, keys, partitions in outputs:
            topic = self._task.output(stage)
            self._transactions.send(topic, values, keys=keys, partitions=partitions)
            failpoint(f"{stage} sent")

    def commit(self) -> None:
        """Begin to end the transaction that is open, if one is."""
        if self._begun_s is not None:
            records, self._records, self._begun_s = self._records, [], None
            took = any(record.consumed or record.labels for record in records)
            asked = [(watch, watch.ask()) for watch in self._watches if took]
            self._transactions.commit(
                check=lambda: [watch.confirm(answer) for watch, answer in asked],
                confirm=lambda: list(map(self._book.confirm, records)),
            )

    def await_commit(self) -> None:
        """Wait until what was committed is certain.

        Raises:
            InDoubtError: it is not.
            FencedError: another learner took over.
            RecoveryError, TopicError: the raw topic was deleted, and perhaps made again.
        """
        for entry in self._transactions.await_commit() or ():
            failpoint("confirmed")
            self.last = entry
            self._on_certain(entry)

    def refresh(self, topics: Iterable[str]) -> None:
        """Take note of partitions that were added."""
        for topic in topics:
            self._transactions.refresh(topic)

    def _begin(self) -> None:
        if self._begun_s is None:
            self.await_commit()
            self._transactions.begin()
            self._begun_s = time.monotonic()


def digest_of(predictions: Sequence[bytes], partitions: Sequence[int]) -> str:
    """Digest predictions by partition, as whoever reads them finds them."""
    order = sorted(range(len(partitions)), key=partitions.__getitem__)
    return sha256(b"".join([predictions[at] for at in order])).hexdigest()


def partitions_beside(specs: Sequence[TopicSpec], topics: Sequence[Topic]) -> int:
    """Return how many partitions there are of outputs whose records go beside their event."""
    beside = {spec.name for spec in specs if spec.beside}
    return min(topic.partitions for topic in topics if topic.name in beside)


def expired(pending: Pending | None, trainer: Trainer) -> list[Output]:
    """Return what tells of the events that no label came for."""
    left = pending.joined.expired if pending and pending.joined else []
    if not left:
        return []
    encode = msgspec.json.Encoder().encode
    values = [
        Expired(
            each.id,
            each.time_ms,
            each.partition,
            each.offset,
            None if each.label is None else trainer.in_words(each.label),
        )
        for each in left
    ]
    places = [each.partition for each in left]
    return [Output("expired", list(map(encode, values)), None, places)]
