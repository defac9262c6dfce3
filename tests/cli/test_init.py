from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.init import compose
from headrace.stream.broker.certificates import Authority
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.task import load
from tests.support.hostile import Run
from tests.support.topics import send

ROWS = "when,load,price\n" + "".join(
    f"2026-01-01T{at // 60:02}:{at % 60:02}:00Z,{at % 24},{at % 24 * 1.5}\n" for at in range(300)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "power.csv").write_text(ROWS)
    return tmp_path


def services(text: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML IS MISSING: compose.yaml is NOT parsed")
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def test_one_command_makes_a_task_that_is_right_and_says_what_comes_next(
    run: Run, folder: Path
) -> None:
    done = run("init", "--target", "price", "--time", "when", "--name", "my power").is_safe()
    assert done.code == 0, done.err
    task = load(folder / "my-power.toml")
    assert (task.name, task.input.topic, task.input.time) == ("my-power", "events.my-power", "when")
    assert task.target.field == "price"
    first, second, third = done.out.splitlines()[1:]
    assert first.split() == ["headrace", "evaluate", "my-power.toml", "--input", "power.csv"]
    assert "headrace up" in second
    assert "headrace topics create my-power.toml" in second
    assert "produce file power.csv --topic events.my-power" in third
    assert "headrace learn my-power.toml" in third
    found = services((folder / "compose.yaml").read_text())
    assert found.keys() == {"kafka", "topics", "learn"}
    assert found["learn"]["command"] == ["learn", "my-power.toml"]
    assert "./my-power.toml:/tasks/my-power.toml:ro" in found["learn"]["volumes"]


@pytest.mark.parametrize("taken", ["power.toml", "compose.yaml"])
def test_nothing_is_overwritten(run: Run, folder: Path, taken: str) -> None:
    (folder / taken).write_text("mine")
    done = run("init", "--target", "price", "--yes").is_safe()
    assert (done.code, done.out) == (2, "")
    assert f"{taken}: there already, and nothing is overwritten" in done.err
    assert ("--name another task" in done.err) == (taken != "compose.yaml")
    assert (folder / taken).read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == sorted({"power.csv", taken})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--target: missing; name the column to predict; power.csv has when, load, price"),
        (["--target", "prize"], "no column 'prize'; did you mean 'price'? it has when, load"),
        (["none.csv", "--target", "price"], "none.csv"),
        (["--target", "price", "--to", "nowhere"], "--to nowhere: there is no such directory"),
    ],
)
def test_what_is_missing_is_told(run: Run, folder: Path, arguments: list[str], told: str) -> None:
    done = run("init", *arguments).is_safe()
    assert (done.code, told in done.err) == (2, True), done.err
    assert [path.name for path in folder.iterdir()] == ["power.csv"]


def test_data_are_read_as_options_say_and_what_is_left_out_is_told(run: Run, folder: Path) -> None:
    rows = "".join(f"n{at};{at % 9 + 1},{at % 7:03};{'ab'[at // 3 % 2]}\n" for at in range(300))
    (folder / "power.csv").write_text(f"ref;load;price\n{rows}")
    done = run("init", "--target", "price", "--decimal", ",", "--max-classes", "4", "--yes")
    assert done.is_safe().code == 0
    text = (folder / "power.toml").read_text()
    assert load(folder / "power.toml").features["load"].model_dump()["decimal"] == ","
    why = "left out: ref (300 different values in 300 rows name the rows)"
    assert why in done.err
    assert "# ref = " in text
    (folder / "power.toml").unlink()
    (folder / "compose.yaml").unlink()
    done = run("init", "--target", "load", "--kind", "classify", "--max-classes", "5", "--yes")
    assert (done.is_safe().code, "expected 2 to 5 classes" in done.err) == (2, True), done.err


