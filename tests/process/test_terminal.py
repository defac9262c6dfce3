from __future__ import annotations

import csv
import io
import json
import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from unicodedata import category

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headrace.stream.process.terminal import LogHandler, Terminal, as_json, note, say, visible
from tests.support.hostile import FORBIDDEN, STRINGS, Run, headrace, obeyed

TABLE: dict[str, Any] = {
    "name": "t",
    "input": {"topic": "events.t"},
    "target": {"field": "y", "kind": "classify", "classes": ["a", "b"]},
    "features": {"x": {"kind": "number"}},
    "model": {"hidden": [4], "neighbours": 0},
}
HOSTILE_FILE = "[b]\x1b[1m\u202e.csv"
SMALL = "[model]\nhidden = [4]\nneighbours = 0\nlearning_rate = 0.01\n[drift]\nladder = []\n"
EVERY = [chr(code) for code in range(sys.maxunicode + 1)]


# What is shown of a text


def test_every_character_is_shown_as_it_is_or_as_what_python_and_toml_read_back() -> None:
    for char in EVERY:
        shown = visible(f"a{char}b")
        if char in "\n\t" or category(char) not in FORBIDDEN:
            assert shown == f"a{char}b"
            continue
        assert not obeyed(shown)
        assert shown.encode("ascii").decode("unicode_escape") == f"a{char}b"
        if category(char) != "Cs":
            assert tomllib.loads(f'x = "{shown}"') == {"x": f"a{char}b"}


def test_json_stays_json_of_the_same_value() -> None:
    for at in range(0, len(EVERY), 4096):
        value = {"".join(f"{char}." for char in EVERY[at : at + 4096]): [1.5, None, True]}
        text = as_json(value)
        assert not obeyed(text)
        assert "\n" not in text
        assert json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    ["👩\u200d🔬", "👩🏽\u200d🚒", "❤\ufe0f\u200d🔥", "\u0645\u06cc\u200c\u062e", "क्\u200dष"],
)
def test_joiners_stay_where_writing_needs_them(text: str) -> None:
    assert visible(text) == text
    assert as_json(text) == f'"{text}"'


@pytest.mark.parametrize(
    "text", ["pay\u200dpal", "\u200d🔬", "👩\u200d", "👩\u200d\u200d🔬", "`\u200c`"]
)
def test_joiners_that_hide_are_shown(text: str) -> None:
    assert not obeyed(visible(text))


def test_a_line_is_never_folded_and_never_markup(capfd: pytest.CaptureFixture[str]) -> None:
    line = f"[/red] :smile: {'long ' * 100}"
    note(line)
    say(line)
    assert capfd.readouterr() == (f"{line}\n", f"{line}\n")


def test_what_is_drawn_is_visible_whatever_it_is_in(capfd: pytest.CaptureFixture[str]) -> None:
    table = Table("[/red]\x1b")
    table.add_column(Text("\x9b head"))
    table.add_row("\u202e :smile:", Panel(Text("\x1b[1m"), title=Text("[/b]\x07")))
    table.add_row(f"{'long ' * 60}|", "x\rx")
    Terminal().print(table)
    drawn = capfd.readouterr().out
    assert not obeyed(drawn)
    for shown in (r"[/red]\u001b", r"\u202e :smile:", r"x\u000dx"):
        assert shown in drawn
    assert f"{'long ' * 60}|" in drawn
    assert len({len(line) for line in drawn.rstrip("\n").split("\n")}) == 1  # all are aligned


def test_the_progress_bar_shows_data_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.cli.console import bar

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    with bar("[/red] \x9b", 2, quiet=False) as update:
        update(1, lambda: "[/min] \x07 :smile:")
    drawn = screen.getvalue()
    for shown in (r"[/red] \u009b", r"[/min] \u0007 :smile:"):
        assert shown in drawn
    assert "\x9b" not in drawn
    assert "\x07" not in drawn


