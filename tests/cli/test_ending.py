"""Any command ends soon after it is told to, at any moment, in order, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer

from headrace.stream.audit.verify import verify
from headrace.stream.broker.embedded import Broker, embedded
from headrace.stream.kafka import source
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.process.signals import ENDING
from headrace.stream.service import checkpointer
from headrace.stream.storage.local import LocalStore
from headrace.stream.task import Task, parse
from tests.support.commands import await_line, headrace
from tests.support.events import TASK, good, task_text
from tests.support.hostile import Run
from tests.support.learners import life, records_of
from tests.support.running import Running
from tests.support.topics import send

SOON_S = 8.0  # five, and what a busy machine takes
CSV = Path(__file__).parents[2] / "producers/data/sensor.csv.gz"


@pytest.fixture
def task(kafka: KafkaConnection, tmp_path: Path) -> tuple[Task, Path]:
    name = f"end-{uuid.uuid4().hex[:8]}"
    text = task_text(name)
    path = tmp_path / "task.toml"
    path.write_text(text)
    made = parse(text, str(path))
    ensure(kafka, topic_specs(made))
    return made, path


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Have it end, and give the exit code and what it said."""
    process.send_signal(number)
    assert process.stderr
    said = process.stderr.read()  # to its end
    return process.wait(SOON_S), said


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """Give a Kafka that may be frozen and killed."""
    with embedded() as broker:
        yield broker
        if psutil.pid_exists(broker.pid):
            os.kill(broker.pid, signal.SIGCONT)


def test_a_learner_ends_whenever_it_is_told_to(
    kafka: KafkaConnection, task: tuple[Task, Path]
) -> None:
    """While it imports, compiles, fences, learns again what it knew, and learns on."""
    made, path = task
    chance = random.Random(4)
    codes = []
    for turn in range(8):
        send(kafka, made.input.topic, [good(n) for n in range(400 * turn, 400 * turn + 400)])
        with headrace("learn", str(path), "-b", kafka.servers, "--micro-batch", "16") as learner:
            time.sleep(0.6 + chance.uniform(0, 1) * turn)
            code, said = end(learner, chance.choice(ENDING))
            assert code in (0, 130), said
            assert "Traceback" not in said
            codes.append(code)
    assert life(made, kafka).events == 3200
    assert verify(made, kafka, deep=True).findings == [], codes


def test_a_hangup_ends_what_nohup_does_not_protect() -> None:
    code = (
        "import os, signal, time, sys; protected = sys.argv[1] == 'nohup'\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN if protected else signal.SIG_DFL)\n"
        "from headrace.cli.ending import deadline; deadline.start()\n"
        "os.kill(os.getpid(), signal.SIGHUP); time.sleep(3); sys.exit(77)"
    )
    for how, wanted in (("nohup", 77), ("plain", 130)):
        ended = subprocess.run([sys.executable, "-c", code, how], check=False)
        assert ended.returncode == wanted, how


@pytest.mark.parametrize("moment", ["starting", "learning"])
def test_a_learner_ends_though_kafka_hangs(own_broker: Broker, tmp_path: Path, moment: str) -> None:
    path = tmp_path / "task.toml"
    path.write_text(TASK)
    made = parse(TASK, "t")
    ensure(own_broker.kafka, topic_specs(made))
    send(own_broker.kafka, made.input.topic, [good(n) for n in range(50)])
    command = ("learn", str(path), "-b", own_broker.kafka.servers, "--micro-batch", "16", "--json")
    if moment == "starting":
        os.kill(own_broker.pid, signal.SIGSTOP)
    with headrace(*command) as learner:
        if moment == "starting":
            time.sleep(4)
        else:
            await_line(learner, '"events": 50')
            os.kill(own_broker.pid, signal.SIGSTOP)
            time.sleep(1)
        code, said = end(learner)
    assert code in (3, 5, 130) if moment == "starting" else code in (0, 5), said
    assert "Traceback" not in said


