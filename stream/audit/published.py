"""Whether the predictions that are there are those of which the ledger speaks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from headrace.stream.audit.report import Audit, place_of
from headrace.stream.errors import AuditError
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Record
from headrace.stream.task import Task

READ = 16_384
WAIT_S = 0.5
VISIBLE_S = 5.0  # that a prediction may be seen later than the record that speaks of it


def digest_of(keys: Iterable[bytes | None]) -> str:
    """Digest keys in their order; none is as good as an empty one."""
    return sha256(msgspec.msgpack.encode([key or b"" for key in keys])).hexdigest()


class Published:
    """Compare the predictions topic with the ledger, forward, each partition on its own."""

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self.keys: dict[int, str] = {}  # a digest, by record
        self._topic = task.output("predictions")
        first = kafka.source(self._topic)
        # What is committed now is in the ledger by the time that its end is read.
        self._ends = first.ends()
        first.close()
        self._partitions = {p: _Records(kafka, self._topic, p) for p in first.partitions}

    def check(self, audit: Audit, record: Record) -> None:
        if not record.predicted:
            return
        total, keys, whole = sha256(), list[bytes | None](), True
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
            total.update(b"".join(message.value() or b"" for message in found))
            keys += [message.key() for message in found]
        if not whole:
            return
        self.keys[record.seq] = digest_of(keys)
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


class _Records:
    """Give the records of one partition forward."""

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

    def take(self, count: int) -> list[Any]:
        """Take the next `count` records; fewer at the end."""
        give_up_s = time.monotonic() + (0 if self._missed else VISIBLE_S)
        while len(self._messages) - self._place < count:
            # The end that was seen may be past: what a record speaks of comes with the record.
            if not self._fetch(again=True) and time.monotonic() >= give_up_s:
                self._missed = True
                break
        found = self._messages[self._place : self._place + count]
        self._place += len(found)
        return found

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
        raise AuditError(
            f"{place_of(message)} is no prediction: {error}; somebody else wrote to it"
        ) from error
