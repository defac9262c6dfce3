"""Run history again, in the order that the ledger tells: prove it, stop anywhere, change it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from typing import NamedTuple

from headrace.stream.audit.paced_publisher import PacedPublisher, check_name, make_empty
from headrace.stream.audit.relearning import Relearning
from headrace.stream.audit.replay_range import LedgerPosition, scan
from headrace.stream.audit.replayed import Replayed
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger.manifest import Manifest, start_manifest
from headrace.stream.rows.label_delay import LabelDelay
from headrace.stream.service.run import open_checkpoints
from headrace.stream.task import Task
from headrace.stream.training.snapshot import SavedState

CAPACITY = 4096


def replay(
    task: Task,
    kafka: KafkaConnection,
    *,
    begin: LedgerPosition | None = None,
    until: LedgerPosition | None = None,
    archive: str | None = None,
    start: SavedState | None = None,
    changed: Task | None = None,
    label_delay: LabelDelay | None = None,
    to_topic: str | None = None,
    speed: float | None = None,
    points: int = 0,
    capacity: int = CAPACITY,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replayed:
    """Learn again what the ledger's last run learned, in its order, and prove it record by record.

    Reads alone: it fences and locks nobody, so it runs beside the live learner.

    Args:
        begin: learn from here on, with a fresh model or `start`: nothing can be proven then.
        until: the end: a whole record, or an event within one (that record is not proven then).
        archive: where raw events are read instead of the raw topic.
        start: the saved learner that the run began with.
        changed: learn the same events with this task too, from nothing, and compare.
        label_delay: learn them a second time with labels so much later than their events, whenever
            they came, and compare; all of them are held in memory.
        to_topic: publish predictions here, of `changed` if given; made if it is not there.
        speed: so much faster than event time; None is as fast as it goes.
        points: so many of a curve of the metrics; each costs a wait.
        capacity: most events handled at a time; changes no bit of what comes out.
        on_progress: called with the raw events read, and how many there are at most.

    Raises:
        AuditError: history comes out otherwise, or the ledger is broken; names the record.
        HistoryError: raw events are gone.
        UsageError: a moment is not in the run, or the topic is not one to write to; or the run
            began with a saved learner, and `start` is not that.
        RecoveryError: the task is another than the one that was learned.
    """
    if to_topic:
        check_name(task, to_topic)
    span = scan(task, kafka, begin, until)
    if to_topic:
        make_empty(task, kafka, to_topic)
    publisher = PacedPublisher(kafka, to_topic, speed, stop) if to_topic or speed else None
    with ExitStack() as stack:
        again = Relearning(
            task,
            kafka,
            span,
            archive,
            start,
            capacity,
            stack,
            changed or (task if label_delay else None),
            label_delay,
            publisher,
            points,
        )
        again.run(stop, on_progress)
    return again.replayed()


class Kept(NamedTuple):
    """Hold the manifest of a state that was written, and how it was come by."""

    manifest: Manifest
    replayed: Replayed


def state(
    task: Task,
    kafka: KafkaConnection,
    at: LedgerPosition,
    to: str,
    *,
    archive: str | None = None,
    start: SavedState | None = None,
    key: bytes | None = None,
    capacity: int = CAPACITY,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Kept:
    """Write the state of a past moment as a checkpoint under `to`, proven as `replay` proves it.

    After a whole record it is the checkpoint that the live run would have left there: a learner
    with that state directory goes on from it. Within a record it is filed as a run of its own, so
    that no learner takes it for one of its ledger's.

    Args:
        to: directory or URL; locked meanwhile.
        start: the saved learner that the run began with.
        key: signs the checkpoint.

    Raises:
        AuditError, HistoryError, UsageError, RecoveryError: as `replay`; it cannot be written.
    """
    span = scan(task, kafka, None, at)
    run = span.opening.record.run
    with ExitStack() as stack:
        checkpoints = open_checkpoints(task, to, run, key)
        stack.enter_context(checkpoints.lock())
        again = Relearning(task, kafka, span, archive, start, capacity, stack)
        again.run(lambda: False, on_progress)
        if again.part is not None:
            run = sha256(f"{run} {span.until}".encode()).hexdigest()[:32]
            checkpoints = open_checkpoints(task, to, run, key)
        replayed = again.replayed()
        if start:
            begun_with = start_manifest(
                task, run, span.begins, start.digest, start.learned, start.code
            )
            checkpoints.save_start(begun_with, start.tensors)
        manifest = again.manifest(run, replayed.state)
        checkpoints.save(manifest, again.trainer.snapshot().tensors())
    return Kept(manifest, replayed)
