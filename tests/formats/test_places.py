"""Files by paths, globs, URLs and from standard input: the same rows, each once, in order."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.producers import sources
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.events import Records
from headrace.stream.formats import files, places
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import validate


def rows(given: files.Given) -> list[Any]:
    return [json.loads(value) for value in files.read(given)]


def test_a_bare_name_is_that_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "rows").write_text("x\n1\n")
    (tmp_path / "folder").mkdir()
    names = ("pipe", "rows", "folder", "events.power")
    assert [files.names_files(name) for name in names] == [True, True, False, False]


def test_globs_come_sorted_and_files_in_the_order_given(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        (tmp_path / f"part-{n:02}.csv").write_text(f"n,s\n{n},a\n")
    (tmp_path / "[x].csv").write_text("s,n\nb,7\n")
    assert [row["n"] for row in rows(f"{tmp_path}/part-*.csv")] == [1, 2, 10]
    given: list[str | Path] = [
        tmp_path / "[x].csv",
        f"{tmp_path}/part-1?.csv",
        tmp_path / "part-01.csv",
    ]
    assert [row["n"] for row in rows(given)] == [7, 10, 1]
    assert files.stem(given) == "[x]" and files.called(given).endswith("[x].csv and 2 more")
    with pytest.raises(UsageError, match=r"nothing-\*: no file matches"):
        rows(f"{tmp_path}/nothing-*")
    (tmp_path / "other.csv").write_text("n,t\n1,a\n")
    with pytest.raises(UsageError, match=r"other\.csv: no column 's', which .*part-01\.csv has"):
        rows([tmp_path / "other.csv", tmp_path / "part-01.csv"])
    with pytest.raises(UsageError, match=r"is a directory; name its files, such as"):
        rows(tmp_path)


def test_urls_are_read_as_files_are(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    table = pa.table({"n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    memory.pipe("/rows/a.parquet", (tmp_path / "a.parquet").read_bytes())
    memory.pipe("/rows/b.csv", b"n,s\n" + b"5,x\n" * 2_000_000)
    try:
        assert rows("memory://rows/a.parquet") == table.to_pylist()
        assert sum(1 for _ in files.read("memory://rows/b.c*")) == 2_000_000
        with pytest.raises(UsageError, match=r"memory:///?rows/c\.csv: no such file"):
            rows("memory://rows/c.csv")
    finally:
        memory.rm("/rows", recursive=True)
    assert rows((tmp_path / "a.parquet").as_uri()) == table.to_pylist()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_standard_input_comes_once_and_is_read_as_often_as_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    table, path = pa.table({"n": range(50_000), "s": ["a"] * 50_000}), tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "csv":
        path.write_text("n,s\n" + "".join(f"{n},a\n" for n in range(50_000)))
    else:
        path.write_text("".join(f'{{"n":{n},"s":"a"}}\n' for n in range(50_000)))
    read_end, write_end = os.pipe()

    def feed() -> None:  # a pipe holds less than the file
        with open(write_end, "wb") as pipe:
            pipe.write(path.read_bytes())

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    places._standard_input.cache_clear()
    with open(read_end, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        try:
            assert len(files.sample("-", 10)) == 10
            one, other = files.read("-"), files.read("-")  # as `evaluate --compare` does
            assert all(a == b for a, b in zip(one, other, strict=True))
            assert rows("-") == table.to_pylist()
        finally:
            feeder.join(60)
            places._standard_input().close()
            places._standard_input.cache_clear()


def test_of_a_stream_that_is_read_on_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_KEPT_BYTES", 1 << 20)
    count, read_end, write_end = 400_000, *os.pipe()

    def feed() -> None:
        with open(write_end, "w") as pipe:
            pipe.write("n,s\n")
            pipe.writelines(f"{n},some text\n" for n in range(count))

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    places._standard_input.cache_clear()
    with open(read_end, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        copied = places._standard_input()
        try:
            files.sample("-")
            one, other = files.read("-"), files.read("-")
            files.read_on("-")
            most = 0
            for at, (a, b) in enumerate(zip(one, other, strict=True)):
                assert a == b == b'{"n":%d,"s":"some text"}' % at
                most = max(most, os.fstat(copied._copy.fileno()).st_size)
            assert at == count - 1
            assert most < 4 << 20 < copied.length()
            with pytest.raises(UsageError, match="standard input: was read, and comes once"):
                files.sample("-")
        finally:
            feeder.join(60)
            copied.close()
            places._standard_input.cache_clear()


MOMENT = datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)
NAIVE, NS = MOMENT.replace(tzinfo=None), 1_714_566_600_250_000_001
LIST = pa.list_(pa.timestamp("ns"))
TYPES: list[tuple[Any, Any]] = [
    (pa.array([MOMENT.date()], pa.date32()), "2024-05-01"),
    (pa.array([MOMENT.date()], pa.date64()), "2024-05-01"),
    (pa.array([time(1, 2, 3)], pa.time32("s")), "01:02:03"),
    (pa.array([time(1, 2, 3, 4)], pa.time64("us")), "01:02:03.000004"),
    (pa.array([3_723_000_004_000], pa.time64("ns")), "01:02:03.000004"),
    (pa.array([NAIVE.replace(microsecond=0)], pa.timestamp("s")), "2024-05-01T12:30:00Z"),
    (pa.array([NAIVE], pa.timestamp("ms")), "2024-05-01T12:30:00.250000Z"),
    (pa.array([NAIVE], pa.timestamp("us")), "2024-05-01T12:30:00.250000Z"),
    (pa.array([NS], pa.timestamp("ns")), "2024-05-01T12:30:00.250000Z"),
    (pa.array([NS], pa.timestamp("ns", "Asia/Tokyo")), "2024-05-01T12:30:00.250000Z"),
    (pa.array([timedelta(seconds=90)], pa.duration("ns")), "PT90S"),
    (pa.array([Decimal("1.50")], pa.decimal128(9, 2)), 1.5),
    (pa.array([Decimal("1.5")], pa.decimal256(60, 1)), 1.5),
    (pa.array(["a"]).dictionary_encode(), "a"),
    (pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([NS], pa.timestamp("ns"))),
     "2024-05-01T12:30:00.250000Z"),
    (pa.array([b"ab\xff"]), "YWL/"),
    (pa.array([b"ab\xff"], pa.binary_view()), "YWL/"),
    (pa.array(["ü"], pa.large_string()), "ü"),
    (pa.array(["ü"], pa.string_view()), "ü"),
    (pa.array([[1, None]], pa.large_list(pa.int8())), [1, None]),
    (pa.array([[1.5, 2]], pa.list_(pa.float32(), 2)), [1.5, 2]),
    (pa.array([[NS]], LIST), ["2024-05-01T12:30:00.250000Z"]),
    (pa.array([{"a": 1, "t": NAIVE}]), {"a": 1, "t": "2024-05-01T12:30:00.250000Z"}),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), {"k": 1}),
    (pa.array([1.5], pa.float16()), 1.5),
    (pa.array([float("inf")]), None),
    (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    (pa.array([2**62 + 1, None], pa.int64())[:1], 2**62 + 1),
    (pa.nulls(1), None),
    (pa.array([True]), True),
    (pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([5])), 5),
]  # fmt: skip
REFUSED = [
    pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1]), pa.array(["x"])]),
    pa.array([[(1, 1)]], pa.map_(pa.int8(), pa.int8())),
]


def written(path: Path, column: Any) -> Path:
    table = pa.table({"v": column})
    with pa.OSFile(str(path), "wb") as sink:
        new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with new(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize(
    ("column", "value"), TYPES, ids=lambda each: str(getattr(each, "type", ""))
)
def test_each_type_of_arrow_is_read_as_the_json_that_stands_for_it(
    tmp_path: Path, column: Any, value: Any
) -> None:
    for name in ("a.arrow", "a.arrows"):
        assert rows(written(tmp_path / name, column)) == [{"v": value}]
    try:
        pq.write_table(pa.table({"v": column}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        return  # Parquet has no such type
    assert rows(tmp_path / "a.parquet") == [{"v": value}]


@pytest.mark.parametrize("column", REFUSED, ids=lambda each: str(each.type))
def test_a_type_without_one_meaning_in_json_is_refused_by_name(tmp_path: Path, column: Any) -> None:
    path = written(tmp_path / "a.arrow", column)
    with pytest.raises(UsageError, match=r"a\.arrow: column 'v': of type "):
        rows(path)


def test_avro_and_workbooks_are_read_as_the_same_rows(tmp_path: Path) -> None:
    fastavro = pytest.importorskip("fastavro", reason="the extra avro is not installed")
    fields = [
        {"name": "n", "type": "long"},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "l", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "d", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "b", "type": "bytes"},
    ]
    row = {"n": 1, "t": MOMENT, "l": NAIVE, "d": date(2024, 5, 1), "b": b"ab\xff"}
    data = io.BytesIO()
    fastavro.writer(data, {"type": "record", "name": "r", "fields": fields}, [row])
    (tmp_path / "a.avro").write_bytes(data.getvalue())
    told = "2024-05-01T12:30:00.250000Z"
    assert rows(tmp_path / "a.avro") == [
        {"n": 1, "t": told, "l": told, "d": "2024-05-01", "b": "YWL/"}
    ]
    (tmp_path / "a.avro").write_bytes(data.getvalue()[:-20])
    with pytest.raises(UsageError, match=r"a\.avro: not readable as Avro"):
        rows(tmp_path / "a.avro")


def test_a_workbook_is_read_as_its_rows(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine", reason="the extra excel is not installed")
    openpyxl = pytest.importorskip("openpyxl", reason="it writes the workbook")
    book = openpyxl.Workbook()
    for row in (["n", "s", "t"], [1, "a", NAIVE.replace(microsecond=0)], [2.5, "NA", None]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    assert rows(tmp_path / "a.xlsx") == [
        {"n": 1, "s": "a", "t": "2024-05-01T12:30:00Z"},
        {"n": 2.5, "s": None, "t": None},
    ]
    book.create_sheet("two").append(["n"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(UsageError, match="expected one sheet with rows, has 'Sheet', 'two'"):
        rows(tmp_path / "a.xlsx")


TASK = validate(
    {
        "name": "t",
        "input": {"topic": "e"},
        "target": {"field": "y", "kind": "classify", "classes": ["a", "b"]},
        "features": {"x": {"kind": "number"}, "s": {"kind": "category"}},
    },
    "test",
)
ROW = st.fixed_dictionaries(
    {
        "x": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        "s": st.sampled_from(["north", 'so"uth', "ea,st", "w\nest", "é", None]),
        "y": st.sampled_from("ab"),
    }
)


def arrays(records: Records) -> list[Any]:
    normalizer = Normalizer(TASK)
    found, refused = normalizer.normalize(records)
    assert not refused
    return [found.numeric, found.ids, found.label]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ROW, min_size=1, max_size=30))
def test_a_file_is_evaluated_as_its_events_on_a_topic_whatever_its_form(
    tmp_path: Path, table: list[dict[str, Any]]
) -> None:
    for at, row in enumerate(table):
        row["x"] = None if row["x"] is None else float(row["x"])
        row["id"] = f"e{at}"
    schema = pa.schema([("x", pa.float64()), *((n, pa.string()) for n in ("s", "y", "id"))])
    columns = pa.Table.from_pylist(table, schema)
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, table)))
    (tmp_path / "a.json").write_text(json.dumps(table, indent=1))
    pq.write_table(columns, tmp_path / "a.parquet")
    pa.csv.write_csv(columns, tmp_path / "a.csv")
    wanted: list[Any] | None = None
    for name in ("a.jsonl", "a.json", "a.parquet", "a.csv"):
        file = arrays(FileRows(TASK, tmp_path / name, None).take(len(table) + 1))
        events: list[bytes | None] = [event.value for event in sources.file(tmp_path / name)]
        n = len(events)
        topic = Records("e", events, [None] * n, [0] * n, [*range(n)], [0] * n)
        wanted = wanted or file
        for found in (file, arrays(topic)):
            for array, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(array, other)
