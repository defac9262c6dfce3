"""`headrace.Service`: what `headrace learn` does, from a program."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import headrace
from headrace.cli import pipeline
from headrace.stream.audit.replay import replay
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.task import parse
from tests.support.events import TASK, good, task_text
from tests.support.hostile import Run
from tests.support.memory_kafka import MemoryKafka
from tests.support.plainly import plainly_compiled  # noqa: F401
from tests.support.topics import read, send

SMALL = "\n[model]\nhidden = [4]\nneighbours = 10\n"


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    task = parse(TASK + SMALL, "t")
    kafka = MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    notes: list[str] = []
    for start in (0, 30):
        for number in range(start, start + 30):
            kafka.topics[task.input.topic][0].append(good(number))
        service = headrace.Service(task, kafka, state=tmp_path)
        done = service.run(drain=True, on_note=notes.append)
        assert done.events == start + 30
        assert done.report["all"]["accuracy"] is not None
    assert notes[0].startswith("a new run begins")
    assert any("the checkpoint of record" in note for note in notes)
    before = [len(p.values) for parts in kafka.topics.values() for p in parts.values()]
    assert "with 0 events are learned again" in " ".join(service.plan())
    assert before == [len(p.values) for parts in kafka.topics.values() for p in parts.values()]


@pytest.mark.usefixtures("plainly_compiled")
def test_nan_that_counts_as_missing_is_told_at_the_end_and_by_a_replay(tmp_path: Path) -> None:
    task = parse(TASK.replace("[input]", '[input]\nnon_finite = "missing"') + SMALL, "t")
    kafka = MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    for number in range(30):
        changes = {"x": math.nan} if number % 10 == 3 else {}
        kafka.topics[task.input.topic][0].append(good(number, **changes))
    notes: list[str] = []
    service = headrace.Service(task, kafka, state=tmp_path, micro_batch=64)
    done = service.run(drain=True, on_note=notes.append)
    assert (done.events, done.rejected) == (30, 0)
    assert any(note.startswith("NaN or Infinity stands in place of 3 numbers") for note in notes)
    assert replay(task, kafka, capacity=64).as_json()["non_finite"] == 3


def test_the_command_goes_on_where_a_program_ended(
    kafka: KafkaConnection, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "task.toml"
    path.write_text(task_text("service-and-command") + SMALL)
    task = headrace.Task.load(path)
    ensure(kafka, topic_specs(task))
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    state = str(tmp_path / "state")
    assert headrace.Service(path, kafka.servers, state=state).run(drain=True).events == 20
    send(kafka, task.input.topic, [good(n) for n in range(20, 30)])
    done = run("learn", str(path), "-b", kafka.servers, "--state", state, "--drain", "--json")
    assert done.code == 0
    assert json.loads(done.out.splitlines()[-1])["events"] == 30
    assert [line["offset"] for line in read(kafka, task.output("predictions"))] == [*range(30)]


@pytest.mark.usefixtures("plainly_compiled")
def test_a_field_that_no_event_has_is_named(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt target learns nothing, and a misspelt feature is always missing."""
    path, kafka = tmp_path / "task.toml", MemoryKafka()
    text = TASK.replace('field = "label"', 'field = "lable"') + 'wtih = { kind = "number" }\n'
    path.write_text(text + SMALL)
    task = headrace.Task.load(path)
    kafka.make(topic_specs(task), partitions=1)
    monkeypatch.setattr(pipeline, "connection_of", lambda *_: kafka)
    for number in range(30):
        kafka.topics[task.input.topic][0].append(good(number))
    learn = ("learn", str(path), "--state", str(tmp_path / "state"), "--drain")
    done = run(*learn)
    assert done.code == 1
    lines = done.err.splitlines()
    assert f"{task.name}: target: none of 30 events has a value in 'lable'; check its name" in lines
    assert "features.wtih: none of 30 events has a value in 'wtih'" in done.err
    assert done.err.count("none of") == 2
    assert lines[-1] == "headrace: nothing is learned: no label in 30 events"
    assert run(*learn, "--json").values[-1]["learned"] == 0