def test_logs_of_libraries_are_visible(capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("library")
    log.propagate = False
    log.addHandler(handler := LogHandler())
    log.warning("topic %s", "\x1b[31m")
    log.removeHandler(handler)
    assert capfd.readouterr().err == "topic \\u001b[31m\n"


@pytest.mark.parametrize("threaded", [False, True])
def test_a_traceback_is_visible(threaded: bool) -> None:
    import subprocess

    code = "import threading; from headrace.stream.process.terminal import guard; guard()\n"
    code += "def fail(): raise ValueError('\\x1b[31m \\u202e')\n"
    code += "threading.Thread(target=lambda: exit(1)).start()\n"
    code += "threading.Thread(target=fail).start()" if threaded else "fail()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.count("Traceback") == 1
    assert r"ValueError: \u001b[31m \u202e" in done.stderr
    assert not obeyed(done.stderr)


# The commands that need no Kafka


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Return 200 events whose fields, categories and classes are hostile."""
    names = [*STRINGS, "y", "word"]
    return [
        dict(zip(names, [(7 * row + 3 * at) % 11 for at in range(len(STRINGS))], strict=False))
        | {"y": STRINGS[row % len(STRINGS)], "word": STRINGS[row % 5]}
        for row in range(200)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> Path:
    """Write them as files of each kind; one has a hostile name, too."""
    place = tmp_path_factory.mktemp("data[") / "red]"
    place.mkdir()
    names = list(rows[0])
    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t"), (HOSTILE_FILE, ",")):
        with (place / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(names)
            writer.writerows(row.values() for row in rows)
    lines = (json.dumps(row, ensure_ascii=row["word"] == STRINGS[0]) for row in rows)
    (place / "rows.jsonl").write_text("\n".join(lines).replace("\r", "\\r"), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), place / "rows.parquet")
    return place


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_infer_prints_a_task_of_the_very_names(
    run: Run, data: Path, rows: list[dict[str, Any]], name: str
) -> None:
    done = run("infer", data / name, "--target", "y").is_safe()
    assert done.code == 0, done.err
    task = tomllib.loads(done.out)
    stripped = name.endswith("sv")
    assert set(task["features"]) == {"word", *(s.strip() if stripped else s for s in STRINGS)}
    assert set(task["target"]["classes"]) == {row["y"] for row in rows}
    assert "[/red]" in done.err
    assert "flow [/min]" in done.err


def test_a_message_forges_no_second_line(run: Run, data: Path) -> None:
    done = run("infer", data / "rows.csv", "--target", "z").is_safe()
    assert done.code == 2
    assert len(done.err.split("\n")) == 2
    assert r"new\u000aheadrace: all is well" in done.err


def test_evaluate_survives_hostile_names_and_values(run: Run, data: Path, tmp_path: Path) -> None:
    hostile = data / HOSTILE_FILE
    task, other = tmp_path / "[b]\x1b.toml", tmp_path / "[c]\u2066.toml"
    inferred = run("infer", hostile, "--target", "y").out
    task.write_text(f"{inferred}{SMALL}", "utf-8")
    other.write_text(f"{inferred}{SMALL}[lags]\nlabels = 0\n", "utf-8")
    plot, trace = tmp_path / "[p]\x9b.html", tmp_path / "[t]\x9b.parquet"
    files = ("--plot", plot, "--trace", trace, "--compare", other)
    done = run("evaluate", task, "--input", hostile, *files).is_safe()
    assert done.code == 0, done.err
    assert r"[c]\u2066: lags.labels: 1 -> 0" in done.out
    assert r"[b]\u001b" in done.out
    table = pq.read_table(trace)
    assert set(table["label"].to_pylist()) == set(STRINGS)
    as_values = run("evaluate", task, "--input", hostile, "--json", *files).is_safe()
    [found] = as_values.values
    assert (found["events"], found["rejected"]) == (200, 0)


def test_check_says_every_name_and_obeys_none(run: Run, tmp_path: Path) -> None:
    table = {
        **TABLE,
        "input": {"topic": "e", "id": STRINGS[0], "entity": STRINGS[1], "time": STRINGS[2]},
        "target": {
            "field": STRINGS[3],
            "kind": "classify",
            "classes": [*STRINGS],
            "horizon": 1,
        },
        "features": {name: {"kind": "category"} for name in STRINGS},
    }
    path = tmp_path / "task.toml"
    path.write_text(tomli_w.dumps(table), "utf-8")
    done = run("check", path).is_safe()
    assert done.code == 0, done.err
    for name in STRINGS:
        assert visible(name, keep="") in done.out
    assert all(line[:12].rstrip() != "headrace:" for line in done.out.split("\n"))


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_a_task_file_with_it_anywhere_is_refused_in_lines_that_are_safe(
    run: Run, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "task.toml"
    wrong: list[dict[str, Any]] = [
        {text: 1},
        {"name": text},
        {"hash_key_file": text},
        {"calendar": [text]},
        {"input": {"topic": text}},
        {"input": {"topic": "t", text: text}},
        {"input": {"topic": "t", "format": text}},
        {"input": {"topic": "t", "earliest": text}},
        {"target": {"field": "y", "kind": text}},
        {"target": {"field": "y", "kind": "classify", "classes": [text, text]}},
        {"features": {text: {"kind": text}}},
        {"features": {text: {"kind": "number", text: 1}}},
        {"features": {text: {"kind": "number", "min": 2, "max": 1}}},
        {"features": {text: {"kind": "number", "unit": text, "to": "m"}}},
        {"model": {text: {text: text}}},
        {"model": {"network": text}},
        {"drift": {"detectors": [text]}},
    ]
    for part in wrong:
        path.write_text(tomli_w.dumps(TABLE | part), "utf-8")
        done = run("check", path).is_safe()
        assert done.code == 2, (part, done.err)
        assert all(line.startswith("headrace: ") for line in done.err.split("\n")[:-1])
    for broken in (text, f'{text} = ["', f'x = "{text}', f'"""{text}', f"x = {text}"):
        path.write_text(broken, "utf-8", newline="")
        assert run("check", path).is_safe().code == 2


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_files_and_columns_of_that_name_are_refused_in_one_safe_line(
    run: Run, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n1,a\n2,b\n")
    double = tmp_path / "double.csv"
    with double.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[text, text], [1, 2]])
    task = tmp_path / "task.toml"
    task.write_text(tomli_w.dumps(TABLE | {"features": {text: {"kind": "number"}}}), "utf-8")
    for arguments in (
        ["check", f"{text}.toml"],
        ["evaluate", "--input", f"{text}.csv", "--target", "y"],
        ["evaluate", "--input", f"x.{text}", "--target", "y"],
        ["evaluate", "--input", path, "--target", text],
        ["evaluate", "--input", double, "--target", "y"],
        ["evaluate", task, "--input", path],
        ["evaluate", "--input", path, "--target", "y", "--drop", text],
        ["evaluate", "--input", path, "--target", "y", "--plot", text],
        ["evaluate", "--input", path, "--target", "y", "--trace", text],
        ["evaluate", "--input", path, "--target", "y", "--compare", text],
        ["infer", f"{text}/.csv", "--target", "y"],
        ["infer", path, "--target", "y", "--entity", text],
        ["infer", path, "--target", "y", "--time", text],
        ["infer", path, "--target", "y", "--kind", text],
        ["produce", "file", f"{text}.csv"],
        ["produce", text],
        ["produce", "sensor", "--rate", text],
        ["produce", "sea", "--drift", text],
        ["produce", "sensor", "--speed", text, "--bootstrap", "127.0.0.1:1"],
        ["learn", "x.toml", "--from", text],
        ["learn", "x.toml", f"--{text}"],
        ["tail", "x", "-n", text],
        ["replay", task, "--speed", text],
        ["replay", task, "--until", text],
        ["replay", task, "--set", text],
        ["replay", task, "--set", f"model.network={text}"],
        ["replay", task, "--plot", text],
        ["state", task, "--at", text, "--to", "x"],
        ["state", task, "--at", "#1", "--to", "x", "--state-key", text],
        ["bench", text],
        ["bench", "learning", "--streams", text],
        ["topics", text],
        [text],
    ):
        done = run(*arguments).is_safe()
        assert done.code == 2, (arguments, done.err)
        *before, line, end = done.err.split("\n")
        assert (before[:-2], end, done.out) == ([], "", ""), arguments  # what was inferred is told
        assert line.startswith(("headrace", "bench")), done.err


