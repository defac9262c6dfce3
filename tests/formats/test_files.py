from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import random
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.stream.errors import UsageError
from headrace.stream.events import Reject
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.files import MISSING, column_kinds, read, sample, total_rows
from headrace.stream.task import validate


def write(path: Path, content: str | bytes) -> Path:
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def zipped(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as parts:
        parts.writestr(name, content)
    return packed.getvalue()


def rows(path: Path, **columns: Any) -> list[dict[str, Any]]:
    return [json.loads(value) for value in read(path, columns)]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "x,name\n1,ann\n-2.5,bob\n"),
        ("a.csv", "\ufeffx;name\r\n1;ann\r\n-2.5;bob\r\n"),
        ("a.CSV", "x\tname\n1\tann\n\n-2.5\tbob"),
        ("a.tsv", "x\tname\n1\tann\n-2.5\tbob\n"),
        ("a.jsonl", '{"x":1,"name":"ann"}\n\n{"x":-2.5,"name":"bob"}'),
        ("a.ndjson", '{"x": 1, "name": "ann"}\r\n{"x": -2.5, "name": "bob"}\r\n'),
    ],
)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, name: str, content: str, suffix: str
) -> None:
    path = write(tmp_path / (name + suffix), content)
    assert rows(path) == [{"x": 1, "name": "ann"}, {"x": -2.5, "name": "bob"}]
    assert total_rows(path) is None


def test_json_lines_come_out_byte_for_byte(tmp_path: Path) -> None:
    lines = [b'{"a" : 1.10, "a":2}', b"not json", '{"ü":"\\u00fc"}'.encode()]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    assert list(read(path)) == lines


@pytest.mark.parametrize("token", sorted(MISSING))
def test_missing_tokens_become_null(tmp_path: Path, token: str) -> None:
    path = write(tmp_path / "a.csv", f"x,s,y\n{token},{token},1\n {token}, {token},2\n5,b,3\n")
    assert rows(path) == [
        {"x": None, "s": None, "y": 1},
        {"x": None, "s": None, "y": 2},
        {"x": 5, "s": "b", "y": 3},
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0),
        ("-0.50", -0.5),
        ("1e5", 1e5),
        ("1E-3", 1e-3),
        ("+5", 5),
        (".5", 0.5),
        ("5.", 5.0),
        (" 7 ", 7),
        ("007", 7),
        ("123456789012345678", 123456789012345678),
        ("1234567890123456789", 1234567890123456789),
        ("-9223372036854775808", -(2**63)),
        ("9" * 40, 1e40),
        ("1e300", 1e300),
    ],
)
def test_number_cells_become_json_numbers(tmp_path: Path, cell: str, value: float) -> None:
    path = write(tmp_path / "a.csv", f"x,y\n{cell},1\n")
    [row] = rows(path, x="number")
    assert row == {"x": value, "y": 1}
    assert isinstance(row["x"], int | float)


def test_integers_beyond_64_bits_name_things_and_keep_their_digits(tmp_path: Path) -> None:
    names = [str(2**63 + at) for at in range(9)]
    cells = "\n".join(f"{name},{name if at else 5}" for at, name in enumerate(names))
    path = write(tmp_path / "a.csv", f"x,y\n{cells}\n")
    assert [row["x"] for row in rows(path)] == names
    rare = write(tmp_path / "b.csv", "x\n" + "1\n" * 99 + f"{2**63}\n")
    assert [row["x"] for row in rows(rare)] == [1] * 99 + [2.0**63]


@pytest.mark.parametrize("cell", ["abc", "1e999", "inf", "-Infinity", "1_000", "0x10", "٣", "1 2"])
def test_what_is_no_number_stays_visible_as_a_string(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "a.csv", f"x,y\n{cell},1\n")
    assert rows(path, x="number") == [{"x": cell, "y": 1}]


