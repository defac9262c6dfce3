from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import trace as traces
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.evaluation.trace import check_trace
from headrace.stream.task import Task, parse

SMALL = "[model]\nhidden = [8]\nlearning_rate = 0.01\nneighbours = 0\n"
CLASSES = """
name = "t"
[input]
topic = "e"
time = "when"
recent_ids = 500
[target]
field = "y"
kind = "classify"
classes = ["up", "down", "level"]
[features]
a = { kind = "number" }
"""
NUMBERS = """
name = "t"
[input]
topic = "e"
entity = "who"
[target]
field = "y"
kind = "regress"
horizon = 2
[features]
a = { kind = "number" }
[lags]
entities = 4
"""


def write(path: Path, kind: str, rows: int = 5000) -> dict[int, str]:
    """Write rows, of which some are refused; give those with their codes."""
    rng, codes = np.random.default_rng(5), dict[int, str]()
    with path.open("w") as file:
        for row in range(rows):
            a = round(float(rng.normal()), 3)
            number = 3 * a + float(rng.normal())
            label: Any = ("up", "down", "level")[int(np.digitize(number, [-1, 1]))]
            line: dict[str, Any] = {"id": row, "a": a, "when": 1714564800 + row}
            line["y"] = label if kind == "classes" else number
            line["who"] = int(rng.integers(3 if row % 500 < 400 else 9))
            if row % 90 == 1:
                line["y"] = None
            if row % 100 == 7:
                line["a"], codes[row] = "none", "schema"
            elif row % 700 == 9 and kind == "classes":
                line["id"], codes[row] = row - 4, "duplicate_id"
            file.write("not json\n" if row == 77 else f"{json.dumps(line)}\n")
    return codes | {77: "json"}


def columns(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = pq.read_table(path).to_pydict()
    return found


def test_the_scores_of_classes_are_in_the_trace(tmp_path: Path) -> None:
    codes = write(tmp_path / "in.jsonl", "classes")
    path = tmp_path / "out.parquet"
    task = parse(CLASSES + SMALL, "t")
    found = evaluate(task, tmp_path / "in.jsonl", trace=path)
    line = columns(path)
    assert line["offset"] == list(range(5000))
    assert {at: code for at, code in enumerate(line["rejected"]) if code} == codes
    refused = {line[name][77] for name in line if name not in ("offset", "scored", "rejected")}
    assert (refused, line["scored"][77]) == ({None}, False)
    assert (line["id"][3], line["label"][1], line["scored"][1]) == ("3", None, False)
    assert line["time"][3] == datetime(2024, 5, 1, 12, 0, 3, tzinfo=UTC)
    told = pq.read_metadata(path).metadata
    assert json.loads(told[b"classes"]) == list(task.target.classes)

    at = [place for place, scored in enumerate(line["scored"]) if scored]
    assert [line["answers"][place] for place in at] == at
    truth = [line["label"][place] for place in at]
    said = [line["prediction"][place] for place in at]
    chances = np.array([line["probabilities"][place] for place in at])
    best = [task.target.classes[place] for place in chances.argmax(1)]
    assert said == best
    scores = found.metrics["all"]
    assert scores["events"] == len(at) == found.learned
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said), abs=1e-6)
    expected = metrics.f1_score(truth, said, average="macro")
    assert scores["macro_f1"] == pytest.approx(expected, abs=1e-6)
    assert scores["kappa"] == pytest.approx(metrics.cohen_kappa_score(truth, said), abs=1e-6)
    order = np.argsort(task.target.classes)
    chances = chances.astype(np.float64)[:, order]
    chances /= chances.sum(1, keepdims=True)
    loss = metrics.log_loss(truth, chances, labels=np.array(task.target.classes)[order])
    assert scores["log_loss"] == pytest.approx(loss, rel=1e-4)


def test_the_scores_of_numbers_ahead_are_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_GROUP_ROWS", 1000)
    codes = write(tmp_path / "in.jsonl", "numbers")
    path = tmp_path / "out.parquet"
    found = evaluate(parse(NUMBERS + SMALL, "t"), tmp_path / "in.jsonl", trace=path)
    assert pq.ParquetFile(path).num_row_groups > 1
    line = columns(path)
    assert line["offset"] == list(range(5000))
    assert {at: code for at, code in enumerate(line["rejected"]) if code} == codes
    assert set(line["time"]) == {None}
    at = [place for place, scored in enumerate(line["scored"]) if scored]
    asked = [line["answers"][place] for place in at]
    assert all(first < place for first, place in zip(asked, at, strict=True))
    truth = np.array([line["label"][place] for place in at])
    said, low, high = (
        np.array([line[name][place] for place in asked], np.float64)
        for name in ("prediction", "low", "high")
    )
    scores = found.metrics["all"]
    assert scores["events"] == len(at)
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(truth, said), rel=1e-5)
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, said), rel=1e-5)
    assert scores["r2"] == pytest.approx(metrics.r2_score(truth, said), abs=1e-4)
    bounded = ~np.isnan(low)
    covered = np.mean(((low <= truth) & (truth <= high))[bounded])
    assert scores["coverage"] == pytest.approx(covered, abs=1e-6)


def small(tmp_path: Path) -> tuple[Task, Path]:
    write(tmp_path / "in.jsonl", "classes", rows=300)
    return parse(CLASSES + SMALL, "t"), tmp_path / "in.jsonl"


def test_an_interrupted_run_leaves_what_was_there(tmp_path: Path) -> None:
    task, rows = small(tmp_path)
    place = tmp_path / "traces"
    place.mkdir()
    path = place / "out.parquet"
    evaluate(task, rows, trace=path)
    before = path.read_bytes()

    def interrupt(events: int, report: Any) -> None:
        assert len(list(place.iterdir())) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(task, rows, limit=200, trace=path, on_progress=interrupt)
    assert list(place.iterdir()) == [path]
    assert path.read_bytes() == before
    evaluate(task, rows, limit=200, trace=path)
    assert len(columns(path)["offset"]) == 200


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends with \.parquet"):
        check_trace(tmp_path / "trace.csv")
    with pytest.raises(UsageError, match="there is no directory"):
        check_trace(tmp_path / "none" / "trace.parquet")
    task, rows = small(tmp_path)
    with pytest.raises(UsageError, match="cannot be written: No such file or directory"):
        evaluate(task, rows, trace=tmp_path / "none" / "trace.parquet")