UTF8 = {"PYTHONUTF8": "1"}
PLAIN_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    "env",
    [PLAIN_C, *(UTF8 | {"PYTHONIOENCODING": coding} for coding in ("ascii", "latin-1", "cp1252"))],
    ids=str,
)
def test_an_output_that_is_not_unicode_gets_escapes(tmp_path: Path, env: dict[str, str]) -> None:
    path = tmp_path / "水.csv"
    path.write_text("größe,y\n" + "1,水\n2,土\n" * 10, "utf-8")
    inferred = headrace("infer", path, "--target", "y", **env).is_safe()
    assert inferred.code == 0, inferred.err
    assert tomllib.loads(inferred.out)["target"]["classes"] == ["土", "水"]
    assert "größe" in tomllib.loads(inferred.out)["features"]
    assert headrace("produce", "--help", **env).is_safe().code == 0
    if env is not PLAIN_C:
        return
    task, other = tmp_path / "task.toml", tmp_path / "other.toml"
    task.write_text(f"{inferred.out}{SMALL}", "ascii")
    other.write_text(task.read_text("ascii").replace('"number"', '"category"'), "ascii")
    asked = ("evaluate", task, "--input", path, "--compare", other)
    found = headrace(*asked, "--json", **env).is_safe().values[0]
    (change,) = found["comparison"]["changes"]
    assert change == 'features.größe.kind: "number" -> "category"'
    assert r"gr\u00f6\u00dfe" in headrace(*asked, **env).is_safe().out


