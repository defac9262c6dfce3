"""Checkpoints beside the loop: copied on the device at once, written by a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from threading import Thread

from stream import fingerprint
from stream.checkpoint import Checkpoints, Manifest
from stream.errors import HeadraceError
from stream.intake import Place
from stream.ledger import Entry, Saved
from stream.rebuild import Counts
from stream.trainer import Snapshot, digest

EVERY_S = 10.0
EVERY_EVENTS = 100_000  # what a recovery learns again within about a second


class Saver:
    """Say when a checkpoint is due, take it, and write it once its record is certain.

    A checkpoint that cannot be written (a full disk) is no reason to stop: it is reported, its age
    grows, and the next one is tried.

    Args:
        task: its fingerprint.
        events: of the run so far.
        on_trouble: called with a line for a person, from the writing thread.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        task: str,
        events: int,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._checkpoints, self._task, self._on_trouble = checkpoints, task, on_trouble
        self._last_s, self._events = time.monotonic(), events
        self._taken: tuple[int, Snapshot, Place, Place, Counts] | None = None
        self._writer: Thread | None = None
        self._saved: Saved | None = None
        self._written_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """Give the age of the newest checkpoint; None before the first."""
        return None if self._written_s is None else time.monotonic() - self._written_s

    def due(self, events: int) -> bool:
        """Say whether it is time, after so many events in all."""
        if self._taken or (self._writer and self._writer.is_alive()):
            return False
        waited_s = time.monotonic() - self._last_s
        return events - self._events >= EVERY_EVENTS or (
            events > self._events and waited_s >= EVERY_S
        )

    def stale(self, events: int) -> bool:
        """Say whether there were events since the last checkpoint was taken."""
        return events > self._events

    def take(
        self, seq: int, snapshot: Snapshot, positions: Place, reading: Place, counts: Counts
    ) -> None:
        """Keep the state after record `seq` until that record is certain."""
        self._taken = (seq, snapshot, dict(positions), dict(reading), counts)
        self._last_s, self._events = time.monotonic(), counts.events

    def confirmed(self, entry: Entry) -> None:
        """Begin to write what waits for this record."""
        if self._taken and entry.record.seq == self._taken[0]:
            self._writer = Thread(target=self._write, args=(entry, *self._taken[1:]))
            self._taken = None
            self._writer.start()

    def finish(self) -> None:
        """Wait for the writer."""
        if self._writer:
            self._writer.join()

    def news(self) -> Saved | None:
        """Give, once, what was written: the ledger is to know."""
        saved, self._saved = self._saved, None
        return saved

    def _write(
        self, entry: Entry, snapshot: Snapshot, positions: Place, reading: Place, counts: Counts
    ) -> None:
        record = entry.record
        try:
            tensors = snapshot.tensors()
            state = digest(tensors)
            self._checkpoints.save(
                Manifest(
                    run=record.run,
                    seq=record.seq,
                    chain=record.chain,
                    ledger_offset=entry.offset,
                    positions=positions,
                    reading=reading,
                    counts=asdict(counts) | {"learned": snapshot.learned},
                    task=self._task,
                    code=fingerprint.of_code(),
                    state=state,
                    time_ms=time.time_ns() // 1_000_000,
                ),
                tensors,
            )
        except (OSError, HeadraceError) as error:
            self._on_trouble(f"the checkpoint of record {record.seq} was not written: {error}")
            return
        self._saved, self._written_s = Saved(record.seq, state), time.monotonic()
