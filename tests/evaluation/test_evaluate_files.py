"""What a file of rows may be like, and still be learned as the service would learn its events."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.producers import sources
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.evaluation.evaluation import Evaluation
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.evaluation.infer import infer_file
from headrace.stream.evaluation.plot import Curve, draw
from headrace.stream.task import Task, validate

TABLE: dict[str, Any] = {
    "name": "t",
    "input": {"topic": "e"},
    "target": {"field": "y", "kind": "classify", "classes": ["a", "b"]},
    "features": {"x": {"kind": "number"}, "code": {"kind": "text"}},
    "model": {"hidden": [4], "neighbours": 0, "learning_rate": 0.01},
    "drift": {"ladder": []},
}
ROWS = [
    {"when": 1714564800 + 3600 * n, "x": n % 7, "code": f"{n % 3:03d}", "y": "ab"[n % 7 > 3]}
    for n in range(300)
]


def task(**parts: Any) -> Task:
    return validate(TABLE | parts, "test")


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def as_csv(path: Path) -> Path:
    with gzip.open(path, "wt") if path.suffix.lower() == ".gz" else path.open("w") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def as_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Learn the rows as plain JSON lines."""
    found = evaluate(task(), lines(tmp_path_factory.mktemp("plain") / "rows.jsonl", ROWS))
    assert (found.learned, found.rejected) == (300, 0)
    return found


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ROWS.CSV", as_csv),
        ("Rows.Csv.Gz", as_csv),
        ("ROWS.JSONL", lambda path: lines(path, ROWS)),
        ("ROWS.PARQUET", as_parquet),
    ],
)
def test_the_case_of_a_suffix_does_not_matter(
    plain: Evaluation, tmp_path: Path, name: str, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / name)
    assert evaluate(task(), path).metrics == plain.metrics
    assert infer_file(path, "y").target.classes == ("a", "b")
    curve, trace = Curve(), tmp_path / "T.PARQUET"
    evaluate(task(), path, limit=70, curve=curve, trace=trace)
    assert pq.read_metadata(trace).num_rows == 70
    for suffix, magic in ((".PNG", b"\x89PNG"), (".HTML", b"<!doctype html>")):
        draw(task(), curve.points, plot := tmp_path / f"P{suffix}", names=("a", "b"))
        assert plot.read_bytes().startswith(magic)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_events_in_envelopes_are_learned_as_those_without(
    plain: Evaluation, tmp_path: Path, name: str, wrapped: bool
) -> None:
    rows = as_csv(tmp_path / "rows.csv")
    if name != "rows.csv":
        rows = as_parquet(tmp_path / name) if "parquet" in name else lines(tmp_path / name, ROWS)
    if wrapped:
        events = [json.loads(e.value) for e in sources.file(rows, time="when", cloudevents=True)]
        rows = lines(tmp_path / "wrapped.jsonl", events)
    inner = {"x": {"kind": "number"}, "code": {"kind": "text"}}
    timed = {"topic": "e", "format": "cloudevents", "time": "time" if wrapped else "when"}
    found = evaluate(task(input=timed, features=inner), rows)
    assert (found.learned, found.rejected) == (300, 0)
    if wrapped or name != "rows.csv":  # a CSV file says no types: `code` is of numbers there
        assert found.metrics == plain.metrics
    with pytest.raises(
        UsageError, match=r"no column 'z' for features.z; the file has .*x, code, y"
    ):
        evaluate(task(input=timed, features={"z": {"kind": "number"}}), rows)


@pytest.mark.parametrize("pointer", ["/meta/id", "/id", "id", "/a~1b", "row"])
def test_rows_without_ids_are_numbered_wherever_the_id_would_be(
    plain: Evaluation, tmp_path: Path, pointer: str
) -> None:
    pointing = task(input={"topic": "e", "id": pointer})
    for path in (as_csv(tmp_path / "rows.csv"), lines(tmp_path / "rows.jsonl", ROWS)):
        trace = tmp_path / "trace.parquet"
        found = evaluate(pointing, path, trace=trace)
        assert (found.learned, found.rejected, found.metrics) == (300, 0, plain.metrics)
        ids = pq.read_table(trace)["id"].to_pylist()
        assert ids == [str(number) for number in range(300)]


