"""Every file that a command takes, in every state but the right one: one line, exit code 2."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import changed_task
from headrace.stream.task import parse
from tests.support.hostile import Run

TASK = """
name = "t"
[input]
topic = "e"
[target]
field = "y"
kind = "classify"
classes = ["a", "b"]
[features]
x = { kind = "number" }
[model]
hidden = [4]
neighbours = 0
"""
CONTENTS = {
    "empty": b"",
    "blank": b"\n \n",
    "binary": bytes(range(256)) * 8,
    "zeros": bytes(64),
    "deep": b"x=" + b"[" * 100_000,
    "digits": b"x=" + b"1" * 5000 + b"\n",
    "header": b"x,y\n",
    "torn": gzip.compress(os.urandom(4096))[:2000],
}
STATES = ["missing", "directory", "loop", "below a file", "n" * 300, *CONTENTS]
SUFFIXES = (".toml", ".key", ".csv", ".csv.gz", ".tsv", ".jsonl", ".parquet", ".txt")
AT_NO_KAFKA = ("-b", "127.0.0.1:1")
READ = [
    ["check", "{}.toml"],
    ["learn", "{}.toml", *AT_NO_KAFKA],
    ["verify", "{}.toml", *AT_NO_KAFKA],
    ["replay", "{}.toml", *AT_NO_KAFKA],
    ["state", "{}.toml", "--at", "#1", "--to", "made", *AT_NO_KAFKA],
    ["normalize", "{}.toml", *AT_NO_KAFKA],
    ["dead-letters", "{}.toml", *AT_NO_KAFKA],
    ["topics", "create", "{}.toml", *AT_NO_KAFKA],
    ["evaluate", "{}.toml", "--input", "rows.csv"],
    ["evaluate", "task.toml", "--input", "rows.csv", "--compare", "{}.toml"],
    *(
        command
        for suffix in SUFFIXES[2:]
        for command in (
            ["evaluate", "task.toml", "--input", "{}" + suffix],
            ["evaluate", "--input", "{}" + suffix, "--target", "y"],
            ["infer", "./{}" + suffix, "--target", "y", *AT_NO_KAFKA],
            ["produce", "file", "{}" + suffix, *AT_NO_KAFKA],
        )
    ),
]
KEY = ["state", "task.toml", "--at", "#1", "--to", "made", "--state-key", "{}.key", *AT_NO_KAFKA]
LONG_ENOUGH = {"binary", "zeros", "deep", "digits", "torn"}
WRITTEN = [
    ["evaluate", "task.toml", "--input", "rows.csv", "--plot", "{}.html"],
    ["evaluate", "task.toml", "--input", "rows.csv", "--trace", "{}.parquet"],
    ["replay", "task.toml", "--plot", "{}.png", *AT_NO_KAFKA],
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Be in a directory with a good task, good rows, and files in each state."""
    monkeypatch.chdir(tmp_path)
    Path("task.toml").write_text(TASK)
    Path("rows.csv").write_text("x,y\n1,a\n2,b\n")
    Path("below a file").touch()
    for suffix in (*SUFFIXES, ".html", ".png"):
        Path(f"directory{suffix}").mkdir()
        Path(f"loop{suffix}").symlink_to(f"loop{suffix}")
        for name, content in CONTENTS.items():
            Path(f"{name}{suffix}").write_bytes(content)
    before = sorted(tmp_path.iterdir())
    yield tmp_path
    assert sorted(tmp_path.iterdir()) == before, "a command that failed left something"


def named(command: list[str], state: str) -> list[str]:
    return [part.format(f"{state}/x" if state == "below a file" else state) for part in command]


@pytest.mark.parametrize("state", STATES)
def test_a_file_that_cannot_be_read_is_named(run: Run, place: Path, state: str) -> None:
    for command in [*READ, *([KEY] if state not in LONG_ENOUGH else [])]:
        done = run(*named(command, state)).is_safe()
        assert (done.code, done.out) == (2, ""), (command, done)
        lines = done.err.split("\n")[:-1]
        assert len(lines) == 1 or ".toml" in str(command), done.err  # of a task each key is told
        assert all(state[:9] in line for line in lines), done.err


