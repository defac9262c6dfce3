"""`evaluate`, `check` and `infer` of rows that are refused, or must not be learned from."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.stream.evaluation.compare import changed_task, without_effect
from headrace.stream.task import parse
from tests.support.hostile import Run
from tests.support.plainly import plainly_compiled

__all__ = ["plainly_compiled"]

TASK = """
name = "t"
[input]
topic = "e"
{input}
[target]
field = "y"
kind = "classify"
classes = ["a", "b"]
{target}
[features]
x = {{ kind = "number" }}
{features}
[model]
hidden = [2]
neighbours = 0
[drift]
detectors = []
ladder = []
[lags]
traces = []
"""
Z = 'z = { kind = "number" }\nw = { kind = "number" }\nx = {'
Write = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a task and rows, and returns the arguments that name them."""

    def written(
        rows: list[Any], input: str = "", target: str = "", features: str = ""
    ) -> list[str]:
        task, file = tmp_path / "t.toml", tmp_path / "rows.jsonl"
        task.write_text(TASK.format(input=input, target=target, features=features))
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        file.write_text("\n".join(lines) + "\n")
        return [str(task), "-i", str(file)]

    return written


def good(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "x": number % 7, "y": "ab"[number // 3 % 2]} | more


REFUSED = {
    "schema": (good(1, x="oops"), "x: 'oops' is text, expected a number or null"),
    "label": (good(2, y="c"), "y: 'c': expected one of a, b"),
    "id": (good(3, id=""), "id: '': expected 1 to 256 characters, or a whole number of 64 bits"),
    "time": (good(4, when="soon"), "when: 'soon': expected RFC 3339 or Unix time from 1900-01-01"),
    "excluded": (good(5, who="s7"), "who: 's7' is among input.exclude"),
    "duplicate_id": (good(0), "id 'e0' came before, within 100000 events"),
    "json": ('{"id": "e6", "x": NaN}', """, in '{"id": "e6", "x": NaN}'"""),
    "duplicate_key": ('{"id": "e7", "x": 1, "x": 2, "when": 1, "who": "a"}', "the key 'x' stands"),
}
MAPPED = 'time = "when"\nentity = "who"\nexclude = ["s7", "s8"]'


def test_each_code_has_one_example_with_row_value_and_expectation(run: Run, write: Write) -> None:
    usual = {"when": 1_700_000_000, "who": "a"}
    rows: list[Any] = [usual | good(0)]
    rows += [usual | row if isinstance(row, dict) else row for row, _ in REFUSED.values()]
    rows += [usual | good(n) for n in range(10, 100)] + [usual | good(100, x="again")]
    named = write(rows, MAPPED)
    done = run("evaluate", *named).is_safe()
    assert done.code == 0
    for place, (code, (_, words)) in enumerate(REFUSED.items(), 2):
        more = " and 1 more" if code == "schema" else ""
        [line] = [line for line in done.out.split("\n") if line.startswith(f"refused ({code})")]
        assert line.startswith(f"refused ({code}), row {place}{more}: "), line
        assert words in line
    assert "warning: 9 of 100 rows (9.0 %) are refused: the scores are those of the o" in done.out
    assert "input.exclude names 's8', and no row of it came; check the spelling" in done.out
    assert "'s7', and no" not in done.out
    [told] = run("evaluate", *named, "--json").values
    assert {each["code"]: each["offset"] for each in told["refusals"]} == {
        code: place for place, code in enumerate(REFUSED, 1)
    }
    assert told["refusals"][0] == {
        "code": "schema",
        "feature": "x",
        "count": 2,
        "partition": 0,
        "offset": 1,
        "place": "row 2",
        "detail": "x: 'oops' is text, expected a number or null",
    }
    assert len(told["warnings"]) == 2
    found = headrace.evaluate(headrace.Task.load(named[0]), named[2])
    assert "refused (schema), row 2 and 1 more: x: 'oops' is text" in repr(found)
    assert found.failure is None


@pytest.mark.parametrize(
    ("rows", "target", "words"),
    [
        ([good(n, x="oops") for n in range(30)], "", "all 30 rows are refused"),
        ([good(n, y=None) for n in range(30)], "", "in the 30 rows that are not refused the"),
        ([good(n) for n in range(5)], "horizon = 9", "nothing was scored: of 5 labels none came"),
    ],
)
def test_nothing_learned_is_no_success(
    run: Run, write: Write, rows: list[Any], target: str, words: str
) -> None:
    named = write(rows, target=target)
    done = run("evaluate", *named).is_safe()
    assert (done.code, words in done.err) == (1, True), done
    assert "accuracy" not in done.out  # no table of dashes
    done = run("evaluate", *named, "--json").is_safe()
    assert (done.code, words in done.err) == (1, True)
    assert done.values[0]["events"] == len(rows)
    if not target:
        done = run("check", *named).is_safe()
        assert (done.code, words in done.err) == (1, True)


def test_a_rival_that_refuses_all_is_told(run: Run, write: Write, tmp_path: Path) -> None:
    named = write([good(n, z="text", w=1) for n in range(50)])
    other = tmp_path / "other.toml"
    other.write_text(Path(named[0]).read_text().replace("x = {", Z))
    done = run("evaluate", *named, "--compare", other).is_safe()
    assert done.code == 1
    assert "other: refused (schema), row 1 and 49 more: z: 'text' is text, expected a" in done.out
    assert "nothing is compared: no row was scored by both tasks" in done.err


def test_leaks_and_new_fields_are_told_by_check_and_evaluate(run: Run, write: Write) -> None:
    rows = [good(n, copy=ord("ab"[n // 3 % 2]), still=1) for n in range(400)]
    for row in rows[300:]:
        row["humidity"] = 1
    named = write(rows, features='copy = { kind = "number" }\nstill = { kind = "number" }')
    leak = "warning: copy: alone tells the target y in 100 % of 400 rows; if it is known only"
    still = "warning: still: the same in all 400 rows, which teaches nothing"
    for command in ("check", "evaluate"):
        done = run(command, *named).is_safe()
        assert done.code == 0
        assert leak in done.out
        assert still in done.out
    assert "humidity: a field that is new in mid-stream, which the task does not re" in done.out
    assert "in 100 rows, the first is row 301" in done.out
    done = run("infer", named[2], "--target", "y").is_safe()
    assert leak in done.err
    assert "[features]" in done.out
    done = run("evaluate", *named, "--drop", "copy,still").is_safe()
    assert f"{named[0]}, changed: features.copy: left out" in done.err
    assert "the target" not in done.out


def test_infer_and_check_read_several_files_and_tell_of_a_row_that_does_not_fit(
    run: Run, tmp_path: Path
) -> None:
    for day in (1, 2):
        text = "".join(f"{n % 7};{'ab'[n // 3 % 2]}\n" for n in range(50))
        (tmp_path / f"day-{day}.csv").write_text(f"x;y\n{text}" + "1;a;9\n" * (day - 1))
    task = tmp_path / "t.toml"
    done = run("infer", tmp_path / "day-1.csv", tmp_path / "day-2.csv", "--target", "y").is_safe()
    task.write_text(done.out)
    assert done.code == 0 and 'name = "day-1"' in done.out
    assert "day-2.csv: columns separated by semicolons" in done.err
    assert "101 rows read, 1 refused, 100 with a label" in done.err
    done = run("check", task, "-i", tmp_path / "day-*.csv").is_safe()
    assert done.code == 0 and "101 rows read, 1 refused, 100 with a label" in done.out
    [refused] = [line for line in done.out.split("\n") if line.startswith("refused (schema)")]
    assert "row 101: text, expected an object: " in refused
    assert refused.endswith("day-2.csv, line 52: 3 cells, expected 2: 1;a;9")
    assert run("init", tmp_path / "day-*.csv", "--target", "y", "--yes", "--to", tmp_path).code == 0


def test_a_task_that_is_told_its_target_is_none(run: Run, write: Write) -> None:
    named = write([good(1)], features='spy = { kind = "category", field = "/y" }')
    done = run("check", named[0]).is_safe()
    assert (done.code, done.out) == (2, "")
    assert "it reads '/y', which is target.field itself: it would be known" in done.err
    named = write([good(1)], input='entity = "y"')
    assert "it reads 'y', which is target.field itself" in run("check", named[0]).err
    named = write([good(1)], target="horizon = 1", features='y = { kind = "category" }')
    assert run("check", named[0]).code == 0


def test_settings_that_are_so_already_are_told() -> None:
    task = parse(TASK.format(input="", target="", features=""), "t")
    settings = ["model.hidden=[2]", "lags.labels=1", "model.seed=1", "model.clip=0", "lags.rows=1"]
    assert changed_task(task, settings).model.seed == 1
    assert without_effect(task, settings) == [
        f"--set {setting}: {setting.partition('=')[0]} is that already, so it changes nothing"
        for setting in ("model.hidden=[2]", "lags.labels=1", "model.clip=0")
    ]


def test_evaluate_reads_texts_as_infer_does(run: Run, tmp_path: Path) -> None:
    path, task = tmp_path / "dates.csv", tmp_path / "t.toml"
    rows = (f"0{n % 9 + 1}/0{n % 7 + 1}/2026;1,{n % 9:03};{'ab'[n // 3 % 2]}" for n in range(300))
    path.write_text("when;x;y\n" + "\n".join(rows) + "\n")
    said = ("--target", "y", "--time", "when", "--decimal", ",", "--dayfirst")
    inferred = run("infer", path, *said).is_safe()
    task.write_text(inferred.out)
    assert "dayfirst = true" in task.read_text()
    assert 'decimal = ","' in task.read_text()
    nowhere = ("--trace", "no.csv")  # refused before anything is compiled
    guessed = run("evaluate", "-i", path, *said, *nowhere).is_safe()
    lines = guessed.err.splitlines()
    assert lines[:4] == inferred.err.splitlines()[:4]
    assert any("decimal" in line and "," in line for line in lines), lines
    done = run("evaluate", task, "-i", path, "--no-dayfirst", *nowhere).is_safe()
    assert f"{task}, changed: input.dayfirst: true -> false" in done.err
    done = run("evaluate", task, "-i", path, "--decimal", ".").is_safe()
    assert (done.code, done.out) == (2, "")
    assert f"--decimal .: {task} says of each number how it is written; set decimal" in done.err


def test_strict_lets_nothing_pass_that_is_left_out_or_refused(
    run: Run, write: Write, plainly_compiled: None
) -> None:
    good_rows = [good(n) for n in range(99)]
    named = write(good_rows)
    assert run("evaluate", *named, "--strict").is_safe().code == 0
    write([*good_rows, good(99, x="oops")])
    done = run("evaluate", *named, "--strict", "--json").is_safe()
    assert (done.code, done.values[0]["learned"]) == (1, 99)
    assert "--strict: 1 line says what is left out, refused or not sure" in done.err
    write([row | {"nested": [[1]]} for row in good_rows])
    done = run("evaluate", *named[1:], "--target", "y", "--strict").is_safe()
    assert (done.code, done.out) == (1, "")
    assert "left out: nested (" in done.err
    assert "--strict: 1 line says" in done.err


def test_options_change_the_first_of_two_tasks_alone(
    run: Run, write: Write, plainly_compiled: None
) -> None:
    rows = [good(n, copy=ord("ab"[n // 3 % 2])) for n in range(400)]
    named = write(rows, features='copy = { kind = "number" }')
    [found] = (
        run("evaluate", *named, "--compare", named[0], "--drop", "copy", "--json").is_safe().values
    )
    assert [line.partition(":")[0] for line in found["comparison"]["changes"]] == ["features.copy"]
    theirs = found["comparison"]["metrics"]["all"]["accuracy"]
    assert theirs > 0.8 > found["metrics"]["all"]["accuracy"]
    text = " ".join(run("evaluate", "--help").out.split())
    assert "Options such as --drop change TASK and never TASK2" in text


def test_ctrl_c_leaves_scores_and_a_plot_of_what_was_read_and_no_part_of_a_trace(
    write: Write, tmp_path: Path
) -> None:
    plot, trace = tmp_path / "p.html", tmp_path / "traces" / "t.parquet"
    trace.parent.mkdir()
    trace.write_bytes(b"of before")
    task = write([good(1)])[0]
    more = [line.encode() + b"\n" for line in map(json.dumps, map(good, range(2000)))]
    arguments = ["evaluate", task, "-i", "-", "--plot", str(plot), "--trace", str(trace)]
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin
        with suppress(BrokenPipeError):
            for turn in range(10_000):
                if turn == 25:  # a pipe holds 64 KiB, and a read takes 256: rows were learned
                    child.send_signal(signal.SIGINT)
                child.stdin.write(b"".join(more))
        out, err = child.communicate()
    assert child.returncode == 130, err
    [events] = re.findall(r"^interrupted after ([0-9,]+) rows: what follows", err.decode(), re.M)
    assert f"{events} events, 2,000 learned" in out.decode()  # ids that came before are refused
    assert f"--trace {trace}: not written, as not every row has its line" in err.decode()
    assert [*trace.parent.iterdir()] == [trace]
    assert trace.read_bytes() == b"of before"
    assert plot.read_text().startswith("<!")


def test_nan_and_infinity_that_count_as_missing_are_told(
    run: Run, write: Write, plainly_compiled: None
) -> None:
    rows: list[Any] = [good(n) for n in range(60)]
    rows += ['{"id": "n1", "x": NaN, "y": "a"}', '{"id": "n2", "x": -Infinity, "y": "b"}']
    named = write(rows, 'non_finite = "missing"')
    told = "NaN or Infinity stands in place of 2 numbers: counts as missing (input.non_finite)"
    for command in ("check", "evaluate"):
        done = run(command, *named).is_safe()
        assert (done.code, done.out.count(told)) == (0, 1), done.out
    [found] = run("evaluate", *named, "--json").is_safe().values
    assert (found["non_finite"], found["learned"], found["rejected"]) == (2, 62, 0)
    assert run("infer", named[2], "--target", "y").is_safe().err.count(told) == 1
    named = write(rows)
    [found] = run("evaluate", *named, "--json").is_safe().values
    assert (found["non_finite"], found["learned"], found["rejected"]) == (0, 60, 2)
