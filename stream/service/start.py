"""How a service comes to the point where it can go on: fenced, recovered, and written down."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from headrace.stream.errors import FencedError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.watch import TopicWatch
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Entry, Ledger, SessionStart
from headrace.stream.ledger.manifest import start_manifest
from headrace.stream.ledger.position import Position
from headrace.stream.process.failpoint import failpoint
from headrace.stream.service import recovery
from headrace.stream.service import run as runs
from headrace.stream.service.checkpointer import Checkpointer
from headrace.stream.service.label_source import LabelSource
from headrace.stream.service.plan import Plan
from headrace.stream.service.progress import Progress
from headrace.stream.service.publisher import Publisher, partitions_beside
from headrace.stream.service.releaser import Releaser
from headrace.stream.service.row_source import EventSource, FeatureSource, RowSource
from headrace.stream.service.service import HURRY_S, Service
from headrace.stream.service.tracing import Tracing
from headrace.stream.task import Task
from headrace.stream.training import plugins
from headrace.stream.training.snapshot import SavedState
from headrace.stream.training.trainer import Trainer

Origin = Literal["features", "events"]


@dataclass(frozen=True)
class Safety:
    """Say where checkpoints are kept, and what a start may do that cannot be undone."""

    place: str  # directory or URL
    key: bytes | None = None  # of the checkpoints' HMAC
    start: SavedState | None = None  # the saved learner that a new run begins with
    from_scratch: bool = False  # begin a new run in the same ledger
    accept_recompute: bool = False  # go on although history comes out otherwise
    accept_loss: bool = False  # go on although events were deleted before they were learned
    accept_new_topic: bool = False  # go on with a raw topic that was deleted and made again


def start_service(
    task: Task,
    kafka: KafkaConnection,
    *,
    origin: Origin,
    safety: Safety,
    micro_batch: int,
    release_s: float,
    on_progress: Callable[[Progress], None],
    on_note: Callable[[str], None],
    stop: Callable[[], bool],
    stack: ExitStack,
) -> Service:
    """Bring a learner to the tip of the ledger, and write down that it goes on from there.

    Args: as for `learn`.
        stack: closes in the end what is opened here.

    Raises: as `learn`.
    """
    plugins.load(task)  # what is not there is told before topics are made
    pool = ThreadPoolExecutor(1, "compile")
    stack.callback(pool.shutdown, wait=False)
    local = None if "://" in safety.place else safety.place
    compiling = pool.submit(Trainer, task, micro_batch, local)  # while Kafka is asked
    features = task.output("features")
    unread = {task.output("models")} | ({features} if origin == "events" else set())
    specs = [spec for spec in topic_specs(task) if spec.name not in unread]
    found_topics = kafka.prepare(specs)
    topics = {topic.name: topic.id for topic in found_topics}
    run = runs.run_of(task, kafka, from_scratch=safety.from_scratch)
    checkpoints = runs.open_checkpoints(task, safety.place, run, safety.key)
    stack.enter_context(checkpoints.lock())
    inputs = (task.input.topic, task.labels and task.labels.topic, features)
    outputs = [spec.name for spec in specs if spec.name not in inputs]
    transactions = kafka.transactions(
        f"{task.name}.learn", topics=outputs, on_note=on_note, stop=stop
    )
    stack.callback(transactions.close)
    failpoint("fenced")
    # Only now that nobody else can write, what the ledger says is the last word.
    found, trainer, recomputed = recovery.recover(
        task,
        kafka,
        checkpoints,
        run,
        trainer=compiling,
        topics=topics,
        start=safety.start,
        from_scratch=safety.from_scratch,
        accept_recompute=safety.accept_recompute,
        accept_new_topic=safety.accept_new_topic,
        on_note=on_note,
        stop=stop,
    )
    if found.new and found.tip and not safety.from_scratch:
        raise FencedError(f"another learner of {task.name} began at this moment; start again")
    failpoint("recovered")
    if found.state and not found.manifest:
        _keep_start(task, kafka, found, found.state, checkpoints)
    failpoint("start kept")
    position = found.position
    watch = kafka.watch(task.input.topic, topics[task.input.topic])
    source = _source(task, kafka, origin, safety, position, topics, watch)
    stack.callback(source.close)
    watches, labels = [watch], None
    if task.labels:
        topic = task.labels.topic
        watches.append(kafka.watch(topic, topics[topic]))
        starts = recovery.readable_offsets(
            topic, kafka, position.labels, accept_loss=safety.accept_loss
        )
        labels = LabelSource(task, kafka, position.labels, starts, watches[1])
        stack.callback(labels.close)
    kept = found.manifest.position if found.manifest else None
    checkpointer = Checkpointer(checkpoints, task, topics, kept, on_note)
    stack.callback(checkpointer.finish, HURRY_S)
    ledger = Ledger(kafka, task.output("ledger"), found.tip, found.run)
    stack.callback(ledger.close)
    releaser = Releaser(task, kafka, safety.key, topics, release_s, on_note)
    stack.callback(releaser.close)
    stack.callback(releaser.finish, HURRY_S)

    tracing = Tracing(task.name)
    stack.callback(tracing.close)

    def on_certain(entry: Entry) -> None:
        tracing.on_certain(entry)
        checkpointer.on_confirmed(entry)
        releaser.on_confirmed(entry)

    publisher = Publisher(task, transactions, ledger, watches, on_certain)
    publisher.write(
        session_start=_session_start(task, found, topics, recomputed),
        reading=dict(position.reading) if found.new_features else {},
        position=position.digest(),
    )
    publisher.commit()
    publisher.await_commit()  # it is certain before the first event is taken
    return Service(
        task,
        kafka,
        specs=specs,
        partitions=partitions_beside(specs, found_topics),
        trainer=trainer,
        micro_batch=micro_batch,
        position=position,
        source=source,
        labels=labels,
        ledger=ledger,
        publisher=publisher,
        checkpointer=checkpointer,
        releaser=releaser,
        tracing=tracing,
        on_progress=on_progress,
    )


def _source(
    task: Task,
    kafka: KafkaConnection,
    origin: Origin,
    safety: Safety,
    position: Position,
    topics: dict[str, str],
    watch: TopicWatch,
) -> RowSource:
    """Open what rows come from, where the position says."""
    offsets = position.offsets
    starts = recovery.readable_offsets(
        task.input.topic, kafka, offsets, accept_loss=safety.accept_loss
    )
    if origin == "events":
        return EventSource(task, kafka, offsets, starts, watch, position.fields)
    identity = topics.get(task.output("features"), "")
    return FeatureSource(task, kafka, offsets, starts, position.reading, identity, position.fields)


def _keep_start(
    task: Task, kafka: KafkaConnection, found: Plan, start: SavedState, checkpoints: Checkpoints
) -> None:
    """Keep the saved learner that the run begins with, or began with.

    It is durable before the ledger speaks of it: the run could not be learned again without it.
    """
    begins = found.position
    if not found.new:
        opening = runs.run_opening(kafka, task.output("ledger"), found.run)
        begins = runs.begins_of(opening.record)
    manifest = start_manifest(task, found.run, begins, start.digest, start.learned, start.code)
    checkpoints.save_start(manifest, start.tensors)


def _session_start(
    task: Task, found: Plan, topics: dict[str, str], recomputed: tuple[int, int] | None
) -> SessionStart:
    """Return which code learns which task from here on."""
    return SessionStart(
        task=fingerprint.of_task(task),
        code=fingerprint.of_code(),
        version=version("headrace"),
        settings=fingerprint.settings_of(task) if found.new else None,
        begins=dict(found.position.offsets) if found.new or found.new_topic else None,
        label_begins=dict(found.position.labels)
        if task.labels and (found.new or found.new_labels)
        else None,
        start=found.state.digest if found.new and found.state else None,
        topics=topics,
        recomputed=recomputed,
    )
