"""Checkpoints in HDFS, Azure Blob and Google Cloud Storage: whole or not there, as in S3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest

import headrace
from headrace.stream.audit.verify import verify
from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.storage import hdfs, open_store
from tests.support.checkpoints import (
    KEY,
    RUN,
    SHAPES,
    assert_keeps_files,
    everything,
    manifest,
    same,
    seq_of,
    state,
)
from tests.support.events import good, task_text
from tests.support.storage_servers import SERVERS, Hdfs, StorageServer, forget_connections, started
from tests.support.topics import read, send

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),  # building the servers takes minutes
    pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"),
]


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StorageServer]:
    running = started(SERVERS[request.param], tmp_path_factory.mktemp(request.param))
    yield running
    running.kill()


@pytest.fixture
def place(
    server: StorageServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Yield an empty place there, by the settings that a user would make."""
    for setting, value in server.environment.items():
        monkeypatch.setenv(setting, value)
    forget_connections(server)
    yield f"{server.place}/{request.node.name.translate(str.maketrans('[]', '--'))}"
    forget_connections(server)


def test_it_keeps_files_as_a_directory_does(place: str) -> None:
    assert_keeps_files(place)


def test_checkpoints_come_back_and_three_are_kept(place: str) -> None:
    checkpoints = Checkpoints(place, run=RUN, key=KEY)
    assert checkpoints.newest(SHAPES, accept=everything) is None
    for seq in (1, 2, 3, 4, 5, 5):
        checkpoints.save(manifest(seq), state(seq))
        assert seq_of(checkpoints) == seq
    assert checkpoints.problems == []
    assert open_store(place).names() == [
        f"{RUN}/{seq:012d}.{kind}" for seq in (3, 4, 5) for kind in ("json", "safetensors")
    ]


def test_what_another_process_has_written_is_seen(place: str) -> None:
    mine, others = Checkpoints(place, run=RUN), Checkpoints(place, run=RUN)
    for seq in (1, 2):
        assert seq_of(mine) == (seq - 1 or None)
        others.save(manifest(seq), state(seq))


def test_of_eight_writers_one_creates_a_file(place: str) -> None:
    together = Barrier(8)
    open_store(place).write("other", b"")

    def create(number: int, name: str) -> int | None:
        store = open_store(place)
        together.wait()
        try:
            store.create(name, b"%d" % number * 1000)
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        for name in map(str, range(5)):
            found = pool.map(create, range(8), [name] * 8)
            (winner,) = [number for number in found if number is not None]
            assert open_store(place).read(name) == b"%d" % winner * 1000
    assert open_store(place).names() == [*map(str, range(5)), "other"]


def test_a_file_is_never_seen_in_part(place: str) -> None:
    store, done = open_store(place), Event()
    versions = [bytes([number]) * (2 << 20) for number in range(12)]
    store.write("file", versions[0])

    def replace() -> None:
        for version in versions:
            open_store(place).write("file", version)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing, seen = pool.submit(replace), set()
        while not done.is_set():
            try:
                found = store.read("file")
            except (FileNotFoundError, RecoveryError):  # it was replaced between two requests
                continue
            assert found in versions
            seen.add(found[0])
        writing.result()
    assert seen
    assert store.read("file") == versions[-1]


def test_a_large_state_comes_back(place: str) -> None:
    large = {"large": np.arange(27 << 20, dtype=np.float32)}
    checkpoints = Checkpoints(place, run=RUN)
    checkpoints.save(manifest(1), large)
    found = checkpoints.newest({"large": ("float32", (27 << 20,))}, accept=everything)
    assert found is not None
    assert same(found[1], large)


def test_a_broken_checkpoint_is_skipped(place: str) -> None:
    checkpoints = Checkpoints(place, run=RUN, key=KEY)
    for seq in (10, 20):
        checkpoints.save(manifest(seq), state(seq))
    store, name = open_store(place), f"{RUN}/000000000020.safetensors"
    whole = store.read(name)
    for broken in (b"", whole[:-1], whole + b" "):
        store.write(name, broken)
        assert seq_of(checkpoints) == 10
        (problem,) = checkpoints.problems
        assert problem.startswith(f"{place}/{name}: ")