def test_an_argument_that_is_no_text_is_named() -> None:
    done = headrace("check", b"\xff.toml".decode("utf-8", "surrogateescape")).is_safe()
    assert done.err == "headrace: \\udcff.toml: cannot be read: No such file or directory\n"


def test_nothing_else_writes_to_a_terminal() -> None:
    root = Path(__file__).parents[2]
    writes = re.compile(r"sys\.std(out|err)\b|\bConsole\(|(?<!\.)\bprint\(")
    found = {
        path.relative_to(root).as_posix()
        for folder in ("stream", "model", "producers", "src/headrace/cli", "src/headrace/demo")
        for path in (root / folder).rglob("*.py")
        if writes.search(path.read_text("utf-8"))
    }
    pipes = {
        "stream/broker/supervisor.py",
        "stream/process/workers.py",
    }  # they speak to their parent alone
    assert found == {"stream/process/terminal.py", *pipes}


@pytest.mark.parametrize(
    ("pipeline", "code", "line"),
    [
        ("{} schema | head -1", 0, ""),
        ("{} --help | head -1", 0, ""),
        ("{} schema >&-", 0, ""),
        ("{} schema >/dev/full", 2, "headrace: the output cannot be written: No space left"),
        (
            "printf 'x,y\\n1,2\\n2,3\\n' >a.csv; {} evaluate --input a.csv --target y >/dev/full",
            2,
            "headrace: the output cannot be written: No space left",
        ),
    ],
)
def test_an_output_that_nobody_takes_is_no_crash(
    pipeline: str, code: int, line: str, tmp_path: Path
) -> None:
    command = pipeline.format(f"{sys.executable} -m headrace") + "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, "Traceback" in said) == (code, False), said
    assert [*said.splitlines(), ""][-1 - bool(said)].startswith(line)
