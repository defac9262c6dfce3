from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, parse
from headrace.stream.training.trainer import Trainer
from tests.support.events import IMAGE_TASK, POISON, TASK, good, picture
from tests.support.learners import drained
from tests.support.topics import read, send


@pytest.fixture
def task(
    kafka: KafkaConnection, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Task, Path]:
    """Make a task of its own, with its topics, and the file it stands in."""
    name = f"learn-{uuid.uuid4().hex[:8]}"
    text = (
        getattr(request, "param", TASK)
        .replace('"poisoned"', f'"{name}"')
        .replace("events.poisoned", f"events.{name}")
    )
    path = tmp_path / "task.toml"
    path.write_text(text)
    made = parse(text, str(path))
    ensure(kafka, topic_specs(made))
    return made, path


def test_every_poison_ends_as_a_dead_letter_and_changes_nothing_else(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, _ = task
    mixed: list[bytes | None] = []
    for number, (raw, _) in enumerate(POISON.values()):
        mixed += [raw, good(number)]
    send(kafka, made.input.topic, mixed, headers=50)
    progress = drained(made, kafka, micro_batch=16)

    letters = read(kafka, made.output("dead-letter"))
    assert progress.rejected == len(letters) == len(POISON)
    for number, (letter, (raw, code)) in enumerate(zip(letters, POISON.values(), strict=True)):
        where = (letter["topic"], letter["partition"], letter["offset"])
        assert where == (made.input.topic, 0, 2 * number)
        assert letter["code"] == code
        kept = None if letter["raw"] is None else base64.b64decode(letter["raw"])
        assert kept == raw

    clean = [good(number) for number in range(len(POISON))]
    assert said(read(kafka, made.output("predictions"))) == said(offline(made, clean))


def offline(task: Task, values: list[bytes]) -> list[Any]:
    """Return the predictions for events that never saw Kafka."""
    count = len(values)
    records = Records("x", [*values], [None] * count, [0] * count, list(range(count)), [])
    trainer = Trainer(task, count)
    rows, dead = Normalizer(task).normalize(records)
    assert not dead
    learned = trainer.collect(trainer.submit(rows))
    return [msgspec.to_builtins(line) for line in trainer.predictions(learned)]


def said(predictions: list[Any]) -> list[Any]:
    """Leave out where the events stood."""
    return [{**line, "offset": None} for line in predictions]


@pytest.mark.parametrize("task", [IMAGE_TASK], indirect=True)
def test_rows_by_way_of_faust_give_the_same_predictions_as_fused(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, path = task
    values = [picture(n) if n % 10 else b"poison" for n in range(500)]
    send(kafka, made.input.topic, [*values])
    drained(made, kafka, micro_batch=64)
    fused = read(kafka, made.output("predictions"))
    assert len(fused) == 450

    command = [sys.executable, "-m", "headrace", "normalize", str(path), "-b", kafka.servers]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as worker:
        try:
            deadline = time.monotonic() + 120
            while sum(describe(kafka, [made.output("features")])[0].end) < 500:
                assert time.monotonic() < deadline
                assert worker.poll() is None
                time.sleep(0.2)
        finally:
            worker.terminate()
    drained(made, kafka, origin="features", from_scratch=True, micro_batch=37)
    both = read(kafka, made.output("predictions"))
    assert both[450:] == fused


def test_rows_that_come_twice_are_learned_once(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, _ = task
    values: list[bytes | None] = [good(n) for n in range(60)]
    records = Records(made.input.topic, values, [None] * 60, [0] * 60, list(range(60)), [])
    features, _ = Normalizer(made).features(records)
    twice = [*features[:40], *features[20:]]
    send(kafka, made.output("features"), list(map(msgspec.msgpack.encode, twice)))
    progress = drained(made, kafka, origin="features", micro_batch=16)
    assert (progress.events, progress.duplicates) == (60, 20)
    offsets = [line["offset"] for line in read(kafka, made.output("predictions"))]
    assert offsets == list(range(60))


def test_an_id_that_comes_again_is_put_aside(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    made, _ = task
    send(kafka, made.input.topic, [good(1), good(2), good(1), good(3)])
    assert drained(made, kafka).events == 3
    (letter,) = read(kafka, made.output("dead-letter"))
    assert (letter["code"], letter["offset"]) == ("duplicate_id", 2)


def test_metrics_are_those_of_the_published_predictions(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    from river import metrics

    made, _ = task
    values = [good(n) for n in range(800)]
    send(kafka, made.input.topic, [*values])
    drained(made, kafka)
    labels = {(event := json.loads(value))["id"]: event["label"] for value in values}
    accuracy, macro_f1, kappa = metrics.Accuracy(), metrics.MacroF1(), metrics.CohenKappa()
    for line in read(kafka, made.output("predictions")):
        for metric in (accuracy, macro_f1, kappa):
            metric.update(labels[line["id"]], line["prediction"])
        best = max(zip(line["probabilities"], made.target.classes, strict=True))
        assert best[1] == line["prediction"]
        assert line["time_ms"] == 1714564800000
    last = read(kafka, made.output("metrics"))[-1]
    assert last["all"]["accuracy"] == pytest.approx(accuracy.get(), abs=1e-6)
    assert last["all"]["macro_f1"] == pytest.approx(macro_f1.get(), abs=1e-6)
    assert last["all"]["kappa"] == pytest.approx(kappa.get(), abs=1e-6)
    assert last["all"]["accuracy"] > last["baselines"]["majority"]["all"]["accuracy"] + 0.2
    assert (last["events"], last["lag"]) == (800, 0)


def test_every_partition_is_read_in_order(kafka: KafkaConnection, tmp_path: Path) -> None:
    from kafka import KafkaProducer

    name = f"wide-{uuid.uuid4().hex[:8]}"
    text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    made = parse(text + "\n[topics]\npartitions = 3\n", "t")
    ensure(kafka, topic_specs(made))
    producer = KafkaProducer(bootstrap_servers=kafka.servers)
    for number in range(300):
        producer.send(made.input.topic, good(number), partition=number % 3)
    producer.close()
    drained(made, kafka, micro_batch=32)
    lines = read(kafka, made.output("predictions"))
    for partition in range(3):
        offsets = [line["offset"] for line in lines if line["partition"] == partition]
        assert offsets == list(range(100))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_with_everything_published(
    kafka: KafkaConnection, task: tuple[Task, Path], number: signal.Signals
) -> None:
    made, path = task
    send(kafka, made.input.topic, [good(n) for n in range(50)])
    command = [sys.executable, "-m", "headrace", "learn", str(path), "-b", kafka.servers, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        for line in service.stdout:
            if json.loads(line).get("events") == 50:
                break
        service.send_signal(number)
        assert service.wait(timeout=20) == 0
    assert len(read(kafka, made.output("predictions"))) == 50
