"""PyTorch and TensorFlow read our topics and archives: real ones, in environments of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

import headrace
from headrace.datasets import RowReader, TopicEvents
from headrace.saved import open_start
from headrace.stream.archive.writer import archive
from headrace.stream.audit.verify import verify
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.process.paths import cache_dir, hold_lock
from headrace.stream.task import Task, parse
from tests.export.tasks import TASKS, events
from tests.support.core import in_the_core
from tests.support.events import POISON, good, task_text
from tests.support.topics import read

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # installing them takes minutes

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "frameworks"
FRAMEWORKS = {"torch": "torch==2.5.1", "tensorflow": "tensorflow-cpu==2.21.0\nonnx==1.23.2"}
INTEGERS = ("entity", "label", "time_ms", "partition", "offset")
Script = Callable[..., Any]


def environment(framework: str) -> Path:
    """Return the Python of an environment with a framework and what headrace needs; make it once.

    headrace itself is this checkout: nothing of it is installed.
    """
    uv = shutil.which("uv")
    if not uv:
        pytest.skip(f"NOT RUN: no uv, which makes the environment of {framework}")
    place = cache_dir("frameworks")
    place.mkdir(parents=True, exist_ok=True)
    needed = [uv, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes"]
    pins = subprocess.run(needed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = f"{FRAMEWORKS[framework]}\n{pins}"
    home = place / framework
    with hold_lock(place / f"{framework}.lock", wait_s=900.0):
        made = home / "made-of.txt"
        if not made.exists() or made.read_text() != wanted:
            (place / f"{framework}.txt").write_text(wanted)
            commands: tuple[list[str | Path], ...] = (
                [uv, "venv", "--quiet", "--clear", "--python", "3.11", home],
                [uv, "pip", "install", "--quiet", "--python", home / "bin/python", "--requirement",
                 place / f"{framework}.txt"],
            )  # fmt: skip
            for command in commands:
                done = subprocess.run(command, capture_output=True, text=True, timeout=900)
                if done.returncode:
                    pytest.skip(f"NOT RUN: {framework} cannot be installed: {done.stderr[-500:]}")
            made.write_text(wanted)
    return home / "bin/python"


@pytest.fixture(scope="module")
def script() -> Script:
    """Return what runs one of the scripts beside this file, and reads what it prints."""

    def run(framework: str, name: str, *arguments: object) -> Any:
        python = environment(framework)
        env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [python, SCRIPTS / f"{name}.py", *map(str, arguments)],
            capture_output=True, text=True, env=env, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


class Kept:
    """Hold a task's topic of three partitions, its archive, and the rows of both."""

    def __init__(self, kafka: KafkaConnection, topic: str, home: Path) -> None:
        self.file, self.place = home / "task.toml", home / "archive"
        self.file.write_text(
            task_text("framework").replace('topic = "framework"', f'topic = "{topic}"')
        )
        with closing(Producer(kafka.confluent())) as producer:
            for number in range(1500):
                label = ("yes", "no", None)[number % 3]
                producer.produce(topic, good(number, label=label), partition=number % 4 % 3)
            for value, _ in [*POISON.values()][:15]:
                producer.produce(topic, value, partition=1)
            producer.flush()
        archive(kafka, topic, str(self.place), rows_per_file=130)
        self.rows: dict[str, list[Any]] = {}
        task = Task.load(self.file)
        for batch in RowReader(task, partial(TopicEvents, kafka)).batches():
            for name in ("offset", "partition", "label", "numeric"):
                self.rows.setdefault(name, []).extend(batch[name].tolist())


@pytest.fixture
def kept(kafka: KafkaConnection, topic: Callable[..., str], tmp_path: Path) -> Kept:
    return Kept(kafka, topic("events", partitions=3, retention_ms=-1), tmp_path)


def in_order(rows: dict[str, list[Any]]) -> list[tuple[Any, ...]]:
    names = ("partition", "offset", "label", "numeric")
    return sorted(zip(*(rows[name] for name in names), strict=True))


