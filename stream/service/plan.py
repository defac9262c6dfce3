"""Where a learner would go on: the newest sound checkpoint, and what was learned after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.watch import other_topic
from headrace.stream.ledger import fingerprint, ledger
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry, Record
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.ledger.position import Position
from headrace.stream.service.run import (
    beginning,
    beginning_gone,
    check_code,
    check_start,
    load_start,
    other_task,
    run_opening,
)
from headrace.stream.task import Task
from headrace.stream.training.snapshot import SavedState, digest, shapes_of

LOOK_S, LOOKED = 0.5, 1000


@dataclass
class Plan:
    """Say where a learner would go on, and what it takes to get there."""

    run: str
    tip: Entry | None  # the last record of the ledger
    position: Position  # after the checkpoint; at the tip when all is learned again
    topics: dict[str, str]  # ids of the task's topics, as the ledger knows them
    manifest: Manifest | None = None
    state: SavedState | None = None  # to begin with: the checkpoint's, or what the run began with
    start: int = 0  # ledger offset of the first record to learn again
    before: Record | None = None  # the record before it
    to_learn: int = 0  # records to learn again, and their events
    events: int = 0
    taken: int = 0  # offsets of the raw topic, with an event or without
    taken_labels: int = 0  # offsets of the labels topic
    problems: list[str] = field(default_factory=list)  # checkpoints that cannot be used
    code_changed: bool = False
    new_topic: bool = False  # go on with a raw topic that was made again
    new_labels: bool = False  # the same of the labels topic
    new_features: bool = False  # the features topic was made again: it is read from its beginning

    @property
    def new(self) -> bool:
        """Return whether a run begins here."""
        return self.tip is None or self.tip.record.run != self.run

    @property
    def records(self) -> tuple[int, int] | None:
        """Return the first and the last record to learn again."""
        if self.tip is None or not self.to_learn:
            return None
        return self.tip.record.seq - self.to_learn + 1, self.tip.record.seq

    def describe(self) -> list[str]:
        """Tell a person."""
        if self.tip is None or self.new:
            begins = ", ".join(f"{p}: {at:,}" for p, at in sorted(self.position.offsets.items()))
            start = f", from a learner of {self.state.learned:,} labels" if self.state else ""
            return [f"a new run begins{start}; first offset by partition: {begins}"]
        tip, kept = self.tip.record, self.manifest
        found = [
            f"run {self.run[:8]}, epoch {tip.epoch + 1}; the ledger ends with record {tip.seq:,}",
            f"the checkpoint of record {kept.seq:,} is sound"
            if kept
            else "there is no checkpoint that can be used: all is learned again"
            + (", from the learner that the run began with" if self.state else ""),
            f"{self.to_learn:,} records with {self.events:,} events are learned again, and checked",
        ]
        if self.code_changed:
            found.append("the code or a library is another than the checkpoint's")
        if self.new_topic:
            found.append("the raw topic was made again: the new one is read from its beginning")
        if self.new_labels:
            found.append("the labels topic was made again: the new one is read from its beginning")
        return [*found, *self.problems]


def plan(
    task: Task,
    kafka: KafkaConnection,
    checkpoints: Checkpoints,
    run: str,
    *,
    start: SavedState | None = None,
    fenced: bool = False,
    from_zero: bool = False,
) -> Plan:
    """Look at ledger and checkpoints, and change nothing.

    Args:
        run: the one that goes on, or begins.
        start: the saved learner that a new run begins with, or that a running one began with.
        fenced: nobody else can write to the ledger any more.
        from_zero: pass over the checkpoints.

    Raises:
        UsageError: the run began with another learner than `start`.
        RecoveryError: the task is another than the ledger's, names what differs; or the learner
            that the run began with is needed, and not there; or a new run would begin with one
            that was saved by other code than this.
        AuditError: the ledger is broken.
        TopicError, BrokerError: a topic is missing; no broker.
    """
    topic = task.output("ledger")
    tip = ledger.tip(kafka, topic, decided=fenced)
    if tip is None or tip.record.run != run:
        check_code(start)
        return Plan(run, tip, beginning(task, kafka), {}, state=start)
    found = Plan(run, tip, Position(), {})
    broken = beginning_gone(kafka, topic, run)
    found.problems += broken
    if start and not broken:
        check_start(run_opening(kafka, topic, run).record, start)
    most = -1 if from_zero else tip.record.seq
    while usable := _newest(found, task, kafka, checkpoints, most):
        found.manifest, found.state = usable[0], SavedState(usable[1], usable[0].learned)
        found.position, found.topics = found.manifest.position, dict(found.manifest.topics)
        most = found.manifest.seq - 1
        if digest(usable[1]) != found.manifest.state:
            found.problems.append(
                f"the checkpoint of record {found.manifest.seq} holds another state than it says: "
                "it was changed"
            )
            continue
        found.start = found.manifest.ledger_offset + 1
        found.code_changed = found.manifest.code != fingerprint.of_code()
        if _count(found, kafka, topic):
            return found
    if broken:
        raise RecoveryError(f"{broken[0]}; no checkpoint can be used: begin --from-scratch")
    opening = run_opening(kafka, topic, run)
    if opening.record.session_start and opening.record.session_start.task != fingerprint.of_task(
        task
    ):
        raise other_task(task, opening.record)
    found.manifest, found.state = None, start or load_start(task, checkpoints, opening.record)
    found.position, found.topics = Position(), _topics_of(opening.record)
    found.position.advance(opening.record)
    found.start, found.before = opening.offset + 1, opening.record
    _count(found, kafka, topic)
    return found


def _newest(
    found: Plan, task: Task, kafka: KafkaConnection, checkpoints: Checkpoints, most: int
) -> tuple[Manifest, dict[str, NDArray[Any]]] | None:
    """Load the newest checkpoint that is whole, and stands where the ledger says."""
    others: list[Manifest] = []

    def sound(manifest: Manifest) -> bool:
        at, last = manifest.ledger_offset, found.tip.offset if found.tip else -1
        entry = next(ledger.read(kafka, task.output("ledger"), at, last + 1), None)
        found.before = entry.record if entry else None
        if entry is None or (entry.offset, entry.record.chain) != (at, manifest.chain):
            found.problems.append(f"the checkpoint of record {manifest.seq} is not the ledger's")
            return False
        if entry.record.position not in ("", manifest.position.digest()):
            found.problems.append(
                f"the checkpoint of record {manifest.seq} says that it stands elsewhere than the "
                "ledger does: it was changed"
            )
            return False
        if manifest.task != fingerprint.of_task(task):
            others.append(manifest)
        return not others

    usable = checkpoints.newest(shapes_of(task), at_most=most, accept=sound)
    if others:
        raise other_task(task, run_opening(kafka, task.output("ledger"), found.run).record)
    found.problems += checkpoints.problems
    return usable


def _count(found: Plan, kafka: KafkaConnection, topic: str) -> bool:
    """Count what is to be learned again; False if the ledger announced another checkpoint."""
    found.to_learn = found.events = found.taken = found.taken_labels = 0
    stop = found.tip.offset + 1 if found.tip else 0
    for entry in ledger.read(kafka, topic, found.start, stop):
        record, manifest = entry.record, found.manifest
        found.to_learn += 1
        found.events += record.predicted
        for what in record.session_start.new_topics if record.session_start else ():
            if found.taken_labels if what == "labels" else found.taken:
                raise RecoveryError(
                    f"record {record.seq} of the ledger went on with a {what} topic that was "
                    "made again; what was learned before it cannot be read again, and no "
                    "checkpoint after it can be used: begin --from-scratch"
                )
        found.taken += sum(each.stop - each.start for each in record.consumed)
        found.taken_labels += sum(each.stop - each.start for each in record.labels)
        if record.session_start and record.session_start.topics:
            found.topics = record.session_start.topics
        saved = record.saved
        if manifest and saved and saved.seq == manifest.seq and saved.state != manifest.state:
            found.problems.append(
                f"the checkpoint of record {saved.seq} holds another state than the ledger "
                "announced: it was changed"
            )
            return False
    return True


def follow_topics(
    found: Plan,
    task: Task,
    kafka: KafkaConnection,
    topics: dict[str, str],
    *,
    from_scratch: bool,
    accept_new_topic: bool,
    on_note: Callable[[str], None],
) -> None:
    """Make sure that the task's topics are those that the ledger speaks of.

    Args:
        topics: the ids of those that are there.
        from_scratch: whatever was learned before is of no interest.
        accept_new_topic: go on with a raw topic, or one of labels, that was made again.

    Raises:
        RecoveryError: the raw topic, or that of labels, is another; or the ledger is, and what it
            said is gone.
    """
    if from_scratch:
        return
    predictions = task.output("predictions")
    inputs = [task.input.topic, *([task.labels.topic] if task.labels else [])]
    if found.tip is None and (
        _holds_predictions(kafka, predictions) or ledger.beginning(kafka, task.output("ledger"))
    ):
        raise RecoveryError(
            f"{task.output('ledger')} is empty, and was not always: the ledger was deleted, "
            "and with it what was learned from which events; begin --from-scratch"
        )
    others = {name for name, known in found.topics.items() if topics.get(name, known) != known}
    for name in sorted(others.difference(inputs)):
        on_note(f"{name} was deleted and made again: what it held is gone")
    found.new_features = task.output("features") in others
    new = [name for name in inputs if name in others]
    if not new or found.new:
        return
    if not accept_new_topic:
        raise other_topic(new[0])
    for name in new:
        raw = name == task.input.topic
        if taken := found.taken if raw else found.taken_labels:
            what = f"{taken:,} {'events' if raw else 'labels'}"
            raise RecoveryError(
                f"{name} was deleted and made again, and with it {what} that came after "
                "the last checkpoint and would have to be learned again: begin --from-scratch"
            )
    found.new_topic, found.new_labels = task.input.topic in new, new != [task.input.topic]


def _holds_predictions(kafka: KafkaConnection, topic: str) -> bool:
    """Return whether a prediction was ever committed to a topic, and is still there."""
    with closing(kafka.source(topic)) as source:
        while source.ended < set(source.partitions):
            for message in source.messages(LOOKED, LOOK_S):
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # a stranger's record
                    msgspec.json.decode(message.value() or b"", type=Prediction)
                    return True
    return False


def _topics_of(record: Record) -> dict[str, str]:
    return (record.session_start.topics if record.session_start else None) or {}
