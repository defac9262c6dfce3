"""`headrace serve`: who may ask, and mistakes that are told before anything is served."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.stream.broker.certificates import Authority
from headrace.stream.errors import ServiceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from tests.support.events import good, task_text
from tests.support.serving import SMALL, small_task
from tests.support.topics import send

pytestmark = pytest.mark.kafka


@pytest.fixture
def path(kafka: KafkaConnection, tmp_path: Path) -> Iterator[Path]:
    """Return the file of a task whose learner released a state."""
    name = f"command-{os.getpid()}-{time.time_ns()}"
    task = small_task(name)
    ensure(kafka, topic_specs(task))
    send(kafka, task.input.topic, [good(number) for number in range(60)])
    safety = Safety(os.environ["HEADRACE_STATE"])
    learn(task, kafka, origin="events", safety=safety, micro_batch=64, release_s=1.0, drain=True)
    place = tmp_path / "task.toml"
    place.write_text(task_text(name) + SMALL)
    yield place
    delete(kafka, [spec.name for spec in topic_specs(task)])


@contextmanager
def served(kafka: KafkaConnection, *arguments: str | Path) -> Iterator[str]:
    """Run the command until the context ends; give the address that it says."""
    command = [sys.executable, "-m", "headrace", "serve", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", "--bootstrap", kafka.servers],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    try:
        said = process.stdout.readline()
        assert said, process.stderr.read()
        yield json.loads(said)["ready"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, process.stderr.read()
        process.stdout.close()
        process.stderr.close()


def asked(client: headrace.Client, task: str) -> dict[str, Any]:
    """Ask until a state was taken over."""
    give_up_s = time.monotonic() + 60
    while True:
        try:
            event: dict[str, Any] = json.loads(good(70))
            return client.predict(task, event)
        except ServiceError as error:
            assert "no release yet" in str(error), error
            assert time.monotonic() < give_up_s
            time.sleep(0.1)


def test_with_mutual_tls_only_clients_that_are_known_are_answered(
    kafka: KafkaConnection, path: Path, tmp_path: Path, run: Any
) -> None:
    ours, other = Authority("ours"), Authority("other")
    files = {"ca": ours.certificate, "strange-ca": other.certificate}
    for name, issued in {
        "server": ours.issue("server", hosts=("127.0.0.1",)),
        "client": ours.issue("client"),
        "stranger": other.issue("client"),
    }.items():
        files |= {name: issued.certificate, f"{name}-key": issued.key}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    options = ("--tls-cert", tmp_path / "server", "--tls-key", tmp_path / "server-key")
    task = headrace.Task.load(path).name
    with served(kafka, path, *options, "--client-ca", tmp_path / "ca") as url:
        assert url.startswith("https://")
        known = ssl.create_default_context(cafile=tmp_path / "ca")
        known.load_cert_chain(tmp_path / "client", tmp_path / "client-key")
        with headrace.Client(url, context=known) as client:
            answer = asked(client, task)
        for name in ("", "stranger"):
            context = ssl.create_default_context(cafile=tmp_path / "ca")
            if name:
                context.load_cert_chain(tmp_path / name, tmp_path / f"{name}-key")
            with headrace.Client(url, context=context) as client, pytest.raises(ServiceError):
                client.describe(task)
        with headrace.Client(url) as client, pytest.raises(ServiceError, match="certificate"):
            client.describe(task)
        tls = ("--tls-ca", tmp_path / "ca", "--tls-cert", tmp_path / "client")
        done = run(
            *("ask", path, good(70).decode(), "--url", url, "--json"),
            *(*tls, "--tls-key", tmp_path / "client-key"),
        )
        assert json.loads(done.out) == answer, done.err


def test_a_service_open_to_others_asks_for_a_token(
    kafka: KafkaConnection, path: Path, tmp_path: Path, run: Any
) -> None:
    secret = "correct-horse-battery"
    (tmp_path / "token").write_text(f"{secret}\n")
    task = headrace.Task.load(path).name
    with served(kafka, path, "--host", "0.0.0.0", "--token-file", tmp_path / "token") as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        with headrace.Client(url, token=secret) as client:
            assert asked(client, task)["prediction"] in ("yes", "no")
        with headrace.Client(url) as client, pytest.raises(ServiceError, match="Bearer"):
            client.describe(task)
        token = ("--token-file", tmp_path / "token")
        assert run("ask", task, good(70).decode(), "--url", url, *token).code == 0
        done = run("ask", task, good(70).decode(), "--url", url)
        assert done.code == 3
        assert secret not in done.err


def test_mistakes_are_told_before_anything_is_served(
    kafka: KafkaConnection, path: Path, tmp_path: Path, run: Any
) -> None:
    (tmp_path / "short").write_text("secret")
    (tmp_path / "odd").write_bytes(b"a token of\nmore lines")
    (tmp_path / "junk").write_text("no certificate")
    junk = tmp_path / "junk"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, words in (
            (("--host", "0.0.0.0"), "open to other machines"),
            (("--port", port), "cannot listen at 127.0.0.1"),
            (("--host", "203.0.113.1"), "open to other machines"),
            (("--token-file", tmp_path / "none"), "--token-file"),
            (("--token-file", tmp_path / "short"), "16"),
            (("--token-file", tmp_path / "odd"), "printable"),
            (("--tls-cert", junk), "go together"),
            (("--client-ca", junk), "needs both"),
            (("--port", "0", "--tls-cert", junk, "--tls-key", junk), "cannot be used"),
        ):
            done = run("serve", path, *options, KAFKA_BOOTSTRAP=kafka.servers)
            assert done.code == 2, (options, done.err)
            assert words in done.err
            assert "Traceback" not in done.err
    done = run("serve", path, path, "--port", "0", KAFKA_BOOTSTRAP=kafka.servers)
    assert done.code == 2
    assert "expected each once" in done.err
