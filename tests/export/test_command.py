"""`headrace export`: of a service's checkpoint, of a moment of its past, of a saved learner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

import headrace
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from tests.export.test_export import run_onnx
from tests.support.events import good, task_text
from tests.support.hostile import headrace as command

SMALL = "\n[model]\nhidden = [4]\nneighbours = 10\n"


@pytest.fixture(scope="module")
def lived(
    kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, headrace.Task]:
    """Let a service learn twice 100 events, in a folder with its task file."""
    home = tmp_path_factory.mktemp("exported")
    (home / "task.toml").write_text(task_text("exported") + SMALL)
    task = headrace.Task.load(home / "task.toml")
    ensure(kafka, topic_specs(task))
    producer = Producer({"bootstrap.servers": kafka.servers})
    for first in (0, 100):
        for number in range(first, first + 100):
            producer.produce(task.input.topic, good(number))
        producer.flush()
        headrace.Service(task, kafka, state=home / "state").run(drain=True)
    return home, task


def test_a_service_is_exported_as_it_is(
    lived: tuple[Path, headrace.Task], kafka: KafkaConnection, tmp_path: Path
) -> None:
    home, task = lived
    file = tmp_path / "it.onnx"
    done = command(
        *("export", home / "task.toml", "--state", home / "state", "--file", file, "--json")
    )
    assert (done.code, done.err) == (0, "")
    card = json.loads(done.out)["card"]
    learner = headrace.Learner.load(home / "state")
    asked = [json.loads(good(number)) for number in range(200, 230)]
    found = run_onnx(file, learner.arrays(asked))
    said = learner.predict(asked)["probabilities"].to_pylist()
    np.testing.assert_allclose(found["probabilities"], said, atol=1e-5)
    assert card["origin"]["events"] == "200" and card["labels"] == 200
    assert card["origin"]["offsets of the topic, partition:next"] == "0:200"

    earlier = tmp_path / "earlier.onnx"
    done = command(
        *("export", home / "task.toml", "--at", "99", "--file", earlier, "--json"),
        *("--bootstrap", kafka.servers),
    )
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["card"]["labels"] == 100
    replayed = headrace.Learner(task)
    for number in range(100):
        replayed.learn_one(json.loads(good(number)))
    said = replayed.predict(asked)["probabilities"].to_pylist()
    found = run_onnx(earlier, replayed.arrays(asked))
    np.testing.assert_allclose(found["probabilities"], said, atol=1e-5)


def test_what_goes_wrong_is_told_in_a_line(
    lived: tuple[Path, headrace.Task], tmp_path: Path
) -> None:
    home, task = lived
    file, place = home / "task.toml", tmp_path / "it.onnx"
    headrace.Learner(task).save(tmp_path / "saved.hr")
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace("max = 100", "max = 99"))
    for arguments, told in (
        (["--to", "pmml"], "--to pmml: expected one of onnx, stablehlo, tf, tflite"),
        (["--state", str(tmp_path / "none")], "no checkpoint of a service lies there"),
        (["--from", str(tmp_path / "none.hr")], "cannot be read"),
        (["--from", "x", "--at", "9"], "it goes without --from"),
        (["--at", "yesterday", "--bootstrap", "127.0.0.1:1"], "'yesterday'"),
    ):
        done = command("export", file, "--file", place, *arguments)
        assert done.code == 2 and told in done.err.replace("\n", " "), done
        assert "Traceback" not in done.err
    done = command("export", other, "--file", place, "--from", tmp_path / "saved.hr")
    assert done.code == 2 and "of another task than exported: features.x.max" in done.err
    assert not place.exists()
    done = command("export", file, "--file", place, "--from", tmp_path / "saved.hr")
    assert done.code == 0 and place.exists() and "its model card is" in done.out
