"""What `headrace init` says comes next, done as it says: each line by a shell."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete
from headrace.stream.task import load
from tests.support.hostile import Run
from tests.support.topics import send

pytestmark = [pytest.mark.long, pytest.mark.kafka]
WAIT_S = 240
COUNT = 300
ROWS = [{"id": str(at), "load": at % 24, "price": at % 24 * 1.5} for at in range(COUNT)]


def test_a_file_is_learned_by_the_three_lines(run: Run, tmp_path: Path) -> None:
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS)]
    (tmp_path / "my power.csv").write_text("\n".join(lines) + "\n")
    done = run("init", tmp_path / "my power.csv", "--target", "price", "--to", tmp_path, "--yes")
    assert done.code == 0, done.err
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "HEADRACE_UP_PORT": str(port),
        "KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    with shell(done.out.splitlines()[1:], tmp_path, settings) as said:
        await_predictions(run, "my-power", connect(f"127.0.0.1:{port}"), said)


def test_a_topic_is_learned_by_the_three_lines(
    run: Run, kafka: KafkaConnection, topic: Callable[..., str], tmp_path: Path
) -> None:
    source, name = topic("power"), f"t{uuid.uuid4().hex[:6]}"
    send(kafka, source, [json.dumps(row).encode() for row in ROWS])
    arguments = ("init", source, "--target", "price", "--to", tmp_path, "--name", name)
    done = run(*arguments, "-b", kafka.servers, "--yes")
    assert done.code == 0, done.err
    settings = {"XDG_DATA_HOME": str(tmp_path / "data")}
    try:
        with shell(done.out.splitlines()[1:], tmp_path, settings) as said:
            await_predictions(run, name, kafka, said)
    finally:
        specs = topic_specs(load(tmp_path / f"{name}.toml"))
        delete(kafka, [spec.name for spec in specs if spec.name != source])


@contextmanager
def shell(
    lines: list[str], place: Path, settings: dict[str, str]
) -> Iterator[Callable[[], tuple[int | None, str]]]:
    """Run lines in a shell; give what it has said and its exit code; end all that it began."""
    programs = place / "programs"
    programs.mkdir()
    (programs / "headrace").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m headrace "$@"\n'
    )
    (programs / "headrace").chmod(0o755)
    environment = os.environ | settings | {"PATH": f"{programs}:{os.environ['PATH']}"}
    log = place / "said"
    with log.open("wb") as out:
        child = subprocess.Popen(
            ["bash", "-e", "-c", "\n".join(lines)],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield lambda: (child.poll(), log.read_text("utf-8", "replace"))
    finally:
        try:
            give_up_s = time.monotonic() + 60
            while time.monotonic() < give_up_s:  # a learner ends, then the Kafka that it uses
                os.killpg(child.pid, signal.SIGTERM)
                child.poll()
                time.sleep(0.5)
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def await_predictions(
    run: Run, name: str, kafka: KafkaConnection, said: Callable[[], tuple[int | None, str]]
) -> None:
    """Wait until all rows are predicted, with the ledger in order."""
    give_up_s = time.monotonic() + WAIT_S
    values: list[str] = []
    while len(values) < COUNT and time.monotonic() < give_up_s:
        code, told = said()
        assert code is None, told
        done = run("tail", f"{name}.predictions", "-n", COUNT, "-b", kafka.servers)
        values = [str(json.loads(line.partition(" ")[2])["id"]) for line in done.out.splitlines()]
    assert sorted(values, key=int) == [str(at) for at in range(COUNT)], said()
