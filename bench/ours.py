"""Our contestants: the service, the normaliser, the producer, and each stage of the loop alone."""

from __future__ import annotations

import time
from itertools import cycle, islice
from pathlib import Path

import msgspec

from bench import workload
from bench.contestant import Outputs, Score
from bench.workload import MICRO_BATCH, in_memory
from stream.errors import DeliveryError
from stream.events import Prediction
from stream.kafka import Sink, Source
from stream.task import load

DISTINCT = 400_000  # more than the ids that a learner remembers, so none counts as repeated


def fill(bootstrap: str, task: Path, events: int) -> Score:
    """Publish the workload with our producer; beyond 400,000 events it begins again."""
    from producers.publish import publish
    from producers.sources import Event

    drawn = workload.events(min(events, DISTINCT))
    prepared = [Event(f"s-{i}", None, None, value) for i, value in enumerate(drawn)]
    topic = load(task).input.topic
    done = publish(islice(cycle(prepared), events), bootstrap=bootstrap, topic=topic)
    if done.failed:
        raise DeliveryError(f"{done.failed} not acknowledged: {'; '.join(done.first_errors)}")
    return Score(done.acknowledged, done.seconds)


def headrace(bootstrap: str, task: Path, events: int) -> Score:
    """Learn the raw topic, normalising in the learner, one optimizer step for each event."""
    from stream.learn import Progress, learn

    started_s = ended_s = 0.0

    def on_ready() -> None:
        nonlocal started_s
        started_s = time.perf_counter()

    def on_progress(progress: Progress) -> None:  # the last one comes after the flush
        nonlocal ended_s
        ended_s = time.perf_counter()

    done = learn(
        load(task),
        bootstrap,
        origin="events",
        micro_batch=MICRO_BATCH,
        drain=True,
        on_ready=on_ready,
        on_progress=on_progress,
    )
    return Score(done.events, ended_s - started_s)


def normalize(bootstrap: str, task: Path, events: int) -> Score:
    """Run one Faust worker of ours until so many rows are in the features topic."""
    from stream.app import run

    seen = Outputs(bootstrap, load(task).output("features"), events)
    run([task], bootstrap, workers=1, stop=seen)
    return seen.score()


def consume(bootstrap: str, task: Path, events: int) -> Score:
    """Only poll."""
    source, count = Source(bootstrap, load(task).input.topic), 0
    start_s = time.perf_counter()
    while count < events:
        records = source.poll(MICRO_BATCH, 1.0)
        count += len(records.values) if records else 0
    return Score(count, time.perf_counter() - start_s)


def produce(bootstrap: str, task: Path, events: int) -> Score:
    """Only publish predictions, keys and partitions given, and wait for every acknowledgement."""
    encode = msgspec.json.Encoder().encode
    topic, sink = load(task).output("predictions"), Sink(bootstrap)
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


def decode(bootstrap: str, task: Path, events: int) -> Score:
    """Only normalise records in memory."""
    from stream.normalize import Normalizer

    loaded = load(task)
    normalizer = Normalizer(loaded)
    batches = list(in_memory(loaded, workload.events(events)))
    start_s = time.perf_counter()
    for records in batches:
        normalizer.normalize(records)
    return Score(events, time.perf_counter() - start_s)


def step(bootstrap: str, task: Path, events: int) -> Score:
    """Only predict and learn rows in memory."""
    from stream.normalize import Normalizer
    from stream.trainer import Trainer

    loaded = load(task)
    normalizer, trainer = Normalizer(loaded), Trainer(loaded, MICRO_BATCH)
    batches = in_memory(loaded, workload.events(events))
    rows = [normalizer.normalize(records)[0] for records in batches]
    start_s = time.perf_counter()
    for part in rows:
        trainer.collect(trainer.submit(part))
    return Score(events, time.perf_counter() - start_s)
