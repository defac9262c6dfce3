"""The run that goes on, or begins: the record that opened it, and the learner it began with."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import Any

from headrace.stream.errors import AuditError, RecoveryError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import fingerprint, ledger
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.ledger.position import Offsets, Position
from headrace.stream.task import Task
from headrace.stream.training.snapshot import SavedState, shapes_of
from headrace.stream.training.trainer import Trainer


def run_of(task: Task, kafka: KafkaConnection, *, from_scratch: bool = False) -> str:
    """Return the run that goes on: the ledger's last; or a new one."""
    tip = ledger.tip(kafka, task.output("ledger"))
    return uuid.uuid4().hex if tip is None or from_scratch else tip.record.run


def open_checkpoints(task: Task, place: str, run: str, key: bytes | None) -> Checkpoints:
    """Return the checkpoints of one run of a task."""
    return Checkpoints(f"{place.rstrip('/')}/{task.name}", run=run, key=key)


def begins(kafka: KafkaConnection, topic: str) -> Offsets:
    """Ask for the first offset of each partition of a topic."""
    with closing(kafka.source(topic)) as source:
        return dict(source.begins)


def beginning(task: Task, kafka: KafkaConnection) -> Position:
    """Return where a run would begin: at what is there of the topics that a task reads."""
    labels = begins(kafka, task.labels.topic) if task.labels else {}
    return Position(begins(kafka, task.input.topic), labels=labels)


def begins_of(record: Record) -> Position:
    """Return where the run began that a record opened."""
    start = record.session_start
    return Position((start and start.begins) or {}, labels=(start and start.label_begins) or {})


def start_of(record: Record) -> str | None:
    """Return the digest of the saved learner with which the run began that a record opened."""
    return record.session_start.start if record.session_start else None


def run_opening(kafka: KafkaConnection, topic: str, run: str) -> Entry:
    """Find the record that began a run.

    Raises:
        AuditError: it is not there.
    """
    for entry in ledger.read(kafka, topic):
        if entry.record.run != run:
            continue
        if entry.record.session_start and entry.record.session_start.settings is not None:
            return entry
        break
    raise AuditError(
        f"{topic}: records before offset {ledger.beginning(kafka, topic):,} were deleted, and "
        f"with them the beginning of run {run[:8]}: nothing before them can be learned again"
    )


def beginning_gone(kafka: KafkaConnection, topic: str, run: str) -> list[str]:
    """Say so if somebody deleted the record that began a run."""
    if ledger.beginning(kafka, topic):
        try:
            run_opening(kafka, topic, run)
        except AuditError as error:
            return [str(error)]
    return []


def other_task(task: Task, opening: Record) -> RecoveryError:
    """Say in which fields a task differs from the one of the run that a record began."""
    said: dict[str, Any] = (opening.session_start and opening.session_start.settings) or {}
    changed = fingerprint.differences(said, fingerprint.settings_of(task))
    what = "; ".join(changed) or "the key of the hashes (hash_key_file)"
    return RecoveryError(
        f"task {task.name} is another than the one that was learned: {what}. Put it back; or learn "
        "all again (--from-scratch); or try it on history (headrace replay --set)"
    )


def check_code(start: SavedState | None) -> None:
    """Make sure that a new run may begin with a saved learner.

    What goes on, or is learned again, may have begun with one of other code: the ledger tells its
    state, and what came of it.

    Raises:
        RecoveryError: it was saved by other code than this.
    """
    if start and start.code not in (None, fingerprint.of_code()):
        raise RecoveryError(
            "--start-from: a new run begins, and the learner was saved by other code than this: "
            "learn it again"
        )


def check_start(opening: Record, start: SavedState) -> None:
    """Make sure that it is the learner with which the run began that a record opened.

    Raises:
        UsageError: it is not, or the run began with none.
    """
    said = start_of(opening)
    if said is None:
        raise UsageError(
            f"--start-from: run {opening.run[:8]} goes on, which began with nothing; begin a new "
            "run with it (--from-scratch), or leave it out"
        )
    if said != start.digest:
        raise UsageError(
            f"--start-from: run {opening.run[:8]} goes on, which began with another learner (state "
            f"{said[:16]}); begin a new run with it (--from-scratch), or leave it out"
        )


def load_start(task: Task, checkpoints: Checkpoints, opening: Record) -> SavedState | None:
    """Load the learner that the run began with that a record opened; None if it began with none.

    Raises:
        RecoveryError: it is not there, or not what it was.
    """
    said = start_of(opening)
    if said is None:
        return None
    usable = checkpoints.start(shapes_of(task), lambda manifest: manifest.state == said)
    start = usable and SavedState(usable[1], usable[0].learned, usable[0].code)
    if start is None or start.digest != said:
        why = "".join(f"; {problem}" for problem in checkpoints.problems)
        raise RecoveryError(
            f"no checkpoint can be used, and the saved learner with which run {opening.run[:8]} "
            f"began (state {said[:16]}) is not among them{why}; give it again (--start-from), or "
            "begin --from-scratch"
        )
    return start


def begun(task: Task, opening: Record | None, start: SavedState | None, capacity: int) -> Trainer:
    """Return a trainer as it was when the run began that a record opened; None: that of no run.

    Raises:
        UsageError: the run began with a saved learner, and `start` is not that.
    """
    said = start_of(opening) if opening else None
    if start and opening:
        check_start(opening, start)
    elif opening and said:
        raise UsageError(
            f"run {opening.run[:8]} began with a saved learner (state {said[:16]}): give it by "
            "--start-from, the file that `headrace learn` was given, or start.json in the state "
            "directory"
        )
    trainer = Trainer(task, capacity)
    if start:
        trainer.restore(start.tensors, start.learned)
    return trainer
