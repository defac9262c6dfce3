from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from stream.errors import UsageError
from stream.evaluate import evaluate
from stream.infer import describe, infer, infer_file, to_toml
from stream.task import parse

EXAMPLES = Path(__file__).parent.parent / "examples"


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
    assert "down, up" in describe(task)


def test_a_number_with_many_values_is_a_regression() -> None:
    rows = [{"id": n, "deep": {"x.y": n * 0.5}, "target": n * 1.5} for n in range(100)]
    task = infer(rows, "t", "target")
    assert task.target.kind == "regress"
    assert task.input.id == "id"
    assert task.features["deep.x.y"].field == "/deep/x.y"
    assert infer([{**row, "target": row["id"] % 3} for row in rows], "t", "target").target.classes


def test_a_missing_column_is_named(turning: Path) -> None:
    with pytest.raises(UsageError, match="z: no such column; there are when, a, b"):
        infer_file(turning, "z")


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
    assert found["peak_rss_mb"] > 50


def test_evaluate_again_is_the_same_and_a_limit_is_a_prefix(turning: Path) -> None:
    task = infer_file(turning, "y", drop=["note", "color"])
    whole, again = evaluate(task, turning), evaluate(task, turning)
    assert whole.metrics == again.metrics
    assert whole.drifts == again.drifts
    assert evaluate(task, turning, limit=1000).events == 1000


def test_json_lines_give_the_same_as_csv(turning: Path, tmp_path: Path) -> None:
    from stream import files

    lines = tmp_path / "turning.jsonl"
    lines.write_bytes(b"".join(row + b"\n" for row in files.read(turning)))
    task = infer_file(turning, "y", drop=["note"])
    assert evaluate(task, lines).metrics == evaluate(task, turning).metrics


def test_convolutions_learn_digits_anew_when_they_change_names(tmp_path: Path) -> None:
    from producers.generators import Drift, image

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
