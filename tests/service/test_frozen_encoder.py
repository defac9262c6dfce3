"""A service whose texts go through a frozen encoder: proved, and told when the files change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace
from headrace.stream.audit.verify import verify
from headrace.stream.errors import RecoveryError, TaskError
from headrace.stream.kafka.topic_specs import topic_specs
from tests.support import onnx_models
from tests.support.events import TASK, good
from tests.support.memory_kafka import MemoryKafka

PLAIN = "text = { kind = "
ENCODED = 'text = { encoder = "words", dimensions = 6, kind = '


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    folder = onnx_models.text_model(tmp_path / "words", tail="quantised")
    onnx_models.tokenizer(folder, ["[UNK]", "message", "number", *map(str, range(6))])
    path = tmp_path / "task.toml"
    small = '[model]\nhidden = [4]\nneighbours = 10\n[drift]\nladder = ["boost"]\n'
    path.write_text(TASK.replace(PLAIN, ENCODED) + small)
    return path


def live(task: headrace.Task, kafka: MemoryKafka, state: Path, first: int, last: int) -> None:
    for number in range(first, last):
        kafka.topics[task.input.topic][0].append(good(number))
    assert headrace.Service(task, kafka, state=state).run(drain=True).events == last


def test_it_goes_on_is_proved_and_is_not_learned_with_another_model(
    task_file: Path, tmp_path: Path
) -> None:
    task, state = headrace.Task.load(task_file), tmp_path / "state"
    kafka = MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    live(task, kafka, state, 0, 30)
    live(task, kafka, state, 30, 60)
    assert verify(task, kafka, deep=True).findings == []
    before = headrace.Learner.load(state).predict_one(json.loads(good(3)))
    (tmp_path / "words").rename(tmp_path / "moved")
    with pytest.raises(TaskError, match=r"features\.text\.encoder = .*words cannot be read"):
        headrace.Service(task, kafka, state=state).run(drain=True)
    (tmp_path / "moved").rename(tmp_path / "words")
    live(task, kafka, state, 60, 61)
    onnx_models.text_model(tmp_path / "words", onnx_models.table() + np.float32(1))
    for start in (task, headrace.Task.load(task_file)):
        with pytest.raises(RecoveryError, match=r"features\.text\.encoder: .*sha256"):
            headrace.Service(start, kafka, state=state).run(drain=True)
    with pytest.raises(RecoveryError, match="an encoder is another than it was"):
        headrace.Learner.load(state)
    assert before is not None


@pytest.mark.parametrize("command", ["check", "evaluate", "learn", "normalize"])
def test_every_command_tells_a_missing_model_in_one_line(command: str, task_file: Path) -> None:
    model = task_file.parent / "words" / "model.onnx"
    model.unlink()
    events = task_file.with_name("events.jsonl")
    events.write_bytes(good(1) + b"\n")
    more = {"check": [], "evaluate": ["-i", str(events)]}.get(command, ["-b", "127.0.0.1:1"])
    done = subprocess.run(
        [sys.executable, "-m", "headrace", command, task_file.name, *more],
        capture_output=True,
        text=True,
        cwd=task_file.parent,
        env=os.environ,
    )
    assert done.returncode == 2
    folder = task_file.parent / "words"
    expected = f"features.text.encoder = {folder}: model.onnx cannot be read: No such file"
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
