"""Checkpoints beside the loop: copied on the device at once, written by a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import NamedTuple

from headrace.stream.errors import HeadraceError
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry, Saved
from headrace.stream.ledger.manifest import fitting, manifest_at
from headrace.stream.ledger.position import Position
from headrace.stream.task import Task
from headrace.stream.training.snapshot import Snapshot, digest

EVERY_S = 10.0
EVERY_EVENTS = 100_000
EVERY_CPU_S = 2.0  # of work; learning it again takes about half of that
WRITING_SHARE = 0.1  # of the time that may go into writing large states


class Staged(NamedTuple):
    """Hold a state until its record is certain."""

    seq: int
    snapshot: Snapshot
    position: Position


class Checkpointer:
    """Say when a checkpoint is due, take it, and write it once its record is certain.

    It is due when what came since would take a second to learn again, and after EVERY_S if
    anything came at all. A checkpoint that cannot be written (a full disk) is no reason to stop:
    it is reported, its age grows, and the next one is tried.

    Args:
        task: whose state it is.
        topics: ids of its topics by name.
        kept: where the newest checkpoint stands; None without one.
        on_trouble: called with a line for a person, from the writing thread.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        task: Task,
        topics: dict[str, str],
        kept: Position | None,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._checkpoints, self._topics = checkpoints, topics
        self._task = fingerprint.of_task(task)
        self._settings = fitting(fingerprint.written(task))
        self._on_trouble = on_trouble
        self._last_s, self._last_cpu_s = time.monotonic(), time.process_time()
        self._kept = kept.copy() if kept else Position()
        self._staged: Staged | None = None
        self._writer: Thread | None = None
        self._writing_s = 0.0  # what the last one took
        self._saved: Saved | None = None
        self._written_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """Return the age of the newest checkpoint; None before the first."""
        return None if self._written_s is None else time.monotonic() - self._written_s

    @property
    def busy(self) -> bool:
        """Return whether one is being taken or written."""
        return self._staged is not None or (self._writer is not None and self._writer.is_alive())

    def is_due(self, position: Position) -> bool:
        """Return whether it is time, now that the learner stands there."""
        if self.busy or not self.is_stale(position):
            return False
        waited_s = time.monotonic() - self._last_s
        if waited_s >= EVERY_S:
            return True
        if waited_s * WRITING_SHARE < self._writing_s:
            return False
        taken = _total(position) - _total(self._kept)
        return taken >= EVERY_EVENTS or time.process_time() - self._last_cpu_s >= EVERY_CPU_S

    def is_stale(self, position: Position) -> bool:
        """Return whether anything was taken since the last checkpoint; refused events count."""
        return (position.offsets, position.labels) != (self._kept.offsets, self._kept.labels)

    def stage(self, seq: int, snapshot: Snapshot, position: Position) -> None:
        """Keep the state after record `seq` until that record is certain."""
        self._kept = position.copy()
        self._staged = Staged(seq, snapshot, self._kept)
        self._last_s, self._last_cpu_s = time.monotonic(), time.process_time()

    def on_confirmed(self, entry: Entry) -> None:
        """Begin to write what waits for this record."""
        if self._staged and entry.record.seq == self._staged.seq:
            args = (entry, self._staged.snapshot, self._staged.position)
            # A daemon: an end that is in a hurry does not wait for it.
            self._writer = Thread(target=self._write, args=args, daemon=True)
            self._staged = None
            self._writer.start()

    def finish(self, timeout_s: float | None = None) -> None:
        """Wait for the writer, so long at most."""
        if self._writer:
            self._writer.join(timeout_s)

    def pop_saved(self) -> Saved | None:
        """Return, once, what was written: the ledger is to know."""
        saved, self._saved = self._saved, None
        return saved

    def _write(self, entry: Entry, snapshot: Snapshot, position: Position) -> None:
        record, began_s = entry.record, time.monotonic()
        try:
            tensors = snapshot.tensors()
            state = digest(tensors)
            self._checkpoints.save(
                manifest_at(
                    record,
                    entry.offset,
                    position,
                    task=self._task,
                    state=state,
                    learned=snapshot.learned,
                    topics=self._topics,
                    settings=self._settings,
                ),
                tensors,
            )
        except (OSError, HeadraceError) as error:
            self._on_trouble(f"the checkpoint of record {record.seq} was not written: {error}")
            return
        finally:
            self._writing_s = time.monotonic() - began_s
        self._saved, self._written_s = Saved(record.seq, state), time.monotonic()


def _total(position: Position) -> int:
    return sum(position.offsets.values()) + sum(position.labels.values())