def test_what_a_killed_writer_left_is_not_seen_and_swept(
    server: StorageServer, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(server, Hdfs):
        return  # there a file is made by one request
    store = hdfs.HdfsStore(place)

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hdfs, "failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            store.write("run/file", b"new")
    everything_there = super(hdfs.HdfsStore, store).names
    assert store.names() == []
    assert len(everything_there()) == 1
    store.sweep("run/")
    assert everything_there() == []


def test_a_server_that_is_gone_is_told_in_one_line(
    server: StorageServer, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal = started(type(server), tmp_path)
    try:
        for setting, value in mortal.environment.items():
            monkeypatch.setenv(setting, value)
        forget_connections(mortal)
        there = f"{mortal.place}/mortal"
        checkpoints = Checkpoints(there, run=RUN)
        checkpoints.save(manifest(10), state(10))
        mortal.kill()
        calls: list[Callable[[], object]] = [
            lambda: checkpoints.save(manifest(20), state(20)),
            lambda: checkpoints.newest(SHAPES, accept=everything),
        ]
        for call in calls:
            with pytest.raises(RecoveryError, match=f"{there}") as caught:
                call()
            assert "\n" not in str(caught.value)
        mortal.start()
        assert seq_of(checkpoints) == 10
        checkpoints.save(manifest(20), state(20))
        assert seq_of(checkpoints) == 20
    finally:
        mortal.kill()


def test_a_wrong_key_is_told_without_it(
    server: StorageServer, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "AZURE_STORAGE_CONNECTION_STRING" not in server.environment:
        return  # the others ask for none
    setting = server.environment["AZURE_STORAGE_CONNECTION_STRING"]
    canary = "Y2FuYXJ5Y2FuYXJ5"
    before, _, after = setting.partition("AccountKey=")
    wrong = f"{before}AccountKey={canary};{after.partition(';')[2]}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    forget_connections(server)
    with pytest.raises(RecoveryError, match=r"[Aa]uthenti|authoriz|denied") as caught:
        Checkpoints(place, run=RUN).save(manifest(1), state(1))
    assert canary not in str(caught.value)


def test_hdfs_without_its_http_address_is_told_what_to_give() -> None:
    with pytest.raises(UsageError, match="webhdfs://host:9870/path"):
        open_store("hdfs://namenode:8020/state")


def test_a_learner_that_is_killed_goes_on_from_there(
    server: StorageServer, place: str, kafka: KafkaConnection, tmp_path: Path
) -> None:
    path = tmp_path / "task.toml"
    name = f"stored-{type(server).__name__.lower()}"
    path.write_text(task_text(name) + "\n[model]\nhidden = [4]\nneighbours = 10\n")
    task = headrace.Task.load(path)
    ensure(kafka, topic_specs(task))
    send(kafka, task.input.topic, [good(n) for n in range(300)])
    command = [sys.executable, "-m", "headrace", "learn", str(path), "-b", kafka.servers]
    command += ["--state", place, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as learner:
        assert learner.stdout
        for line in learner.stdout:
            if json.loads(line).get("checkpoint_age_s") is not None:
                break
        learner.send_signal(signal.SIGKILL)
    assert learner.returncode == -signal.SIGKILL
    send(kafka, task.input.topic, [good(n) for n in range(300, 400)])
    began_s = time.monotonic()
    done = subprocess.run([*command, "--drain"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the checkpoint of record" in done.stderr, time.monotonic() - began_s
    assert [each["offset"] for each in read(kafka, task.output("predictions"))] == [*range(400)]
    assert verify(task, kafka, deep=True).findings == []
    assert headrace.Learner.load(place).events == 400
