"""Come back after whatever happened: the newest sound checkpoint, and what was learned after it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from stream import fingerprint, ledger
from stream.checkpoint import Checkpoints, Manifest
from stream.errors import AuditError, HistoryError, RecoveryError
from stream.history import TopicHistory
from stream.intake import Place
from stream.kafka import Source
from stream.ledger import Entry, Record
from stream.rebuild import Counts, Rebuild
from stream.task import Task
from stream.trainer import Tensors, Trainer, shapes_of

TELL_S = 5.0


@dataclass
class Plan:
    """Say where a learner would go on, and what it takes to get there."""

    run: str
    tip: Entry | None  # the last record of the ledger
    positions: Place  # next raw offset by partition, at `start`
    reading: Place
    counts: Counts
    manifest: Manifest | None = None
    tensors: Tensors | None = None
    start: int = 0  # ledger offset of the first record to learn again
    before: Record | None = None  # the record before it
    to_learn: int = 0  # records to learn again, and their events
    events: int = 0
    problems: list[str] = field(default_factory=list)  # checkpoints that cannot be used
    code_changed: bool = False

    @property
    def new(self) -> bool:
        """Say whether a run begins here."""
        return self.tip is None or self.tip.record.run != self.run

    @property
    def records(self) -> tuple[int, int] | None:
        """Give the first and the last record to learn again."""
        if self.tip is None or not self.to_learn:
            return None
        return self.tip.record.seq - self.to_learn + 1, self.tip.record.seq

    def words(self) -> list[str]:
        """Tell a person."""
        if self.tip is None or self.new:
            begins = ", ".join(f"{p}: {at:,}" for p, at in sorted(self.positions.items()))
            return [f"a new run begins; first offset by partition: {begins}"]
        tip, kept = self.tip.record, self.manifest
        found = [
            f"run {self.run[:8]}, epoch {tip.epoch + 1}; the ledger ends with record {tip.seq:,}",
            f"the checkpoint of record {kept.seq:,} is sound"
            if kept
            else "there is no checkpoint that can be used: all is learned again",
            f"{self.to_learn:,} records with {self.events:,} events are learned again, and checked",
        ]
        if self.code_changed:
            found.append("the code or a library is another than the checkpoint's")
        return [*found, *self.problems]


def run_of(task: Task, bootstrap: str, *, from_scratch: bool = False) -> str:
    """Give the run that goes on: the ledger's last; or a new one."""
    tip = ledger.tip(bootstrap, task.output("ledger"))
    return uuid.uuid4().hex if tip is None or from_scratch else tip.record.run


def plan(
    task: Task,
    bootstrap: str,
    checkpoints: Checkpoints,
    run: str,
    *,
    fenced: bool = False,
    from_zero: bool = False,
) -> Plan:
    """Look at ledger and checkpoints, and change nothing.

    Args:
        run: the one that goes on, or begins.
        fenced: nobody else can write to the ledger any more.
        from_zero: pass over the checkpoints.

    Raises:
        RecoveryError: the task is another than the ledger's; names what differs.
        AuditError: the ledger is broken.
        BrokerError: no broker, or a topic is missing.
    """
    topic = task.output("ledger")
    tip = ledger.tip(bootstrap, topic, decided=fenced)
    if tip is None or tip.record.run != run:
        return Plan(run, tip, _begins(task, bootstrap), {}, Counts())
    others: list[Manifest] = []

    def sound(manifest: Manifest) -> bool:
        entry = next(ledger.read(bootstrap, topic, manifest.ledger_offset), None)
        found.before = entry.record if entry else None
        if entry is None or entry.record.chain != manifest.chain:
            found.problems.append(f"the checkpoint of record {manifest.seq} is not the ledger's")
            return False
        if manifest.task != fingerprint.of_task(task):
            others.append(manifest)
        return not others

    found = Plan(run, tip, {}, {}, Counts())
    most = -1 if from_zero else tip.record.seq
    usable = checkpoints.newest(shapes_of(task), at_most=most, accept=sound)
    if others:
        raise other_task(task, run_opening(bootstrap, topic, run).record)
    found.problems += checkpoints.problems
    if usable:
        found.manifest, found.tensors = usable
        found.positions, found.reading = dict(usable[0].positions), dict(usable[0].reading)
        found.counts = Counts(**{k: v for k, v in usable[0].counts.items() if k != "learned"})
        found.start = usable[0].ledger_offset + 1
        found.code_changed = usable[0].code != fingerprint.of_code()
    else:
        opening = run_opening(bootstrap, topic, run)
        if opening.record.opening and opening.record.opening.task != fingerprint.of_task(task):
            raise other_task(task, opening.record)
        found.positions = dict(begins_of(opening.record))
        found.start, found.before = opening.offset + 1, opening.record
    for entry in ledger.read(bootstrap, topic, found.start, tip.offset + 1):
        found.to_learn += 1
        found.events += entry.record.used
    return found


def open_checkpoints(task: Task, place: str, run: str, key: bytes | None) -> Checkpoints:
    """Give the checkpoints of one run of a task."""
    return Checkpoints(f"{place.rstrip('/')}/{task.name}", run=run, key=key)


