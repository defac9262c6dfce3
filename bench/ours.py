"""Our contestants: the service, the normaliser, the producer, and each stage of the loop alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from bench import unbounded, workload
from bench.contestant import Outputs, Score
from bench.plain import PlainConnection, without_proof
from bench.workload import MICRO_BATCH, in_memory, with_model, with_pool
from headrace.stream.errors import AuditError, DeliveryError
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.task import Task, load

DISTINCT = 400_000  # more than the ids that a learner remembers, so none counts as repeated


def fill(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Publish the workload with our producer; beyond 400,000 events it begins again."""
    from headrace.producers.sources import Event

    drawn = workload.events(min(events, DISTINCT))
    prepared = [Event(f"s-{i}", None, None, value) for i, value in enumerate(drawn)]
    return _publish(kafka, task, islice(cycle(prepared), events))


def fill_late(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Publish the workload, each label 10,000 events later to a topic of its own."""
    from bench.late import DELAY
    from headrace.producers.late_labels import LateLabels
    from headrace.producers.sources import Event
    from headrace.stream.rows.label_delay import LabelDelay

    drawn = enumerate(workload.events(events))
    prepared = (Event(f"s-{i}", None, None, value) for i, value in drawn)
    return _publish(kafka, task, prepared, LateLabels(load(task), LabelDelay(DELAY)))


def fill_unbounded(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Publish the stream that never repeats itself."""
    from headrace.producers.sources import Event

    drawn = enumerate(unbounded.events(events))
    return _publish(kafka, task, (Event(f"s-{i}", None, None, value) for i, value in drawn))


def _publish(
    kafka: KafkaConnection, task: Path, prepared: Iterable[Any], labels: Any = None
) -> Score:
    from headrace.producers.publish import publish

    done = publish(prepared, kafka=kafka, topic=load(task).input.topic, labels=labels)
    if done.failed:
        raise DeliveryError(f"{done.failed} not acknowledged: {'; '.join(done.first_errors)}")
    return Score(done.acknowledged, done.seconds)


def headrace(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Learn the raw topic exactly once, normalising here, one optimizer step for each event."""
    return _learn(kafka, load(task), MICRO_BATCH)


def headrace_1024(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same with four times as many transactions."""
    return _learn(kafka, load(task), 1024)


def headrace_chunk_32(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same with a step for every 32 events, and half as many transactions."""
    return _learn(kafka, with_model(load(task), chunk=32), 8192)


def headrace_pool(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same with the default pool of learners."""
    return _learn(kafka, with_pool(load(task)), MICRO_BATCH)


def at_least_once(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same loop without transactions and without reading back."""
    with without_proof():
        return _learn(
            PlainConnection(kafka.servers, kafka.properties, kafka.tokens), load(task), MICRO_BATCH
        )


def at_least_once_1024(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same with the small micro-batch."""
    with without_proof():
        return _learn(
            PlainConnection(kafka.servers, kafka.properties, kafka.tokens), load(task), 1024
        )


def _learn(kafka: KafkaConnection, task: Task, micro_batch: int) -> Score:
    """Time the service from its readiness, compiled and with its ledger open, to its end."""
    from headrace.stream.service.learn import learn
    from headrace.stream.service.progress import Progress
    from headrace.stream.service.start import Safety

    started_s = ended_s = 0.0

    def on_ready() -> None:
        nonlocal started_s
        started_s = time.perf_counter()

    def on_progress(progress: Progress) -> None:  # the last one comes when all is certain
        nonlocal ended_s
        ended_s = time.perf_counter()

    with TemporaryDirectory() as state:
        done = learn(
            task,
            kafka,
            origin="events",
            safety=Safety(state, from_scratch=True),
            micro_batch=micro_batch,
            drain=True,
            on_ready=on_ready,
            on_progress=on_progress,
        )
    return Score(done.events, ended_s - started_s)


def verify(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Audit all that the learners of this task have published."""
    from headrace.stream.audit.verify import verify as audit

    start_s = time.perf_counter()
    found = audit(load(task), kafka)
    seconds = time.perf_counter() - start_s
    if not found.sound:
        raise AuditError(f"bench: {found.findings[0]}")
    return Score(found.counts.events, seconds)


def normalize(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Run one Faust worker of ours until so many rows are in the features topic."""
    from headrace.stream.engines.faust import run

    seen = Outputs(kafka, load(task).output("features"), events)
    run([task], kafka, workers=1, stop=seen)
    return seen.score()


def consume(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Only poll."""
    source, count = kafka.source(load(task).input.topic), 0
    start_s = time.perf_counter()
    while count < events:
        records = source.poll(MICRO_BATCH, 1.0)
        count += len(records.values) if records else 0
    return Score(count, time.perf_counter() - start_s)


def produce(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Only publish predictions, keys and partitions given, and wait for every acknowledgement."""
    encode = msgspec.json.Encoder().encode
    topic, sink = load(task).output("predictions"), kafka.sink()
    values = [
        encode(Prediction(f"s-{i}", "1", i, 1_732_190_000_100, 0, i, [1 / 3, 2 / 3]))
        for i in range(events)
    ]
    start_s = time.perf_counter()
    for at in range(0, events, MICRO_BATCH):
        part = values[at : at + MICRO_BATCH]
        sink.send(topic, part, keys=[None] * len(part), partitions=[0] * len(part))
    sink.flush()
    return Score(events, time.perf_counter() - start_s)


def decode(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Only normalise records in memory."""
    from headrace.stream.rows.normalizer import Normalizer

    loaded = load(task)
    normalizer = Normalizer(loaded)
    batches = list(in_memory(loaded, workload.events(events)))
    start_s = time.perf_counter()
    for records in batches:
        normalizer.normalize(records)
    return Score(events, time.perf_counter() - start_s)


def step(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Only predict and learn rows in memory."""
    from headrace.stream.rows.normalizer import Normalizer
    from headrace.stream.training.trainer import Trainer

    loaded = load(task)
    normalizer, trainer = Normalizer(loaded), Trainer(loaded, MICRO_BATCH)
    batches = in_memory(loaded, workload.events(events))
    rows = [normalizer.normalize(records)[0] for records in batches]
    start_s = time.perf_counter()
    for part in rows:
        trainer.collect(trainer.submit(part))
    return Score(events, time.perf_counter() - start_s)