def test_pytorch_loads_topics_and_archives(
    kafka: KafkaConnection, kept: Kept, script: Script
) -> None:
    told = script("torch", "torch_rows", kept.file, kafka.servers, kept.place)
    assert len(kept.rows["offset"]) == 1500
    for name in ("topic", "archive", "batched"):
        assert told[f"{name} 0"]["rows"] == kept.rows  # in the order of the stream
        for workers in (0, 2, 5):
            found = told[f"{name} {workers}"]
            assert in_order(found["rows"]) == in_order(kept.rows)
            assert found["rejected"] == 15
            assert found["shapes"]["numeric"] == [64, 2] and found["shapes"]["ids"] == [64, 17]
            assert found["types"] == {
                **dict.fromkeys(found["types"], "torch.int64"),
                "numeric": "torch.float32",
            }
    assert [(p, at) for p, at in told["spawned"]] == [row[:2] for row in in_order(kept.rows)]


def test_tensorflow_reads_archives(kept: Kept, script: Script) -> None:
    told = script("tensorflow", "tensorflow_rows", kept.file, kept.place)
    assert told["is_dataset"] and told["rejected"] == 15
    assert told["rows"] == kept.rows
    assert told["spec"] == {
        **{name: ["int64", []] for name in INTEGERS},
        "numeric": ["float32", [2]],
        "ids": ["int64", [17]],
    }
    assert told["batch"]["numeric"] == [64, 2]


@pytest.mark.parametrize("network", ["mlp", "linear"])
def test_pytorch_trains_a_network_that_a_service_begins_with(
    network: str, kafka: KafkaConnection, topic: Callable[..., str], script: Script, tmp_path: Path
) -> None:
    name = f"weights-{network}-{uuid.uuid4().hex[:8]}"
    text = task_text(name) + f'[model]\nnetwork = "{network}"\nhidden = [8, 5]\n'
    task, events = parse(text, "t"), [json.loads(good(number)) for number in range(600)]
    learner = headrace.Learner(task)
    learner.predict_then_learn(events[:300])
    learner.save(tmp_path / "learned.hr")
    (tmp_path / "events.json").write_text(json.dumps(events[300:400]))
    told = script("torch", "torch_weights", tmp_path / "learned.hr", tmp_path / "events.json",
                  tmp_path)  # fmt: skip
    said = in_the_core(learner, events[300:320])
    assert np.abs(np.array(told["outputs"])[:, :20] - said).max() < 1e-6 * max(
        1, np.abs(said).max()
    )
    assert told["losses"][-1] < 0.7 * told["losses"][0]
    assert told["after"] == [told["trained"]] * 2
    assert ["safetensors" in told["refused"][0], "none" in told["refused"][1]] == [True, True]
    assert "missing" in told["refused"][2]

    started = headrace.Learner.load(tmp_path / "started.hr")
    assert (
        np.abs(in_the_core(started, events[300:310])[0] - np.array(told["trained"])[:10]).max()
        < 2e-6
    )
    ensure(kafka, topic_specs(task))
    with closing(Producer(kafka.confluent())) as producer:
        for event in events[300:]:
            producer.produce(task.input.topic, json.dumps(event).encode())
        producer.flush()
    service = headrace.Service(
        task, kafka, state=tmp_path / "state", start_from=tmp_path / "started.hr"
    )
    assert service.run(drain=True).events == 300
    truth = started.predict_then_learn(events[300:])["prediction"].to_pylist()
    assert [each["prediction"] for each in read(kafka, task.output("predictions"))] == truth
    start = open_start(str(tmp_path / "started.hr"), None, task)
    assert verify(task, kafka, deep=True, start=start).findings == []


@pytest.mark.filterwarnings("ignore:.*__array__.*:DeprecationWarning")  # as Keras saves
@pytest.mark.parametrize("kind", ["words", "image", "keras", "textcnn"])
def test_tensorflow_says_what_the_learner_says(kind: str, script: Script, tmp_path: Path) -> None:
    task = TASKS[kind]()
    learner, drawn = headrace.Learner(task), events(task, 160)
    learner.predict_then_learn(drawn[:120])
    learner.save(tmp_path / "saved.hr")
    (tmp_path / "events.json").write_text(json.dumps(drawn[120:]))
    told = script(
        "tensorflow", "tensorflow_export", tmp_path / "saved.hr", tmp_path / "events.json", tmp_path
    )
    said = learner.predict(drawn[120:])
    name = "probabilities" if task.spec.classes else "prediction"
    assert "XlaCallModule" not in told["operations"]
    np.testing.assert_allclose(told["tf"][name], said[name].to_pylist(), atol=1e-5)
    if kind == "words":  # a number is counted from an origin: there was a stray one at first
        assert "cannot be written as tflite: its numbers are counted" in told["refused"]
    else:
        np.testing.assert_allclose(told["tflite"][name], said[name].to_pylist(), atol=1e-4)