def come_back(
    task: Task,
    bootstrap: str,
    checkpoints: Checkpoints,
    run: str,
    *,
    trainer: Future[Trainer],
    accept_recompute: bool,
    on_note: Callable[[str], None],
) -> tuple[Plan, Trainer, tuple[int, int] | None]:
    """Bring a fresh trainer to the tip of the ledger; nobody else may be writing to that.

    Publishes nothing. Every outcome is compared with the ledger's. Where one differs, and that is
    accepted, all is learned again from zero, so that the state is what this code makes of history.

    Returns:
        the plan, its positions and counts at the tip; the trainer; and the records whose outcome
        was not compared, None if all were.

    Raises:
        RecoveryError: an outcome differs, or raw events are gone; says what can be done.
    """
    found = plan(task, bootstrap, checkpoints, run, fenced=True)
    for line in found.words():
        on_note(line)
    fresh = trainer.result()
    try:
        _learn_again(found, task, fresh, bootstrap, on_note)
        return found, fresh, None
    except AuditError as error:
        if not accept_recompute:
            raise RecoveryError(
                f"{error}. Put back the code and the task of then; or learn all again as the code "
                "is now (--accept-recompute); or begin --from-scratch"
            ) from error
    found = plan(task, bootstrap, checkpoints, run, fenced=True, from_zero=True)
    recomputed = found.records
    fresh = Trainer(task, fresh.capacity)
    _learn_again(found, task, fresh, bootstrap, on_note, proven=False)
    return found, fresh, recomputed


def _learn_again(
    found: Plan,
    task: Task,
    trainer: Trainer,
    bootstrap: str,
    on_note: Callable[[str], None],
    *,
    proven: bool = True,
) -> None:
    """Bring the trainer, and the plan's positions and counts, to the tip of the ledger."""
    if found.tensors is not None and found.manifest is not None:
        trainer.restore(found.tensors, found.manifest.counts["learned"])
    if found.new or found.tip is None:
        return
    told_s = time.monotonic()
    with closing(TopicHistory(bootstrap, task.input.topic)) as history:
        proven_from = 0 if proven else found.tip.record.seq + 1
        rebuild = Rebuild(task, trainer, history, proven_from=proven_from)
        stop = found.tip.offset + 1
        for entry in ledger.read(bootstrap, task.output("ledger"), found.start, stop):
            if found.before is None or not ledger.follows(entry.record, found.before):
                raise RecoveryError(
                    f"the ledger is broken at offset {entry.offset}, record {entry.record.seq}: "
                    "it does not follow from the one before; see `headrace verify`, then begin "
                    "--from-scratch"
                )
            found.before = entry.record
            follow(found.positions, found.reading, entry.record)
            found.counts.add(entry.record)
            rebuild.feed(entry.record)
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                on_note(f"learned again: {rebuild.counts.events:,} of {found.events:,} events")
        rebuild.finish()


def follow(positions: Place, reading: Place, record: Record) -> None:
    """Move positions on to after a record."""
    for each in record.consumed:
        positions[each.partition] = each.stop
    reading.update(record.reading)


def run_opening(bootstrap: str, topic: str, run: str) -> Entry:
    """Find the record that began a run.

    Raises:
        AuditError: it is not there.
    """
    for entry in ledger.read(bootstrap, topic):
        if entry.record.run == run and entry.record.opening:
            return entry
    raise AuditError(f"{topic}: the beginning of run {run[:8]} is not there any more")


def begins_of(record: Record) -> Place:
    """Give the first offset of each partition of the run that a record began."""
    return (record.opening.begins if record.opening else None) or {}


def reach(task: Task, bootstrap: str, positions: Place, *, accept_loss: bool) -> Place:
    """Give the first offset that can be read of each partition, from the positions on.

    Raises:
        HistoryError: events were deleted before they were learned, and that is not accepted.
    """
    found = dict(positions)
    for partition, begin in _begins(task, bootstrap).items():
        position = positions.get(partition, begin)
        if begin > position and not accept_loss:
            raise HistoryError(
                f"{task.input.topic}/{partition}: offsets {position:,} to {begin - 1:,} were "
                "deleted (retention) before they were learned; go on without them "
                "(--accept-loss), or begin --from-scratch"
            )
        found[partition] = max(begin, position)
    return found


def _begins(task: Task, bootstrap: str) -> Place:
    source = Source(bootstrap, task.input.topic)
    source.close()
    return dict(source.begins)


def other_task(task: Task, opening: Record) -> RecoveryError:
    """Say in which fields a task differs from the one of the run that a record began."""
    said: dict[str, Any] = (opening.opening and opening.opening.settings) or {}
    changed = fingerprint.differences(said, fingerprint.settings_of(task))
    what = "; ".join(changed) or "the key of the hashes (hash_key_file)"
    return RecoveryError(
        f"task {task.name} is another than the one that was learned: {what}. Put it back; or learn "
        "all again (--from-scratch); or try it on history (headrace replay --set)"
    )
