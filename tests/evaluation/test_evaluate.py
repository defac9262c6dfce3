from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.model.confidence import Gains, bounded
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.evaluation.infer import describe, infer, infer_file, to_toml
from headrace.stream.evaluation.plot import Curve
from headrace.stream.task import Task, parse, validate
from headrace.stream.task.features import Number

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 6,000 rows whose label is a > b, from row 4,000 a coin flip; one row is broken."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "turning.csv"
    lines = ["when,a,b,color,note,y"]
    for row in range(6000):
        a, b = rng.normal(size=2).round(4)
        up = a > b if row < 4000 else rng.random() < 0.5
        color = ("red", "green", "blue")[row % 3]
        lines.append(
            f"{1714564800 + 60 * row},{a},{b},{color},line of text {row},{'up' if up else 'down'}"
        )
    lines[3001] = lines[3001].replace(",", ",oops", 1)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_types_are_inferred_and_written_as_a_task_file(turning: Path) -> None:
    task = infer_file(turning, "y", time="when", drop=["color"])
    kinds = {name: feature.kind for name, feature in task.features.items()}
    assert kinds == {"a": "number", "b": "number", "note": "text"}
    assert task.target.classes == ("down", "up")
    assert task.calendar == ("hour", "weekday", "year")
    assert parse(to_toml(task), "again") == task
    assert "down, up" in describe(task)[0]


def test_a_number_with_many_values_is_a_regression() -> None:
    rows: list[dict[str, Any]]
    rows = [{"id": n, "deep": {"x.y": n * 0.5}, "target": n * 1.5} for n in range(100)]
    task = infer(rows, "t", "target")
    assert task.target.kind == "regress"
    assert task.input.id == "id"
    number = task.features["deep.x.y"]
    assert isinstance(number, Number) and number.field == "/deep/x.y"
    assert infer([{**row, "target": row["id"] % 3} for row in rows], "t", "target").target.classes


def test_a_list_is_a_category_of_several_values() -> None:
    rows = [
        {"id": n, "tags": ["a", n % 3], "deep": [[1]], "vector": [0.5, 1], "y": n % 2}
        for n in range(100)
    ]
    task = infer(rows, "t", "y")
    assert {
        name: each.model_dump(exclude_defaults=True) for name, each in task.features.items()
    } == {"tags": {"kind": "category", "several": True}}
    assert parse(to_toml(task), "again") == task
    with pytest.raises(UsageError, match="tags: a list, expected a single value"):
        infer(rows, "t", "tags")
    with pytest.raises(UsageError, match="tags: a list, expected a single value"):
        infer(rows, "t", "y", entity="tags")


def test_a_missing_column_is_named(turning: Path) -> None:
    with pytest.raises(UsageError, match="--target z: no such column; there are when, a, b"):
        infer_file(turning, "z")
    rows = [{"when": n, "price": n % 7, "place": {"city": "ab"[n % 2]}} for n in range(40)]
    wrong: dict[str, dict[str, Any]] = {
        "--time wehn: no such column; did you mean 'when'? there are when": {"time": "wehn"},
        "--entity place/city: no such column; did you mean '/place/city'?": {
            "entity": "place/city"
        },
        "--drop Price: no such column; did you mean 'price'?": {"drop": ["when", "Price"]},
    }
    for words, options in wrong.items():
        with pytest.raises(UsageError, match=re.escape(words)):
            infer(rows, "t", "price", **options)
    with pytest.raises(UsageError, match=r"--target prize: no such column; did you mean 'price'\?"):
        infer(rows, "t", "prize")


def test_evaluate_scores_learns_and_finds_the_drift(turning: Path) -> None:
    task = infer_file(turning, "y", time="when", drop=["note"])
    found = evaluate(task, turning).as_json()
    json.dumps(found)
    assert (found["events"], found["rejected"], found["learned"]) == (6000, 1, 5999)
    assert found["reject_codes"] == {"schema": 1}
    assert found["metrics"]["window"]["accuracy"] < 0.6
    assert set(found["baselines"]) == {"no_change", "majority"}
    best = max(b["all"]["accuracy"] for b in found["baselines"].values())
    assert found["metrics"]["all"]["accuracy"] > best + 0.2
    alarms = [drift["at"] for drift in found["drifts"] if drift["at"] >= 4000]
    assert alarms
    assert min(alarms) < 4200
    assert "boost" in {step["action"] for step in found["ladder"]}
    assert found["peak_rss_mb"] > 50


