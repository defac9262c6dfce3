"""The peers: River's online models, in the loops that people put around them.

They are given the fast JSON codec of ours and a smaller output, and ask for less: they deliver at
most once, check no event and count nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.contestant import Outputs, Score
from bench.workload import PEERS
from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process import workers
from headrace.stream.task import load

BATCH = 1000


def river_logistic(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """River's standard scaler and logistic regression in a confluent-kafka loop."""
    return _confluent_loop(make_logistic(), kafka, task, events)


def river_hoeffding_tree(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """River's Hoeffding tree in a confluent-kafka loop."""
    from river import tree

    return _confluent_loop(tree.HoeffdingTreeClassifier(), kafka, task, events)


def faust_river_logistic(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The logistic regression in a Faust agent, watched from outside like our normaliser."""
    loaded = load(task)
    seen = Outputs(kafka, loaded.output(PEERS), events)
    command = [sys.executable, "-m", "bench.faust_river", str(task)]
    workers.keep_running(command, 1, environment=kafka.environment(), stop=seen)
    return seen.score()


def quix_river_logistic(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The logistic regression in Quix Streams, at least once, its default."""
    return _quix(kafka, task, events, "at-least-once")


def quix_river_logistic_exactly_once(kafka: KafkaConnection, task: Path, events: int) -> Score:
    """The same with Quix Streams' transactions."""
    return _quix(kafka, task, events, "exactly-once")


def _quix(kafka: KafkaConnection, task: Path, events: int, guarantee: str) -> Score:
    loaded, script = load(task), Path(__file__).with_name("quix_river.py")
    command = ["uv", "run", "--no-project", "--script", str(script), kafka.servers]
    asked = (loaded.input.topic, loaded.output(PEERS), str(events), guarantee)
    done = subprocess.run([*command, *asked], capture_output=True, text=True)
    if done.returncode:
        raise HeadraceError(f"Quix Streams failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    return Score(*json.loads(done.stdout.splitlines()[-1]))


def make_logistic() -> Any:
    """Make River's usual first model."""
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def _confluent_loop(model: Any, kafka: KafkaConnection, task: Path, events: int) -> Score:
    import msgspec
    from confluent_kafka import Consumer, Producer, TopicPartition

    loaded = load(task)
    output, count, start_s = loaded.output(PEERS), 0, 0.0
    producer = Producer(
        kafka.confluent() | {"linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
    )
    consumer = Consumer(kafka.confluent() | {"group.id": "bench"})
    consumer.assign([TopicPartition(loaded.input.topic, 0, 0)])
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    predict, learn, produce = model.predict_proba_one, model.learn_one, producer.produce
    while count < events:
        messages = consumer.consume(min(BATCH, events - count), 1.0)
        start_s = start_s or time.perf_counter()
        for message in messages:
            event = decode(message.value() or b"")
            row = event["features"]
            chance = predict(row).get(1, 0.0)
            learn(row, event["label"])
            produce(output, encode({"id": event["id"], "probability": chance}))
        producer.poll(0)
        count += len(messages)
    producer.flush()
    return Score(count, time.perf_counter() - start_s)