def test_a_slow_last_checkpoint_does_not_hold_up_the_end(
    kafka: KafkaConnection, task: tuple[Task, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = task
    write: Any = LocalStore.write
    writing: list[str] = []

    def slow(self: LocalStore, name: str, data: Any, **what: Any) -> None:
        writing.append(name)
        time.sleep(12)
        write(self, name, data, **what)

    monkeypatch.setattr(LocalStore, "write", slow)
    monkeypatch.setattr(checkpointer, "EVERY_S", 1e9)
    send(kafka, made.input.topic, [good(n) for n in range(50)])
    with Running(made, kafka) as learner:
        learner.wait(lambda progress: progress.events == 50)
        before_s = time.monotonic()
    assert learner.error is None
    assert writing  # it was begun, and is not waited for
    assert time.monotonic() - before_s < 12
    assert not any(record.saved for record in records_of(made, kafka))
    monkeypatch.setattr(LocalStore, "write", write)
    assert life(made, kafka).events == 50


@pytest.mark.parametrize("command", ["evaluate", "verify"])
def test_what_computes_ends_by_ctrl_c(
    kafka: KafkaConnection, task: tuple[Task, Path], command: str
) -> None:
    """XLA's threads used to bring an interpreter down that was on its way out."""
    made, path = task
    if command == "verify":
        send(kafka, made.input.topic, [good(n) for n in range(4000)])
        life(made, kafka, micro_batch=256)
        arguments = ["verify", str(path), "--deep", "-b", kafka.servers]
    else:
        pm25 = Path(__file__).parents[2] / "examples/pm25.toml"
        arguments = ["evaluate", str(pm25), "--input", str(CSV)]
    for turn in range(6):
        with headrace(*arguments) as process:
            time.sleep(1 + turn * 0.9)
            code, said = end(process, signal.SIGINT)
        assert code in (130, 0), f"{code}: {said}"
        assert "Traceback" not in said


def test_up_ends_when_its_kafka_does(tmp_path: Path) -> None:
    with headrace("up", "--port", "19392", "--data", str(tmp_path / "data")) as up:
        await_line(up, "Kafka at")
        children = psutil.Process(up.pid).children(recursive=True)
        (java,) = [each for each in children if "java" in each.name()]
        java.kill()
        assert up.wait(SOON_S) == 3
        assert up.stderr
        assert "Kafka has ended" in up.stderr.read()


def test_a_producer_ends_though_kafka_hangs(own_broker: Broker, tmp_path: Path) -> None:
    made = parse(TASK, "t")
    ensure(own_broker.kafka, topic_specs(made))
    produce = ("produce", "sea", "--topic", made.input.topic, "-b", own_broker.kafka.servers)
    with headrace(*produce, "--rate", "500") as producer:
        give_up_s = time.monotonic() + 60
        while not sum(describe(own_broker.kafka, [made.input.topic])[0].end):
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        os.kill(own_broker.pid, signal.SIGSTOP)
        time.sleep(1)
        code, said = end(producer, signal.SIGINT)
    assert code == 4, said
    assert "not acknowledged" in said or "not all that was sent is acknowledged" in said


def test_the_normaliser_leaves_nothing_behind(
    kafka: KafkaConnection, task: tuple[Task, Path], tmp_path: Path
) -> None:
    _, path = task
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with headrace(
        "normalize", str(path), "-b", kafka.servers, "--json", TMPDIR=str(scratch)
    ) as found:
        await_line(found, json.dumps({"ready": "normalize"}))
        code, said = end(found)
    assert code == 0, said
    assert list(scratch.iterdir()) == []


def test_a_client_that_never_closes_does_not_hold_up_the_end(
    kafka: KafkaConnection, task: tuple[Task, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where librdkafka waits for itself: once in 3,000 closes as an offset is out of range."""
    given_up = threading.Event()

    class Stuck(Consumer):
        def close(self) -> None:
            given_up.wait()
            super().close()

    monkeypatch.setattr(source, "Consumer", Stuck)
    send(kafka, task[0].input.topic, [good(1)])
    begun_s = time.monotonic()
    shown = run("tail", task[0].input.topic, "-b", kafka.servers)
    took_s = time.monotonic() - begun_s
    given_up.set()
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 1
    assert took_s < SOON_S