def test_evaluate_again_is_the_same_and_a_limit_is_a_prefix(turning: Path) -> None:
    task = infer_file(turning, "y", drop=["note", "color"])
    whole, again = evaluate(task, turning), evaluate(task, turning)
    assert whole.metrics == again.metrics
    assert whole.drifts == again.drifts
    assert evaluate(task, turning, limit=1000).events == 1000


def test_json_lines_give_the_same_as_csv(turning: Path, tmp_path: Path) -> None:
    from headrace.stream.formats import files

    lines = tmp_path / "turning.jsonl"
    lines.write_bytes(b"".join(row + b"\n" for row in files.read(turning)))
    task = infer_file(turning, "y", drop=["note"])
    assert evaluate(task, lines).metrics == evaluate(task, turning).metrics


def test_convolutions_learn_digits_anew_when_they_change_names(tmp_path: Path) -> None:
    from headrace.producers.generators import Drift, image

    passes = tmp_path / "digits.jsonl"
    events = islice(image(seed=1, drift=Drift("abrupt", 3594)), 5391)
    passes.write_bytes(b"\n".join(event.value for event in events))
    text = (EXAMPLES / "digits.toml").read_text() + "[drift]\ndetectors = ['adwin']\n[model]\n"
    found = evaluate(parse(text + "neighbours = 0", "t"), passes)
    linear = evaluate(parse(text + "neighbours = 0\nnetwork = 'mlp'\nhidden = []", "t"), passes)
    assert (found.learned, found.rejected) == (5391, 0)
    alarms = [alarm for alarm in found.drifts if alarm["at"] >= 3594]
    assert alarms[0]["at"] < 3794
    assert alarms[0]["after"] > alarms[0]["before"] + 0.1
    recovered, straight = (each.metrics["window"]["accuracy"] for each in (found, linear))
    assert recovered > 0.93
    assert recovered > straight + 0.02


def test_a_file_without_a_column_of_the_task_is_refused(turning: Path, tmp_path: Path) -> None:
    task = infer_file(turning, "y")
    other = tmp_path / "other.csv"
    other.write_text("a,y\n1,up\n")
    with pytest.raises(UsageError, match=r"no column 'when'|no column 'b' for features\.b"):
        evaluate(task, other)


SMALL = {"hidden": [8], "learning_rate": 0.01, "neighbours": 0}


def test_an_alarm_names_the_input_that_moved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5000))
    label = np.where(np.arange(5000) < 4000, a > 0, b > 0)
    a[4000:] += 4.0
    path = tmp_path / "moved.csv"
    lines = [f"{x:.4f},{y:.4f},{int(z)}" for x, y, z in zip(a, b, label, strict=True)]
    path.write_text("\n".join(["a,b,y", *lines]))
    found = evaluate(small(infer_file(path, "y")), path).drifts
    first = next(alarm for alarm in found if alarm["at"] >= 4000)
    assert first["moved"][0] == "a"
    assert "b" not in first["moved"]


def small(task: Task, **changes: Any) -> Task:
    """Return a task with a small model, and some of its tables changed."""
    table = task.model_dump(mode="json", exclude_unset=True) | {"model": SMALL}
    return validate(table | changes, "small")


def recomputed(file: Path, tasks: tuple[Task, Task], place: Path) -> tuple[float, int, int]:
    """Pair two traces by hand: the mean gain, the pairs, and the rows that one alone scored."""
    lines = []
    for number, task in enumerate(tasks):
        evaluate(task, file, trace=place / f"{number}.parquet")
        lines.append(pq.read_table(place / f"{number}.parquet").to_pylist())
    gains, alone = [], 0
    for first, second in zip(*lines, strict=True):
        alone += first["scored"] != second["scored"]
        if first["scored"] and second["scored"]:
            wrong = [line["prediction"] != line["label"] for line in (first, second)]
            gains.append(wrong[0] - wrong[1])
    return float(np.mean(gains)), len(gains), alone


