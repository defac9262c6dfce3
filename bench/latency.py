"""How long an event waits for its prediction, from its record's time to a reader's hands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from bench import workload
from bench.contestant import Run, Score
from headrace.producers.late_labels import LateLabels
from headrace.producers.sources import Event
from headrace.stream.errors import HeadraceError
from headrace.stream.events import Prediction
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.source import Source
from headrace.stream.process.child import Child
from headrace.stream.rows.label_delay import LabelDelay
from headrace.stream.task import load

RATE = 1_000
LATE = 2_000  # events: two seconds
WARM_UP_S = 3.0
WAIT_S = 0.1
SILENT_S = 60.0


class Latency(NamedTuple):
    """Give quantiles in milliseconds of so many events."""

    p50_ms: float
    p99_ms: float
    events: int


def measure(kafka: KafkaConnection, task: Path, *, seconds: float) -> Latency:
    """Send 1,000 events a second, one by one, and time each prediction's arrival at a reader.

    Three processes beside the broker: a producer, `headrace learn --from events`, and this one as
    the reader. Latency is the reader's clock when a poll gives the prediction, less the Kafka
    timestamp (whole milliseconds, cut off) of the raw record at the prediction's offset; the first
    three seconds do not count. The topics of the task must be empty.

    Raises:
        HeadraceError: the learner or the producer failed, or nothing came for a minute.
    """
    events, loaded = round((WARM_UP_S + seconds) * RATE), load(task)
    learner = Child("headrace learn")
    try:
        learner.begin(
            "learn", str(task), "--from", "events", "--json", "--bootstrap", kafka.servers
        )
        _await_ready(learner)
        reader = kafka.source(loaded.output("predictions"), prompt=True)
        producer = Run("pace", kafka, task, events)
        try:
            arrived_ms = _arrivals(reader, events, learner)
            producer.score()
        finally:
            producer.close()
            reader.close()
        learner.stop()
        learner.wait(time.monotonic() + 10)
    finally:
        learner.close()
    created_ms = _created(kafka, loaded.input.topic, events)
    return quantiles(arrived_ms - created_ms, created_ms)


def quantiles(waited_ms: workload.Array, created_ms: workload.Array) -> Latency:
    """Return the quantiles of what was created after the warm-up: f64[n] each."""
    counted = waited_ms[created_ms >= created_ms[0] + WARM_UP_S * 1000]
    p50_ms, p99_ms = np.percentile(counted, [50, 99]).round(2).tolist()
    return Latency(p50_ms, p99_ms, len(counted))


def pace(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Send events on their own, each at its moment, or at once when that has passed.

    Labels that have a topic of their own follow LATE events later.

    The client lets them linger for 5 ms, as librdkafka and Kafka's own do by default.
    """
    loaded, sink = load(task), kafka.sink()
    topic, values = loaded.input.topic, workload.events(events)
    late = LateLabels(loaded, LabelDelay(LATE)) if loaded.labels else None
    start_s = time.monotonic()
    for number, value in enumerate(values):
        if (early_s := start_s + number / RATE - time.monotonic()) > 0:
            time.sleep(early_s)
        if late:
            before, event, _ = late.split(Event(f"s-{number}", None, None, value))
            for label in before:
                sink.send(late.topic, [label.value])
            value = event.value
        sink.send(topic, [value])
    sink.flush()
    return Score(events, time.monotonic() - start_s)


def _await_ready(learner: Child) -> None:
    give_up = time.monotonic() + SILENT_S
    while not learner.ready:
        if learner.trouble or time.monotonic() > give_up:
            raise HeadraceError(learner.trouble or f"headrace learn: not ready in {SILENT_S:g} s")
        time.sleep(0.05)


def _arrivals(reader: Source, events: int, learner: Child) -> workload.Array:
    """Note when the prediction of each raw offset is readable: f64[events], Unix ms."""
    offset_of = msgspec.json.Decoder(Prediction).decode
    arrived, count, last_s = np.full(events, np.nan), 0, time.monotonic()
    while count < events:
        records = reader.poll(workload.MICRO_BATCH, WAIT_S)
        now_ms = time.time_ns() / 1e6
        if records:
            arrived[[offset_of(value or b"").offset for value in records.values]] = now_ms
            count, last_s = count + len(records.values), time.monotonic()
        elif learner.trouble or time.monotonic() > last_s + SILENT_S:
            said = learner.trouble or f"none came for {SILENT_S:g} s"
            raise HeadraceError(f"bench: {count} of {events} predictions: {said}")
    return arrived


def _created(kafka: KafkaConnection, topic: str, events: int) -> workload.Array:
    """Read the Kafka timestamps of a topic's records by offset: f64[events], Unix ms."""
    source, found = kafka.source(topic, timestamps=True), np.full(events, np.nan)
    try:
        while source.position[0] < events:
            if records := source.poll(workload.MICRO_BATCH, 1.0):
                found[records.offsets] = records.timestamps_ms
    finally:
        source.close()
    return found
