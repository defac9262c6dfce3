"""A project of docker compose that a test has for itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection

ROOT = Path(__file__).parents[2]
UP_S = 900  # the image is built, and JAX compiles three times
EVENTS = {"pm25": "events.sensor", "hackernews": "events.social", "spam": "events.text"}
LEARNERS = {f"learn-{task}" for task in EVENTS}
PRODUCERS = {"produce-sensor", "produce-social", "produce-text"}
OURS = {"normalize", *LEARNERS, *PRODUCERS}
SLOW = "takes connections, and does not answer"  # a Kafka on a busy machine
CHECKED = {"kafka", "normalize", *LEARNERS}


@dataclass(frozen=True)
class Compose:
    """Hold a project of this test alone, so that it meets nobody's containers or volumes."""

    project: str
    port: int
    file: str

    @property
    def kafka(self) -> KafkaConnection:
        return KafkaConnection(f"127.0.0.1:{self.port}")

    def __call__(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> str:
        done = subprocess.run(
            ["docker", "compose", "-f", self.file, "--project-name", self.project, *arguments],
            cwd=ROOT,
            env=os.environ | {"HEADRACE_PORT": str(self.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            logs = "" if arguments[0] == "logs" else self("logs", "--tail", "30", check=False)
            pytest.fail(f"docker compose {' '.join(arguments)}:\n{done.stdout}\n{logs}")
        return done.stdout

    def services(self) -> dict[str, dict[str, Any]]:
        """Return what `ps` says of each service, those that have ended included."""
        lines = self("ps", "--all", "--format", "json").splitlines()
        return {found["Service"]: found for found in map(json.loads, lines)}

    def restarts(self) -> dict[str, int]:
        """Count how often the engine has started each container again."""
        names = [found["Name"] for found in self.services().values()]
        command = ["docker", "inspect", "--format", "{{.Name}} {{.RestartCount}}", *names]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {name: int(count) for name, count in map(str.split, said.splitlines())}


@contextmanager
def started(file: str) -> Iterator[Compose]:
    """Build and start what a compose file says, on a free port; stop it and forget its data."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    project = Compose(f"headrace-test-{uuid.uuid4().hex[:8]}", port, file)
    try:
        project("up", "--build", "--detach", "--wait", timeout_s=UP_S)
        yield project
    finally:
        project("down", "--volumes", "--timeout", "5", check=False)


def assert_all_run(compose: Compose, once: set[str]) -> None:
    """Check that every part runs, healthy, not as root, and has not been started again.

    But for one that has said that Kafka is slow to let it in.

    Args:
        once: services that have done their work.
    """
    services = compose.services()
    assert set(services) == {"kafka", *once, *OURS}
    for name in once:
        assert (services[name]["State"], services[name]["ExitCode"]) == ("exited", 0)
    for name in ("kafka", *OURS):
        assert services[name]["State"] == "running", services[name]
        assert services[name]["Health"] == ("healthy" if name in CHECKED else ""), services[name]
        assert int(compose("exec", "-T", name, "id", "-u")) != 0
    times = compose.restarts()
    again = []
    for name, found in services.items():
        waited = compose("logs", name).count(SLOW)
        if times[f"/{found['Name']}"] > waited:
            again.append(name)
    assert again == [], compose("logs", "--tail", "50", *again)