@pytest.mark.parametrize("state", ["directory", "loop", "below a file", "n" * 300])
def test_a_file_that_cannot_be_written_is_told_first(run: Run, place: Path, state: str) -> None:
    for command in WRITTEN:
        done = run(*named(command, state)).is_safe()
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (command, done)
        assert state[:9] in done.err


def test_endless_files_are_refused(run: Run, place: Path) -> None:
    for endless in ("/dev/zero", "/dev/urandom"):
        assert run("check", endless).is_safe().code == 2
        key = ("--state-key", endless, *AT_NO_KAFKA)
        assert run("state", "task.toml", "--at", "#1", "--to", "made", *key).is_safe().code == 2
    Path("zero.csv").symlink_to("/dev/zero")
    Path("pipe.csv").symlink_to("pipe")
    os.mkfifo("pipe")
    try:
        for name in ("zero.csv", "pipe.csv"):
            done = run("evaluate", "task.toml", "--input", name).is_safe()
            assert (done.code, "no plain file" in done.err) == (2, True), done.err
    finally:
        for name in ("zero.csv", "pipe.csv", "pipe"):
            Path(name).unlink()


@pytest.mark.parametrize(
    "setting",
    [
        "#x=1",
        "=1",
        " = 1",
        "x#=1",
        "[model]\nchunk=1",
        "model.chunk=1\nmodel.seed",
        "model={chunk=1},x=",
        "[[model]]",
        "'''=1",
        "model..chunk=1",
        ".".join(["model"] * 5000) + "=1",
        ".".join(["features"] * 20) + "=1",
        "model.chunk",
        "",
        "\x00=1",
        "\udc9b=1",
        "name.x=1",
        "name=",
        "model=1",
        "model.chunk=",
        "model.chunk=32\nx=1",
        "model.chunk=32 #\n[x]",
        "model.chunk=" + "[" * 5000,
        "model.chunk=" + "1" * 5000,
        "model.chunk=1979-13-45",
        "model.chunk=1e999",
        "model.seed=99999999999999999999",
        "topics.retention_hours=99999999999999999999",
        "features.x=1",
        "features.x.kind=nonsense",
        "features={}",
        "input.exclude=[1]",
        "hash_key_file=\x00",
    ],
    ids=lambda setting: ascii(setting)[:30],
)
def test_an_odd_setting_is_one_line(run: Run, place: Path, setting: str) -> None:
    done = run("replay", "task.toml", "--set", setting, *AT_NO_KAFKA).is_safe()
    assert (done.code, done.out) == (2, "")
    assert all("--set" in line or "hash_key" in line for line in done.err.split("\n")[:-1])


@pytest.mark.parametrize(
    ("setting", "learned"),
    [
        ("model.chunk=32 # why", ("model", "chunk", 32)),
        ("'model' . \"chunk\" = 32", ("model", "chunk", 32)),
        ("model.network=linear", ("model", "network", "linear")),
        ("target.classes=['a', 'b']", ("target", "classes", ("a", "b"))),
    ],
)
def test_a_setting_is_read_as_toml_or_as_text(
    setting: str, learned: tuple[str, str, object]
) -> None:
    part, key, value = learned
    assert getattr(getattr(changed_task(parse(TASK, "t"), [setting]), part), key) == value


def test_settings_follow_one_another() -> None:
    asked = ['features."a b".kind=number', 'features."a b".min=1']
    feature = changed_task(parse(TASK, "t"), asked).features["a b"]
    assert feature.model_dump()["min"] == 1.0
    with pytest.raises(UsageError, match="kind is no table"):
        changed_task(parse(TASK, "t"), ["features.x.kind.y=1"])
