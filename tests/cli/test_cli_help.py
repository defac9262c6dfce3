"""What the command line tells about itself, and how it shows work that takes long."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from headrace.cli.commands import PANELS, app
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.evaluation.file_rows import length
from headrace.stream.evaluation.scores import counted, shown
from headrace.stream.formats import files
from headrace.stream.task import parse
from tests.support.hostile import headrace
from tests.support.plainly import plainly_compiled

__all__ = ["plainly_compiled"]

TASK = """
name = "t"
[input]
topic = "e"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
[model]
hidden = []
neighbours = 0
learning_rate = 0.01
"""


def test_the_help_says_where_to_start_and_what_exit_codes_mean() -> None:
    told = " ".join(headrace("--help", COLUMNS="200").out.split())
    for words in ("Start here", "headrace doctor", "3 no broker", "HEADRACE_LEARN_MICRO_BATCH"):
        assert words in told
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert {*commands} == {name for names in PANELS.values() for name in names}


@pytest.mark.parametrize("width", [60, 140])
def test_help_wraps_with_the_terminal(width: int) -> None:
    told = headrace("archive", "--help", COLUMNS=f"{width}").out
    lines = [line.rstrip() for line in told.splitlines()]
    assert max(map(len, lines)) <= width
    assert "<bool>" not in told
    [begins] = [at for at, line in enumerate(lines) if "Each record stands there once" in line]
    assert len(lines[begins]) > width - 20, "broken by hand"


def test_the_version_is_that_of_the_package() -> None:
    assert headrace("--version").out == f"headrace {version('headrace')}\n"


def test_an_option_may_come_from_the_environment() -> None:
    done = headrace("topics", "list", HEADRACE_TOPICS_LIST_BOOTSTRAP="x", KAFKA_BOOTSTRAP="a b")
    assert "'a b' is no address" in done.err  # a variable of its own comes first
    done = headrace("produce", "sensor", HEADRACE_PRODUCE_LIMIT="0")
    assert (done.code, "'--limit': expected greater than or equal to 1" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("typo", "line"),
    [
        (["lern"], "headrace: No such command 'lern'. Did you mean 'learn'? see `headrace --help`"),
        (["topics", "crate"], "headrace topics: No such command 'crate'. Did you mean 'create'?"),
        (["evaluate", "--traget", "y"], "headrace evaluate: No such option: --traget"),
    ],
)
def test_what_is_nearly_a_command_is_recognised(typo: list[str], line: str) -> None:
    done = headrace(*typo)
    assert (done.code, done.err.startswith(line)) == (2, True), done.err
    assert "--target" in done.err or "Did you mean" in done.err


def test_a_shell_can_complete_commands() -> None:
    done = headrace(_HEADRACE_COMPLETE="complete_bash", COMP_WORDS="headrace eval", COMP_CWORD="1")
    assert done.out.split() == ["evaluate"]


def speaking(body: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this body, with options that go for every command."""
    code = (
        "import logging, sys\n"
        "from headrace.cli import commands\n"
        "from headrace.stream.errors import UsageError\n"
        "from headrace.stream.process.terminal import note, say\n"
        "@commands.app.command()\n"
        f"def speak() -> None: {body}\n"
        f"sys.argv[1:] = {[*options, 'speak']}\n"
        "sys.exit(commands.run())"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


@pytest.mark.parametrize("level", ["debug", "error"])
def test_the_log_level_decides_what_libraries_say(level: str) -> None:
    done = speaking("logging.getLogger('kafka').info('hello\\x1b[2J')", "--log-level", level)
    assert ("INFO kafka: hello\\u001b[2J" in done.stderr) == (level == "debug"), done.stderr


@pytest.mark.parametrize(
    ("options", "env"), [(("--log", "json"), {}), ((), {"HEADRACE_LOG": "json"})]
)
def test_notes_errors_and_logs_can_be_lines_of_json(
    options: tuple[str, ...], env: dict[str, str]
) -> None:
    body = (
        "say('out'); note('a note\\nof two lines\\x1b[2J'); "
        "logging.getLogger('kafka').warning('gone %d', 3); raise UsageError('wrong')"
    )
    done = speaking(body, *options, **env)
    assert (done.returncode, done.stdout) == (2, "out\n")
    assert "\x1b" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(each["level"], each["logger"], each["message"]) for each in lines] == [
        ("info", "headrace", "a note\nof two lines\x1b[2J"),
        ("warning", "kafka", "gone 3"),
        ("error", "headrace", "headrace: wrong"),
    ]
    times = [datetime.fromisoformat(each["time"]) for each in lines]
    assert times == sorted(times) and times[0].tzinfo


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.0000"),
        (1e-7, "1.000e-07"),
        (-0.25, "-0.2500"),
        (99.5, "99.5000"),
        (1234.56, "1,234.6"),
        (61_878_106_620_018.2, "6.188e+13"),
    ],
)
def test_a_score_is_written_so_that_it_can_be_read(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_one_is_no_plural() -> None:
    told = [counted(count, "drift alarm") for count in (0, 1, 2000)]
    assert told == ["0 drift alarms", "1 drift alarm", "2,000 drift alarms"]


@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_estimated_from_the_size_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(files, "_HEAD_BYTES", 1 << 20)
    rows = 200_000
    text = "".join(f"{at},{at * 7919 % 104729},some words\n" for at in range(rows)).encode()
    path = tmp_path / ("rows.csv.gz" if packed else "rows.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    estimate = files.about_rows(path)
    assert estimate == pytest.approx(rows, rel=0.25 if packed else 0.1)
    path.write_text("a,b\n1,2\n") if not packed else path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert files.about_rows(path) is None


def written(form: str, path: Path, rows: int) -> None:
    """Write rows in a form, packed by zstd if its name ends so."""
    kind = form.removesuffix(".zst")
    table = pa.table({"a": [*range(rows)], "b": [n * 7919 % 104729 / 7 for n in range(rows)]})
    out = io.BytesIO()
    if kind in ("arrow", "arrows"):
        make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with make(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=5000)
    elif kind == "avro":
        fastavro = pytest.importorskip("fastavro", reason="fastavro IS MISSING: Avro NOT tried")
        fields = [{"name": "a", "type": "long"}, {"name": "b", "type": "double"}]
        schema = {"type": "record", "name": "r", "fields": fields}
        fastavro.writer(out, fastavro.parse_schema(schema), table.to_pylist())
    else:
        lines = [json.dumps(row) for row in table.to_pylist()]
        text = "\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]"
        out.write(text.encode())
    data = out.getvalue()
    path.write_bytes(pa.compress(data, "zstd", asbytes=True) if form != kind else data)


@pytest.mark.parametrize(
    "form",
    ["arrow", "arrows", "arrows.zst", "avro", "avro.zst", "jsonl.zst", "json", "json.zst"],
)
def test_so_are_those_of_other_forms_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(files, "_HEAD_BYTES", 1 << 20)
    path, more, rows = tmp_path / f"rows.{form}", tmp_path / "more.parquet", 100_000
    written(form, path, rows)
    about = files.about_rows(path)
    assert about == pytest.approx(rows, rel=0.35 if "zst" in form else 0.1)
    pq.write_table(pa.table({"a": [1, 2], "b": [0.5, 1.5]}), more)
    assert files.about_rows([path, more]) == (about or 0) + 2
    assert length([path, more], limit=10) == (10, True)
    if form.startswith(("arrow", "avro")):
        written(form, path, 1234)
        assert files.about_rows(path) == 1234


def test_an_evaluation_that_is_stopped_tells_what_is_known(
    tmp_path: Path, plainly_compiled: None
) -> None:
    path, trace = tmp_path / "rows.csv", tmp_path / "trace.parquet"
    path.write_text("x,y\n" + "".join(f"{at % 7},{at % 7 * 2}\n" for at in range(3000)))
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    found = evaluate(parse(TASK, "t"), path, trace=trace, stop=stop)
    assert 0 < found.events < 3000
    assert found.learned == found.events
    assert found.metrics["all"]["mae"] < 5
    assert not trace.exists()


def test_one_line_changes_in_place_on_a_terminal_and_is_quiet_elsewhere() -> None:
    code = (
        "from headrace.cli.console import status_line\n"
        "from headrace.stream.process.terminal import note\n"
        "with status_line(quiet=False) as update:\n"
        "    for count in range(50): update(f'{count} events')\n"
        "    note('said meanwhile')\n"
    )
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (piped.stdout, piped.stderr) == ("", "said meanwhile\n")
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=env, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "said meanwhile" in seen
    assert seen.count("\n") <= 3, "a line for each change"