def test_two_tasks_are_compared_row_by_row(turning: Path, tmp_path: Path) -> None:
    """The rival lacks the column with the broken cell, and reads its ids from another one."""
    task = small(infer_file(turning, "y", drop=["note", "color", "when"]))
    features = {"b": {"kind": "number"}, "note": {"kind": "text", "max_tokens": 8}}
    other = small(task, features=features, input={"topic": "e", "id": "when"})
    found = evaluate(task, turning, other=other)
    again, alone = evaluate(other, turning), found.comparison
    assert alone is not None
    assert found.metrics == evaluate(task, turning).metrics
    assert (alone.metrics, alone.baselines) == (again.metrics, again.baselines)
    assert (alone.gain, alone.pairs, alone.alone) == recomputed(turning, (task, other), tmp_path)
    assert alone.alone == 1
    low, high = map(float, bounded(Gains(alone.pairs, alone.gain * alone.pairs, 0.0)))
    assert alone.low is not None and alone.high is not None
    assert alone.high - alone.low > high - low
    assert alone.low < alone.gain < alone.high < 0
    assert alone.verdict == "worse"
    said = json.loads(json.dumps(found.as_json()))["comparison"]
    assert said["verdict"] == "worse"
    assert "features.a" in {change.partition(":")[0] for change in said["changes"]}


def test_a_curve_changes_nothing_and_ends_where_the_run_does(turning: Path) -> None:
    task = small(infer_file(turning, "y", drop=["note", "color"]))
    other = small(task, topics={"partitions": 2})
    curve = Curve()
    found = evaluate(task, turning, other=other, curve=curve)
    whole = evaluate(task, turning)
    assert (found.metrics, found.drifts) == (whole.metrics, whole.drifts)
    assert [point.events for point in curve.points] == [*range(64, 6000, 64), 6000]
    last = curve.points[-1]
    assert last.report["all"] == whole.metrics["all"]
    assert last.lead is not None
    assert (last.lead.pairs, last.lead.gain, last.lead.verdict) == (5999, 0, "no difference shown")
    pairs = [point.lead.pairs for point in curve.points if point.lead]
    assert pairs[:3] == [64, 128, 192]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"field": "a", "kind": "regress"}, "target.field is 'a' there and 'y' here"),
        ({"field": "y", "kind": "regress"}, "target.kind is 'regress' there and 'classify' here"),
    ],
)
def test_tasks_that_predict_different_things_are_not_compared(
    turning: Path, target: dict[str, str], words: str
) -> None:
    task = infer_file(turning, "y", drop=["note", "a"])
    with pytest.raises(UsageError, match=words):
        evaluate(task, turning, other=small(task, target=target))


def test_numbers_are_compared_by_their_absolute_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = tmp_path / "rows.csv"
    values = rng.normal(size=(3000, 2)).round(3)
    rows.write_text("a,b,y\n" + "".join(f"{a},{b},{100 * a + 20 * b}\n" for a, b in values))
    task = small(infer_file(rows, "y", kind="regress", drop=["b"]))
    other = small(task, features={"a": {"kind": "number"}, "b": {"kind": "number"}})
    found = evaluate(task, rows, other=other).comparison
    assert found is not None
    gain = -(found.differences["all"]["mae"] or 0)
    assert found.gain == pytest.approx(gain, rel=1e-4)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.gain < found.high
    assert found.verdict == "better"
    few = evaluate(task, rows, other=other, limit=50).comparison
    assert few is not None
    assert (few.low, few.high, few.verdict) == (None, None, "no difference shown")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_the_command_compares_draws_and_traces(turning: Path, tmp_path: Path) -> None:
    task = small(infer_file(turning, "y", drop=["note", "color"]))
    ours, theirs = tmp_path / "ours.toml", tmp_path / "theirs.toml"
    ours.write_text(to_toml(task))
    theirs.write_text(to_toml(small(task, features={"a": {"kind": "number"}})))
    plot, trace = tmp_path / "plot.html", tmp_path / "trace.parquet"
    options = ("--input", str(turning), "--limit", "1500", "--compare", str(theirs))
    done = run(str(ours), *options, "--plot", str(plot), "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    assert "theirs: features.b:" in done.stdout
    assert "worse: accuracy -" in done.stdout
    assert "over 1,500 events of both" in done.stdout
    assert re.search(r"theirs less ours: -[\d.]+, worse", plot.read_text().replace("\u2212", "-"))
    assert pq.read_metadata(trace).num_rows == 1500
    for option, name in (("--plot", "plot.pdf"), ("--trace", "trace.csv")):
        done = run(str(ours), "--input", str(turning), option, str(tmp_path / name))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name}: expected a name that ends with ." in done.stderr
