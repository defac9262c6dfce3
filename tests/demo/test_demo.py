from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topics import list_topics

pytestmark = pytest.mark.kafka  # it starts brokers of its own

DEMO = (sys.executable, "-c", "from headrace.cli import main; main()", "demo")
TASKS = ("pm25", "hackernews", "spam")


@contextmanager
def demo(*options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a demo in a process group of its own, as a shell does; no Kafka in the environment."""
    env = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*DEMO, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def await_predictions(process: subprocess.Popen[bytes], log: Path) -> list[psutil.Process]:
    """Wait until the demo shows all three learning; give its family."""
    while not all(f"{name:<12}" in log.read_text() for name in TASKS):
        assert process.poll() is None, log.read_text()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    family: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return family


def assert_gone(family: list[psutil.Process]) -> None:
    assert len(family) >= 8, "three producers, three learners, a normaliser and its worker"
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


def test_every_event_is_predicted_or_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with demo("--for", "10", "--rate", "50", "--json", log=log) as process:
        out, _ = process.communicate()
    assert process.returncode == 0, log.read_text()
    [line] = out.decode().splitlines()
    found = json.loads(line)
    assert found["errors"] == []
    assert found["first_prediction_s"] > 0
    assert list(found["tasks"]) == list(TASKS)
    for name, task in found["tasks"].items():
        assert 0 < task["predictions"] == task["events"] - task["dead_letters"], name
        assert task["events"] <= 50 * 11
        assert task["metric"] == ("mae" if name == "pm25" else "accuracy")
        assert task["value"] > 0
        assert task["baseline"] > 0
        assert 0 < task["p50_ms"] <= task["p99_ms"]
        assert task["drift_alarms"] >= 0
    assert log.read_text() == ""


def test_it_runs_on_a_secure_kafka_each_part_as_its_own_user(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with demo("--secure", "--for", "8", "--rate", "50", "--json", log=log) as process:
        out, _ = process.communicate()
    assert process.returncode == 0, log.read_text()
    found = json.loads(out)
    assert found["errors"] == []
    for name, task in found["tasks"].items():
        assert 0 < task["predictions"] == task["events"] - task["dead_letters"], name
    assert log.read_text() == ""


def test_ctrl_c_ends_in_order_and_leaves_a_named_kafka_as_it_was(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    before = list_topics(kafka)
    log = tmp_path / "log"
    with demo("--rate", "50", "--bootstrap", kafka.servers, log=log) as process:
        family = await_predictions(process, log)
        assert len(list_topics(kafka)) > len(before)
        url = log.read_text().partition("to be seen at ")[2].split()[0]
        with urlopen(f"{url}/v1/views") as said:
            views = json.load(said)["views"]
        assert [view["task"].partition("-")[2][9:] for view in views] == [*TASKS]
        assert all(view["point"] and view["trouble"] is None for view in views)
        # a page that is open keeps nobody waiting
        opened = urlopen(f"{url}/v1/tasks/{views[0]['task']}/stream")
        assert opened.readline() == b"event: view\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        out, _ = process.communicate()
    opened.close()
    assert process.returncode == 0, log.read_text()
    summary = out.decode()
    assert all(name in summary for name in (*TASKS, "first prediction after"))
    assert_gone(family)
    assert list_topics(kafka) == before


@pytest.mark.long
def test_nothing_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with demo("--rate", "50", log=log) as process:
        family = await_predictions(process, log)
        homes = {each.cwd() for each in family if "kafka.Kafka" in each.cmdline()}
        process.kill()
        process.communicate()
    assert_gone(family)
    assert len(homes) == 1
    assert not any(map(os.path.exists, homes))


@pytest.mark.long
def test_a_part_that_dies_is_named_and_ends_the_demo(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with demo("--rate", "50", "--bootstrap", kafka.servers, log=log) as process:
        family = await_predictions(process, log)
        learner = next(each for each in family if "headrace.stream.service.learn" in each.cmdline())
        learner.kill()
        process.communicate()
    assert process.returncode == 1
    assert "headrace: learner pm25 ended with exit code -9" in log.read_text()
    assert_gone(family)
