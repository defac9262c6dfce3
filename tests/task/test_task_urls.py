"""Task files behind URLs, by fsspec's memory and by a real server that speaks S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

import headrace
from headrace.stream.errors import TaskError, UsageError
from headrace.stream.ledger import fingerprint
from headrace.stream.storage import open_store
from headrace.stream.task import files as tasks
from tests.support.events import good, task_text
from tests.support.s3_server import S3Server, ensure_jar
from tests.support.storage_servers import forget_connections

PLACE = "memory://tasks/of-ours"


@pytest.fixture
def put() -> Iterator[Callable[[bytes], str]]:
    """Yield a function that puts a task file behind a URL."""
    memory = fsspec.filesystem("memory")

    def write(text: bytes) -> str:
        open_store(PLACE).write("task.toml", text)
        return f"{PLACE}/task.toml"

    yield write
    memory.store.clear()


def test_a_task_behind_a_url_is_the_one_of_a_file(
    put: Callable[[bytes], str], tmp_path: Path
) -> None:
    path = tmp_path / "task.toml"
    path.write_text(task_text("there"))
    task = headrace.Task.load(put(path.read_bytes()))
    assert task == headrace.Task.load(path) == headrace.Task.load(path.as_uri())
    assert fingerprint.of_task(task) == fingerprint.of_task(headrace.Task.load(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "memory:///tasks/of-ours/task.toml: not UTF-8 text"),
        (b"a = [", "memory:///tasks/of-ours/task.toml:1:6: not TOML: "),
        (b"name = 'x'", "memory:///tasks/of-ours/task.toml: input: missing"),
        (b"#" * 101, "memory:///tasks/of-ours/task.toml: has more than 0 MiB"),
        (
            task_text("keyed").replace("[input]", "hash_key_file = 'key'\n[input]", 1).encode(),
            "hash_key_file = 'key': expected an absolute path",
        ),
    ],
)
def test_what_is_wrong_is_told_with_the_url(
    put: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, text: bytes, words: str
) -> None:
    if text.startswith(b"#"):
        monkeypatch.setattr(tasks, "MOST_BYTES", 100)
    with pytest.raises(TaskError) as caught:
        headrace.Task.load(put(text))
    assert words in str(caught.value)


def test_an_absolute_key_file_is_one_of_this_machine(
    put: Callable[[bytes], str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    text = task_text("keyed").replace("[input]", f"hash_key_file = '{key}'\n[input]", 1)
    assert headrace.Task.load(put(text.encode())).hash_key_file == key


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        (f"{PLACE}/none.toml", TaskError, "there is no such file"),
        ("memory://tasks/", TaskError, "names no file"),
        ("s3://bucket", TaskError, "names no file"),
        ("hdfs://namenode:8020/task.toml", UsageError, "webhdfs://host:9870/path"),
        ("nothing://a/task.toml", UsageError, "cannot be used"),
    ],
)
def test_a_url_that_names_none_is_told(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        headrace.Task.load(url)


def test_paths_are_read_without_what_reads_urls() -> None:
    code = """import sys, headrace.stream.task
print({"fsspec", "headrace.stream.storage"} & {*sys.modules})"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert not [
        path for path in fingerprint.sources(fingerprint.ROW_TO_STATE) if "storage" in str(path)
    ]


def test_commands_read_a_task_from_s3(tmp_path: Path) -> None:
    try:
        server = S3Server(tmp_path, ensure_jar())
    except (OSError, RuntimeError, ImportError) as error:
        pytest.skip(f"NOT RUN: no S3 server to be had ({error})")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for setting, value in server.environment.items():
                patch.setenv(setting, value)
            forget_connections(server)
            open_store(server.place).write("power/task.toml", task_text("far").encode())
            events = tmp_path / "events.jsonl"
            events.write_bytes(b"".join(good(n) + b"\n" for n in range(200)))
            url = f"{server.place}/power/task.toml"
            for words in (("check", url), ("evaluate", url, "-i", str(events), "--json")):
                done = subprocess.run(
                    [sys.executable, "-m", "headrace", *words],
                    capture_output=True,
                    text=True,
                    env=os.environ,
                )
                assert done.returncode == 0, done.stderr
            missing = [sys.executable, "-m", "headrace", "check", f"{url}.none"]
            done = subprocess.run(missing, capture_output=True, text=True)
            assert done.returncode == 2
            assert done.stderr == f"headrace: {url}.none: there is no such file\n"
    finally:
        server.kill()
        forget_connections(server)