def test_of_several_files_one_has_to_be_named(run: Run, folder: Path) -> None:
    (folder / "other.csv").write_text(ROWS)
    done = run("init", "--target", "price").is_safe()
    assert (done.code, "several files: other.csv, power.csv" in done.err) == (2, True), done.err
    (folder / "power.csv").unlink()
    (folder / "other.csv").unlink()
    assert "no file with data" in run("init", "--target", "price").is_safe().err


def test_on_a_terminal_it_asks_until_it_is_understood(folder: Path) -> None:
    answers = ["prize", "price", "", "", "asked"]
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "headrace", "init"]
    child = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    seen = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # it has ended
            break
        seen += part
        if seen.endswith((b"? ", b"] ")) and answers:  # notes end with their lines
            os.write(terminal, f"{answers.pop(0)}\n".encode())
    os.close(terminal)
    assert child.wait() == 0, seen.decode()
    assert b"there is no 'prize'; did you mean 'price'?" in seen
    assert load(folder / "asked.toml").target.field == "price"


def test_a_kafka_that_is_there_is_used(folder: Path) -> None:
    task = load(Path(__file__).parents[2] / "examples/spam.toml")
    far = compose(task, connect("kafka-1:9093"), Path("spam.toml"))
    assert services(far).keys() == {"topics", "learn"}
    assert "network_mode" not in far
    assert 'KAFKA_BOOTSTRAP: "kafka-1:9093"' in far
    assert "network_mode: host" in compose(task, connect("127.0.0.1:9092"), Path("spam.toml"))


@pytest.mark.kafka
def test_a_topic_is_a_start_too(
    kafka: KafkaConnection, topic: Callable[..., str], run: Run, tmp_path: Path
) -> None:
    name = topic("power")
    events = ({"id": at, "load": at % 7, "price": at % 7 + 0.5} for at in range(99))
    send(kafka, name, [json.dumps(event).encode() for event in events])
    arguments = ("init", name, "--target", "price", "--to", tmp_path, "-b", kafka.servers)
    done = run(*arguments, "--name", f"t{uuid.uuid4().hex[:6]}").is_safe()
    assert done.code == 0, done.err
    [path] = tmp_path.glob("*.toml")
    assert load(path).input.topic == name
    assert [line.split()[1] for line in done.out.splitlines()[1:]] == ["topics", "doctor", "learn"]


def test_what_a_kafka_asks_of_clients_goes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "canary-secret")
    certificate = tmp_path / "certs/ca.pem"
    certificate.parent.mkdir()
    certificate.write_bytes(Authority("somebody").certificate)
    config = tmp_path / "client.properties"
    config.write_text(
        "security.protocol=sasl_ssl\nsasl.mechanism=PLAIN\nsasl.username=a\n"
        "ssl.ca.location=certs/ca.pem\n"
    )
    task = load(Path(__file__).parents[2] / "examples/spam.toml")
    text = compose(task, connect("kafka-1:9093", config), Path("spam.toml"), config)
    learn = services(text)["learn"]
    assert learn["environment"]["HEADRACE_KAFKA_CONFIG"] == str(config)
    assert f"{config}:{config}:ro" in learn["volumes"]
    assert f"{certificate}:/tasks/certs/ca.pem:ro" in learn["volumes"]
    assert learn["environment"]["HEADRACE_KAFKA_SASL_PASSWORD"] is None  # docker passes it on
    assert "canary-secret" not in text
    assert "chown 10001 FILE" in text


def test_what_is_left_out_is_told_and_stands_in_the_file(run: Run, folder: Path) -> None:
    rows = "".join(f"{at},x{at}y{at * 7919 % 101},{at % 24}\n" for at in range(300))
    (folder / "power.csv").write_text(f"load,ref,price\n{rows}")
    done = run("init", "--target", "price", "--yes").is_safe()
    assert done.code == 0, done.err
    assert "left out: ref (" in done.err
    assert "# ref = {" in (folder / "power.toml").read_text()