def test_ids_that_are_there_are_used_however_deep(tmp_path: Path) -> None:
    rows = [row | {"meta": {"id": f"e-{n // 2}"}, "row": 1} for n, row in enumerate(ROWS)]
    path = lines(tmp_path / "rows.jsonl", rows)
    found = evaluate(task(input={"topic": "e", "id": "/meta/id"}), path)
    assert (found.learned, found.codes) == (150, {"duplicate_id": 150})
    beside = evaluate(task(input={"topic": "e", "id": "/meta/other"}), path)
    assert (beside.learned, beside.rejected) == (300, 0)


@pytest.mark.parametrize("window", [{"earliest": "2000-01-01T00:00:00Z"}, {"latest": "1950-01-01"}])
def test_rows_without_a_time_are_in_every_window(
    plain: Evaluation, tmp_path: Path, window: dict[str, str]
) -> None:
    path = lines(tmp_path / "rows.jsonl", ROWS)
    found = evaluate(task(input={"topic": "e", **window}), path)
    assert (found.rejected, found.metrics) == (0, plain.metrics)


def test_a_calendar_of_rows_without_a_time_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(UsageError, match=r"calendar needs the time .* input.time"):
        evaluate(task(calendar=["hour"]), path)
    with pytest.raises(UsageError, match=r"calendar needs the time"):
        evaluate(task(), path, other=task(calendar=["hour"]))
    lately = {"kind": "aggregate", "statistic": "count", "seconds": 60}
    with pytest.raises(UsageError, match=r"features.lately needs the time .* input.time"):
        evaluate(task(features=TABLE["features"] | {"lately": lately}), path)
    timed = task(calendar=["hour"], input={"topic": "e", "time": "when"})
    assert evaluate(timed, path).learned == 300


def test_a_window_without_a_zone_is_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        found = task(input={"topic": "e", "earliest": "2020-01-01T00:00:00"}).input
        assert found.earliest.timestamp() == 1577836800
    finally:
        monkeypatch.undo()
        time.tzset()


def test_json_lines_may_have_a_field_in_late_rows_alone(plain: Evaluation, tmp_path: Path) -> None:
    late = [{key: row[key] for key in ("x", "y")} for row in ROWS * 4]
    path = lines(tmp_path / "late.jsonl", [*late, *ROWS])
    assert evaluate(task(), path).learned == 1500
    with pytest.raises(UsageError, match=r"no column 'code' for features.code; the file has x, y"):
        evaluate(task(), lines(tmp_path / "never.jsonl", late))
    deep = {"x": {"kind": "number", "field": "/meta/x"}}
    nested = [row | {"meta": {}} for row in ROWS]
    with pytest.raises(UsageError, match=r"no column '/meta/x' for features.x"):
        evaluate(task(features=deep), lines(tmp_path / "deep.jsonl", nested))
    with pytest.raises(UsageError, match=r"no column '/x/y' for features.x"):
        wrong = {"x": {"kind": "number", "field": "/x/y"}}
        evaluate(task(features=wrong), as_csv(tmp_path / "rows.csv"))


def test_a_field_that_is_nearly_a_column_is_told_by_its_right_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [row | {"meta": {"level": 1}} for row in ROWS])
    for field, near in (("Code", "code"), ("/meta/Level", "/meta/level"), ("cod", "code")):
        wrong = task(features={"f": {"kind": "category", "field": field}})
        words = f"no column '{field}' for features.f; did you mean '{near}'? the file has "
        with pytest.raises(UsageError, match=re.escape(words)):
            FileRows(wrong, path, None)


def test_odd_rows_are_counted_and_refused_each_alone(plain: Evaluation, tmp_path: Path) -> None:
    odd = ["{}", " { } ", "[1]", "42", '"x"', '{"x":1,"y":"a"', "null", "\x00"]
    path = tmp_path / "odd.jsonl"
    path.write_text("\ufeff" + "\n".join([*map(json.dumps, ROWS), *odd]), "utf-8")
    found = evaluate(task(), path)
    assert (found.events, found.rejected) == (308, 6)
    assert found.learned == 300  # an event without anything is one, without a label
    assert found.codes.keys() <= {"json", "schema"}


def test_a_header_without_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,code,y\n")
    with pytest.raises(UsageError, match="no rows"):
        evaluate(task(), path)


def test_a_trace_does_not_replace_the_file_that_is_read(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "rows.parquet")
    before = path.read_bytes()
    (tmp_path / "link.parquet").symlink_to(path)
    for trace in (path, tmp_path / "link.parquet"):
        with pytest.raises(UsageError, match="is the file that is read"):
            evaluate(task(), path, trace=trace)
    assert path.read_bytes() == before