def test_a_row_that_does_not_fit_the_header_is_no_event_and_says_where_it_is(
    tmp_path: Path,
) -> None:
    lines = ['x,"s ""q"" %",y', '1,"a', 'b",2', "1,a,2,3,b", "", "  ", "4", '5,"b"c,6', "7,d,8,,"]
    path = write(tmp_path / "a.csv", "\n".join(lines))
    found = [json.loads(value) for value in read(path)]
    assert found == [
        {"x": 1, 's "q" %': "a\nb", "y": 2},
        f"{path}, line 4: 5 cells, expected 3: 1,a,2,3,b",
        f"{path}, line 7: 1 cell, expected 3: 4",
        f"{path}, line 8: ',' expected after '\"'",
        {"x": 7, 's "q" %': "d", "y": 8},
    ]
    table = {"name": "t", "input": {"topic": "e"}, "features": {"x": {"kind": "number"}}}
    task = validate(table | {"target": {"field": "y", "kind": "regress"}}, "test")
    refused = Codec(task).decode(list(read(path))[1])
    assert isinstance(refused, Reject) and "line 4: 5 cells, expected 3" in refused.detail


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(sorted(MISSING)),
    st.floats().map(repr),
    st.integers().map(str),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(CELLS, max_size=4), min_size=1, max_size=8))
def test_no_cell_is_lost_whatever_it_holds(tmp_path: Path, table: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], ["1", "x"], *table])
    got = rows(write(tmp_path / "a.csv", text.getvalue()), a="number", b="string")[1:]
    wanted = [cells for cells in table if len(cells) > 1 or "".join(cells).strip()]
    for cells, row in zip(wanted, got, strict=True):
        if len(cells) < 2 or any(map(str.strip, cells[2:])):
            assert f"{len(cells)} cell" in row
            continue
        for name, cell in zip(["a", "b"], cells, strict=False):
            if row[name] is None:
                assert cell.strip() in MISSING
            elif isinstance(row[name], str):
                assert row[name] == cell
            else:
                assert name == "a" and row[name] == pytest.approx(float(cell), rel=1e-15)


def test_kinds_are_inferred_from_what_is_there(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "n,s,zip,none,mixed\n1,a,01234,,1\nNA,b,99999,NA,x\n-2e3,c,5,?,2\n"
    )
    found = sample(path)
    assert found[1] == {"n": None, "s": "b", "zip": "99999", "none": None, "mixed": "x"}
    assert column_kinds(found) == {
        "n": "number",
        "s": "string",
        "zip": "string",
        "none": "number",
        "mixed": "string",
    }
    assert len(sample(path, 2)) == 2
    assert column_kinds([{"b": True, "f": 1.5, "o": {}}]) == {
        "b": "string",
        "f": "number",
        "o": "string",
    }


def test_a_column_with_decimal_commas_is_one_of_texts_however_few_they_are() -> None:
    few = [{"a": "1.234", "b": str(n), "c": "2.5"} for n in range(99)]
    assert set(column_kinds(few).values()) == {"number"}
    few.append({"a": "1.234,5", "b": "7", "c": "2.5"})
    assert column_kinds(few) == {"a": "string", "b": "number", "c": "number"}
    assert column_kinds([{"a": "1.234", "b": "1,5"}]) == {"a": "string", "b": "string"}


def test_given_kinds_win_over_inferred_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\n1,2\n")
    assert rows(path, x="string") == [{"x": "1", "y": 2}]


def test_parquet_rows_become_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    table = pa.table(
        {
            "at": pa.array([moment, None], pa.timestamp("ns", tz="America/New_York")),
            "naive": pa.array([moment.replace(tzinfo=None)] * 2, pa.timestamp("s")),
            "day": [date(2024, 5, 1), None],
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "x": pa.array([1.5, float("nan")], pa.float32()),
            "tags": [["a"], []],
        }
    )
    pq.write_table(table, path)
    assert rows(path) == [
        {
            "at": "2024-05-01T12:30:00Z",
            "naive": "2024-05-01T12:30:00Z",
            "day": "2024-05-01",
            "price": 1.5,
            "x": 1.5,
            "tags": ["a"],
        },
        {"at": None, "naive": "2024-05-01T12:30:00Z", "day": None, "price": None}
        | {"x": None, "tags": []},
    ]
    assert total_rows(path) == 2
    assert sample(path, 1) == rows(path)[:1]


