"""Releases beside the loop: states on `<task>.models`, written by a thread of its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cached_property
from threading import Thread

import msgspec

from headrace.stream.errors import FencedError, HeadraceError, TopicError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.transactions import Transactions
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.ledger import Entry
from headrace.stream.ledger.manifest import manifest_at, seal
from headrace.stream.ledger.position import Position
from headrace.stream.ledger.release import MANIFEST_KEY, chunks_of, released
from headrace.stream.process.failpoint import failpoint
from headrace.stream.service.checkpointer import WRITING_SHARE, Staged
from headrace.stream.storage import tensors as arrays
from headrace.stream.storage.tensors import Shapes
from headrace.stream.task import Task
from headrace.stream.training.snapshot import Snapshot, digest, released_shapes

MISSING_S = 30.0  # from one look for the topic of releases to the next, while there is none


class Releaser:
    """Say when a release is due, and write it once its record is certain.

    It is due `every_s` after the one before, if anything came since; more seldom if writing takes
    more than WRITING_SHARE of the time. One that cannot be written is no reason to stop: it is
    reported, and the next one is tried; MISSING_S later if there is no topic for it.

    Args:
        key: seals the manifests.
        topics: ids of the task's topics by name.
        every_s: seconds; 0 for no releases.
        on_trouble: called with a line for a person, from the writing thread.
    """

    def __init__(
        self,
        task: Task,
        kafka: KafkaConnection,
        key: bytes | None,
        topics: dict[str, str],
        every_s: float,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._kafka, self._key, self._topics = kafka, key, topics
        self._name, self._topic = task.name, task.output("models")
        self._task = task
        self._every_s, self._on_trouble = every_s, on_trouble
        self._last_s, self._writing_s = -float("inf"), 0.0
        self._rest_s = 0.0  # at least, after the last one
        self._kept: Position | None = None  # of the last one that was staged
        self._staged: Staged | None = None
        self._writer: Thread | None = None
        self._transactions: Transactions | None = None
        self._told = ""

    @property
    def busy(self) -> bool:
        """Return whether one is being taken or written."""
        return self._staged is not None or (self._writer is not None and self._writer.is_alive())

    def is_due(self, position: Position) -> bool:
        """Return whether it is time, now that the learner stands there."""
        waited_s = time.monotonic() - self._last_s
        wait_s = max(self._every_s, self._writing_s / WRITING_SHARE, self._rest_s)
        return waited_s >= wait_s and not self.busy and self.is_stale(position)

    def is_stale(self, position: Position) -> bool:
        """Return whether anything was taken since the last release."""
        if not self._every_s:
            return False
        kept = self._kept
        return kept is None or (position.offsets, position.labels) != (kept.offsets, kept.labels)

    def stage(self, seq: int, snapshot: Snapshot, position: Position) -> None:
        """Keep the state after record `seq` until that record is certain."""
        self._kept = position.copy()
        self._staged = Staged(seq, snapshot, self._kept)
        self._last_s = time.monotonic()

    def on_confirmed(self, entry: Entry) -> None:
        """Begin to write what waits for this record."""
        if self._staged and entry.record.seq == self._staged.seq:
            args = (entry, self._staged.snapshot, self._staged.position)
            self._staged = None
            self._writer = Thread(target=self._write, args=args, daemon=True)
            self._writer.start()

    def finish(self, timeout_s: float | None = None) -> None:
        """Wait for the writer, so long at most."""
        if self._writer:
            self._writer.join(timeout_s)

    def close(self) -> None:
        """Let go of the broker."""
        if self._transactions and not self.busy:
            self._transactions.close()

    def _write(self, entry: Entry, snapshot: Snapshot, position: Position) -> None:
        try:
            transactions = self._transactions = self._transactions or self._open()
            began_s = time.monotonic()  # waiting for a producer says nothing of what writing takes
            try:
                self._send(transactions, entry, snapshot, position)
            finally:
                self._writing_s = time.monotonic() - began_s
            self._told, self._rest_s = "", 0.0
        except FencedError:
            self._every_s = 0.0
            self._tell("releases no more states: another learner of this task does")
        except (HeadraceError, OSError) as error:
            self._kept = None  # this one is due again, even if nothing more comes
            broken, self._transactions = self._transactions, None
            if broken:
                broken.close()
            self._rest_s = MISSING_S if isinstance(error, TopicError) else 0.0
            self._tell(f"the state of record {entry.record.seq} was not released: {error}")

    def _send(
        self, transactions: Transactions, entry: Entry, snapshot: Snapshot, position: Position
    ) -> None:
        tensors = released(snapshot.tensors(), self._shapes)
        chunks = [*chunks_of(arrays.pack(tensors))]
        sha256 = hashlib.sha256()
        for _, chunk in chunks:
            sha256.update(chunk)
        manifest = manifest_at(
            entry.record,
            entry.offset,
            position,
            task=fingerprint.of_task(self._task),
            state=digest(tensors),
            learned=snapshot.learned,
            topics=self._topics,
        )
        manifest = msgspec.structs.replace(
            manifest,
            tensors_bytes=sum(len(chunk) for _, chunk in chunks),
            tensors_sha256=sha256.hexdigest(),
            fields={},  # of events, which no answer needs
        )
        transactions.begin()
        keys = [key for key, _ in chunks]
        values = [chunk for _, chunk in chunks]
        transactions.send(self._topic, values, keys=keys, partitions=[0] * len(keys))
        failpoint("release: chunks sent")
        sealed = seal(manifest, self._key)
        transactions.send(self._topic, [sealed], keys=[MANIFEST_KEY], partitions=[0])
        failpoint("release: manifest sent")
        transactions.commit()
        transactions.await_commit()
        failpoint("release: committed")

    @cached_property
    def _shapes(self) -> Shapes:
        return released_shapes(self._task)

    def _open(self) -> Transactions:
        if not self._kafka.describe_existing([self._topic]):
            raise TopicError(
                f"no topic {self._topic}, so `headrace serve` has nothing to answer by: make it "
                "with `headrace topics create`"
            )
        return self._kafka.transactions(f"{self._name}.models", topics=[self._topic])

    def _tell(self, line: str) -> None:
        """Tell a person, but not the same thing again and again."""
        kind = line.partition(":")[2]
        if kind != self._told:
            self._told = kind
            self._on_trouble(line)
