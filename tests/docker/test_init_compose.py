"""The compose.yaml that `headrace init` writes: for a file with a Kafka of its own, and beside it a
second one for a topic of that Kafka."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection, connect
from tests.docker.compose import ROOT, UP_S
from tests.support.hostile import Run

pytestmark = [pytest.mark.long, pytest.mark.timeout(UP_S + 300)]
COUNT = 200
Read = Callable[[KafkaConnection, str, int], list[dict[str, Any]]]


@pytest.fixture
def image() -> Iterator[str]:
    name = f"headrace-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "build", "--quiet", "--tag", name, "."], cwd=ROOT, check=True)
    yield name
    subprocess.run(["docker", "image", "rm", name], check=False)


def test_what_init_writes_learns_a_file_and_then_its_topic(
    run: Run, tmp_path: Path, image: str, read: Read
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = os.environ | {"HEADRACE_IMAGE": image, "HEADRACE_PORT": str(port)}
    folders = [tmp_path / "of-a-file", tmp_path / "of-a-topic"]
    kafka = connect(f"127.0.0.1:{port}")
    unique = uuid.uuid4().hex[:6]

    def compose(folder: Path, *arguments: str) -> None:
        command = ["docker", "compose", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, text=True, timeout=UP_S
        )
        assert done.returncode == 0, done.stderr

    try:
        for folder in folders:
            folder.mkdir()
        rows = "".join(f"{at},{at % 24},{at % 24 * 1.5}\n" for at in range(COUNT))
        (folders[0] / "power.csv").write_text(f"id,load,price\n{rows}")
        asked = ("--target", "price", "--yes", "--name")
        made = run("init", folders[0] / "power.csv", "--to", folders[0], *asked, f"one{unique}")
        assert made.code == 0, made.err
        compose(folders[0], "up", "--detach", "--wait")
        [line] = [
            line.strip("# ").replace("FILE", str(folders[0] / "power.csv")).split()
            for line in (folders[0] / "compose.yaml").read_text().splitlines()
            if line.startswith("#   headrace produce")
        ]
        sent = run(*line[1:-1], kafka.servers)
        assert sent.code == 0, sent.err
        found = read(kafka, f"one{unique}.predictions", COUNT)
        assert [str(each["id"]) for each in found] == [str(at) for at in range(COUNT)]

        source = f"events.one{unique}"
        made = run(
            *("init", source, "--to", folders[1], *asked, f"two{unique}", "-b", kafka.servers)
        )
        assert made.code == 0, made.err
        compose(folders[1], "up", "--detach", "--wait")
        found = read(kafka, f"two{unique}.predictions", COUNT)
        assert [str(each["id"]) for each in found] == [str(at) for at in range(COUNT)]
    finally:
        for folder in reversed(folders):
            if (folder / "compose.yaml").exists():
                compose(folder, "down", "--volumes", "--timeout", "10")