@pytest.mark.parametrize(
    ("names", "column", "message"),
    [
        (["x", "x"], pa.array([1]), "two columns are called 'x'"),
        (
            ["x", "y"],
            pa.array([-(10**6)], pa.date32()),
            r"not readable as Parquet: column 'y' .*date value out",
        ),
        (
            ["x", "y"],
            pa.array([2**60], pa.timestamp("ms")),
            r"not readable as Parquet: column 'y' .*out of bounds",
        ),
        (
            ["x", "y"],
            pa.array([2**62], pa.duration("ns")),
            r"Parquet: column 'y' \(duration\[ns\]\): Casting",
        ),
    ],
)
def test_parquet_that_makes_no_events_is_refused_in_one_line(
    tmp_path: Path, names: list[str], column: Any, message: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array([1]), column], names=names), path)
    with pytest.raises(UsageError, match=message) as raised:
        list(read(path))
    assert "\n" not in str(raised.value)


def test_broken_parquet_is_refused_whatever_is_broken(tmp_path: Path) -> None:
    path, source = tmp_path / "a.parquet", random.Random(1)
    pq.write_table(pa.table({"x": list(range(20)), "y": ["a", "b"] * 10}), path)
    whole = path.read_bytes()
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(source.randint(1, 6)):
            broken[source.randrange(len(broken))] = source.randrange(256)
        path.write_bytes(broken)
        with contextlib.suppress(UsageError):
            list(read(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xls", b"\xd0\xcf\x11\xe0\0", "cannot read files of type '.xls'"),
        ("a.parquet.gz", gzip.compress(b"x"), "cannot read parquet within compressed data"),
        ("plain", b"x", "cannot read files of type ''"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"x,y\n", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.csv", b"1,2\n3,4\n", "holds numbers, not column names"),
        ("a.csv", b"x,y,x\n1,2,3\n", "two columns are called 'x'"),
        ("a.csv", b'x,y\n1,"open\n2,b\n', "line 3 is not CSV"),
        ("a.csv", "x,y\n1,é\n".encode("latin-1"), "byte 0xe9 is not UTF-8"),
        ("a.csv.gz", b"x,y\n1,2\n", "broken gzip data"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"x,y\n1,2\n")), "packed twice, with gzip within"),
        ("a.csv", b"%PDF-1.7\n%\xe2\xe3\n", "a PDF, which is no table"),
        ("a.csv.zip", zipped("a.csv", b"x,y\n1,2\n"), "a zip archive, and no workbook; unpack it"),
        ("a.jsonl.gz", gzip.compress(b'{"x":1}\n' * 1000, mtime=0)[:-30], "broken gzip data"),
        ("a.parquet", b"PAR1 nonsense PAR1", "not readable as Parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        list(read(path))
    text = str(raised.value)
    assert text.startswith(f"{path}: ") and message in text
    assert "\n" not in text


def test_missing_files_and_columns_are_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "a.csv")
    path = write(tmp_path / "b.csv", "x,y\n1,2\n")
    with pytest.raises(UsageError, match=r"no column 'z'; the file has 'x', 'y'"):
        read(path, {"z": "number"})


def test_sample_leaves_out_lines_that_are_no_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '[1,2]\n{"x":1}\n{"x"\n')
    assert sample(path) == [{"x": 1}]
    array = write(tmp_path / "b.jsonl", "[1,2]\n[3]")
    with pytest.raises(UsageError, match="row 1: the event: a list, expected an object; so"):
        sample(array)
