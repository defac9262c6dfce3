from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import doctor
from headrace.stream.broker import launch
from headrace.stream.errors import BrokerError
from headrace.stream.kafka import diagnosis
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.task import load
from tests.support.events import task_text
from tests.support.hostile import Run
from tests.support.secured import Secured


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(task_text(f"doc-{uuid.uuid4().hex[:8]}"))
    return path


def findings(run: Run, *arguments: str | Path, code: int) -> dict[str, list[dict[str, Any]]]:
    """Return what was found by name."""
    done = run("doctor", *arguments, "--json").is_safe()
    assert done.code == code, done
    [told] = done.values
    found: dict[str, list[dict[str, Any]]] = {}
    for each in told["findings"]:
        found.setdefault(each["name"], []).append(each)
        assert each["state"] != "missing" or each["do"] or each["name"] == "topic"
    missing = [each for every in found.values() for each in every if each["state"] == "missing"]
    assert told["missing"] == len(missing)
    assert bool(missing) == bool(code)
    return found


def test_without_a_kafka_it_says_what_starting_one_takes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_PORT", 19_471)
    found = findings(run, code=0)
    assert found["Java"][0]["state"] == "good"
    assert "headrace up" in found["Kafka"][0]["do"]
    assert found["port"][0]["told"] == "19471 is free"


def test_what_is_missing_is_told_with_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Path:
        raise BrokerError("the embedded Kafka needs Java")

    monkeypatch.setattr(doctor, "DEFAULT_PORT", 19_471)
    monkeypatch.setattr(doctor, "LEAST_FREE", 1 << 60)
    monkeypatch.setattr(launch, "find_java", gone)
    found = findings(run, code=1)
    assert "headrace[local]" in found["Java"][0]["do"]
    assert "XDG_DATA_HOME" in found["disk"][0]["do"]


def test_a_kafka_that_does_not_answer_and_a_wrong_task_are_told(run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("name = 1")
    found = findings(run, wrong, "-b", "127.0.0.1:1", code=1)
    assert found["Kafka"][0]["told"] == "no Kafka answers at 127.0.0.1:1 (Connection refused)"
    assert found["task"][0]["told"].startswith(f"{wrong}:1:1: name = 1: expected")


def test_what_listens_and_is_no_kafka_is_told_with_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "ASK_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(doctor, "DEFAULT_PORT", port)
        found = findings(run, code=1)
        assert found["Kafka"][0]["told"].startswith(f"127.0.0.1:{port} takes connections")
        assert "headrace up --port" in found["Kafka"][0]["do"]
        found = findings(run, "-b", f"127.0.0.1:{port}", code=1)
        assert "whether that is its address" in found["Kafka"][0]["do"]


def test_directories_that_cannot_be_written_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write whatever the mode says, so that it is the kernel's answer that is given."""
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: tmp_path not in Path(path).parents and access(path, mode)
    )
    monkeypatch.setattr(doctor, "DEFAULT_PORT", 19_471)
    for name in ("data", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    found = findings(run, code=1)
    assert found["data"][0]["told"].startswith(f"{tmp_path / 'data'} cannot be written")
    assert "XDG_DATA_HOME" in found["data"][0]["do"]
    assert found["cache"][0]["state"] == "optional"
    assert found["Kafka's jars"][0]["state"] == "missing"
    assert "XDG_CACHE_HOME" in found["Kafka's jars"][0]["do"]
    monkeypatch.setenv("HEADRACE_STATE", "s3://bucket/state")
    assert findings(run, code=1)["data"][0]["state"] == "optional"


def test_for_a_person_each_line_has_its_way_out(run: Run) -> None:
    done = run("doctor", "-b", "127.0.0.1:1").is_safe()
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 missing")
    [at] = [at for at, line in enumerate(done.out.splitlines()) if line.startswith("✗ Kafka")]
    assert "→ start one with `headrace up`" in done.out.splitlines()[at + 1]


@pytest.mark.kafka
def test_the_topics_of_a_task_are_looked_for(run: Run, kafka: KafkaConnection, task: Path) -> None:
    found = findings(run, task, "-b", kafka.servers, code=1)
    specs = topic_specs(load(task))
    assert {each["state"] for each in found["topic"]} == {"missing"}
    assert len(found["topic"]) == len(specs)
    ensure(kafka, specs)
    found = findings(run, task, "-b", kafka.servers, code=0)
    assert {each["state"] for each in found["topic"]} == {"good"}
    [raw] = [each for each in found["topic"] if each["told"].startswith(f"{specs[0].name}:")]
    assert "READ" in raw["told"]
    delete(kafka, [spec.name for spec in specs])


@pytest.mark.kafka
def test_what_a_user_may_not_do_is_named(
    run: Run, secured: Secured, task: Path, tmp_path: Path
) -> None:
    config = secured.write(tmp_path / "client.properties", secured.scram("bob"))
    found = findings(run, task, "--kafka-config", config, code=1)
    assert found["Kafka"][0]["state"] == "good"
    assert all("bob lacks" in each["told"] for each in found["topic"]), found["topic"]


@pytest.mark.kafka
def test_one_mistake_has_one_wording(run: Run, kafka: KafkaConnection, task: Path) -> None:
    told = {
        run("tail", "x", "-b", "127.0.0.1:1").err,
        run("topics", "list", "-b", "127.0.0.1:1").err,
        run("dead-letters", task, "-b", "127.0.0.1:1").err,
    }
    assert {line.partition(" (")[0] for line in told} == {
        "headrace: no Kafka answers at 127.0.0.1:1"
    }
    ensure(kafka, topic_specs(load(task)))
    name = load(task).name
    done = run("tail", f"{name}.prediction", "-b", kafka.servers).is_safe()
    assert done.code == 2
    assert f"has no such topic; did you mean '{name}.predictions'?" in done.err
    done = run("dead-letters", task, "-b", kafka.servers).is_safe()
    assert (done.code, done.out, done.err) == (0, "", f"{name}: no dead letters\n")
