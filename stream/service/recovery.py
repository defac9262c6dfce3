"""Come back after whatever happened: the newest sound checkpoint, and what was learned after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing

from headrace.stream.errors import AuditError, HistoryError, RecoveryError, StoppedError
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import TopicHistory
from headrace.stream.kafka.source import cut_off
from headrace.stream.ledger import ledger
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry
from headrace.stream.ledger.position import Offsets
from headrace.stream.service.plan import Plan, follow_topics, plan
from headrace.stream.service.replayer import LedgerReplayer
from headrace.stream.service.run import begins
from headrace.stream.task import Task
from headrace.stream.training.snapshot import SavedState
from headrace.stream.training.trainer import Trainer

TELL_S = 5.0
STOP_S = 0.1


def recover(
    task: Task,
    kafka: KafkaConnection,
    checkpoints: Checkpoints,
    run: str,
    *,
    trainer: Future[Trainer],
    topics: dict[str, str],
    start: SavedState | None,
    from_scratch: bool,
    accept_recompute: bool,
    accept_new_topic: bool,
    on_note: Callable[[str], None],
    stop: Callable[[], bool],
) -> tuple[Plan, Trainer, tuple[int, int] | None]:
    """Bring a fresh trainer to the tip of the ledger; nobody else may be writing to that.

    Publishes nothing. Every outcome is compared with the ledger's. Where one differs, and that is
    accepted, all is learned again from zero, so that the state is what this code makes of history.

    Returns:
        the plan, its position at the tip; the trainer; and the records whose outcome was not
        compared, None if all were.

    Raises:
        UsageError: the run that goes on began with another learner than `start`.
        RecoveryError: an outcome differs, or raw events are gone; says what can be done.
        StoppedError: `stop` said so.
    """

    def planned(*, from_zero: bool = False) -> Plan:
        found = plan(task, kafka, checkpoints, run, start=start, fenced=True, from_zero=from_zero)
        follow_topics(
            found,
            task,
            kafka,
            topics,
            from_scratch=from_scratch,
            accept_new_topic=accept_new_topic,
            on_note=on_note,
        )
        return found

    found = planned()
    for line in found.describe():
        on_note(line)
    fresh = await_result(trainer, stop)
    try:
        _learn_again(found, task, fresh, kafka, on_note, stop)
        return found, fresh, None
    except AuditError as error:
        if not accept_recompute:
            raise RecoveryError(
                f"{error}. Put back the code and the task of then; or learn all again as the code "
                "is now (--accept-recompute); or begin --from-scratch"
            ) from error
    found = planned(from_zero=True)
    recomputed = found.records
    fresh = Trainer(task, fresh.capacity, fresh.directory)
    _learn_again(found, task, fresh, kafka, on_note, stop, proven=False)
    return found, fresh, recomputed


def _learn_again(
    found: Plan,
    task: Task,
    trainer: Trainer,
    kafka: KafkaConnection,
    on_note: Callable[[str], None],
    stop: Callable[[], bool],
    *,
    proven: bool = True,
) -> None:
    """Bring the trainer, and the plan's position, to the tip of the ledger."""
    if found.state:
        trainer.restore(found.state.tensors, found.state.learned)
    if not found.new and found.tip is not None:
        told_s = time.monotonic()
        with ExitStack() as stack:
            history = stack.enter_context(closing(TopicHistory(kafka, task.input.topic)))
            labels = None
            if task.labels:
                late = TopicHistory(kafka, task.labels.topic)
                labels = stack.enter_context(closing(late))
            proven_from = 0 if proven else found.tip.record.seq + 1
            fields = NewFields(task, found.position.fields)
            replayer = LedgerReplayer(
                task, trainer, history, labels, proven_from=proven_from, fields=fields
            )
            last = found.tip.offset + 1
            for entry in ledger.read(kafka, task.output("ledger"), found.start, last):
                if stop():
                    raise StoppedError(f"stopped before {task.name} had come to the ledger's end")
                _step(found, entry)
                replayer.add(entry.record)
                if time.monotonic() - told_s > TELL_S:
                    told_s = time.monotonic()
                    on_note(f"learned again: {replayer.counts.events:,} of {found.events:,} events")
            replayer.finish()
        found.position.fields = fields.state()
    if found.new_features:
        found.position.reading = dict.fromkeys(found.position.reading, 0)
    if found.new_topic:
        found.position.offsets, found.position.reading = begins(kafka, task.input.topic), {}
    if found.new_labels and task.labels:
        found.position.labels = begins(kafka, task.labels.topic)


def _step(found: Plan, entry: Entry) -> None:
    """Go on by one record, if it is the next one, and leads where it says."""
    record, before = entry.record, found.before
    found.position.advance(record)
    stands = record.position in ("", found.position.digest())
    if before is None or not ledger.follows(record, before) or not stands:
        raise RecoveryError(
            f"the ledger is broken at offset {entry.offset}, record {record.seq}: it does not "
            "follow from the one before; see `headrace verify`, then begin --from-scratch"
        )
    found.before = record


def await_result(future: Future[Trainer], stop: Callable[[], bool]) -> Trainer:
    """Wait for a trainer that compiles on another thread.

    Raises:
        StoppedError: `stop` said so.
    """
    while not future.done():
        if stop():
            raise StoppedError("stopped before all was compiled")
        wait([future], STOP_S)
    return future.result()


def readable_offsets(
    topic: str, kafka: KafkaConnection, offsets: Offsets, *, accept_loss: bool
) -> Offsets:
    """Return the first offset that can be read of each partition, from `offsets` on.

    Raises:
        HistoryError: records were deleted before they were learned, and that is not accepted.
        RecoveryError: the topic ends before what was learned.
    """
    found = dict(offsets)
    with closing(kafka.source(topic)) as source:
        ends = source.ends()
    if gone := offsets.keys() - ends.keys():
        raise cut_off(f"{topic}/{min(gone)}", 0, offsets[min(gone)])
    for partition, begin in source.begins.items():
        position = offsets.get(partition, 0)  # of one that was added since
        if begin > position and not accept_loss:
            raise HistoryError(
                f"{topic}/{partition}: offsets {position:,} to {begin - 1:,} were deleted "
                "(retention) before they were learned; go on without them (--accept-loss), or "
                "begin --from-scratch"
            )
        if position > ends[partition]:
            raise cut_off(f"{topic}/{partition}", ends[partition], position)
        found[partition] = max(begin, position)
    return found
