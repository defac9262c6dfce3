"""Rows of cells are what Python's csv reads, however they are quoted and cut into blocks."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headrace.stream.errors import UsageError
from headrace.stream.formats import delimited
from headrace.stream.formats.files import MISSING, Kind, read

KINDS: dict[str, Kind] = {"a": "number", "b": "string", "c": "string"}
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)

PLAIN = st.one_of(
    st.sampled_from(["1", "-2", "1.5", "1e5", "007", "123456789012345678", "9" * 20, ".5", "5."]),
    st.floats(-1e6, 1e6).map(repr),
    st.sampled_from(["x", "north", "zwölf", "2024-05-01T12:30:00Z", " padded ", "a\\b", "\x1f"]),
    st.sampled_from(sorted(MISSING)),
)
NEEDING_QUOTES = st.sampled_from(["a,b", "l\nf", "c\r\nf", "\r", 'in "quotes"', '"', ","])
RAW = st.sampled_from(['a"b', '""', '"a""b"', '"a"b', "a,b", "\n", " ", "#", '"x"', '"y', 'z"'])


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Draw CSV: each column with all cells in quotes, some or none; sometimes what is broken."""
    quoting = [draw(st.sampled_from(["all", "some", "none"])) for _ in KINDS]
    odd = draw(st.sampled_from([0, 0, 0, 1, 5]))  # so many cells in a hundred are no usual ones
    end = draw(st.sampled_from(["\n", "\r\n"]))
    rows = [",".join(KINDS), "1,x,y"]
    for _ in range(draw(st.integers(1, 30))):
        cells = []
        for how in quoting:
            kind = draw(st.integers(0, 99)) if odd else 99
            if kind < odd:
                cells.append(draw(RAW))
            elif kind < 2 * odd:
                cells.append(quoted(draw(NEEDING_QUOTES)))
            else:
                cell = draw(PLAIN)
                inside = how == "all" or (how == "some" and draw(st.booleans()))
                cells.append(quoted(cell) if inside else cell)
        width = draw(st.integers(1, 4)) if draw(st.integers(0, 99)) < odd else len(cells)
        rows.append(",".join(cells[:width]))
    return end.join(rows) + draw(st.sampled_from(["", end]))


def records(text: str) -> list[tuple[int, list[str] | None]]:
    """Return what Python's csv reads below the header but for blank lines, and where it begins.

    What it refuses is None, with the line where that ends.

    Raises:
        csv.Error: a quote is never closed.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    next(reader)
    found: list[tuple[int, list[str] | None]] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
            if len(cells) > 1 or "".join(cells).strip():
                found.append((line, cells))
        except StopIteration:
            return found
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise
            found.append((reader.line_num, None))


def is_said(cell: str, kind: Kind, value: object) -> bool:
    """Return whether a cell says a value of JSON."""
    text = cell.strip()
    if text in MISSING:
        return value is None
    if kind == "string" or not NUMBER.fullmatch(text):
        return value == cell
    if re.fullmatch(r"-?[0-9]{1,18}", text):
        return type(value) is int and value == int(text)
    return type(value) in (int, float) and value == float(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=tables(), part=st.sampled_from([1, 40, 200]))
@example("a,b,c\n1,x,y,z\n1,x\n", 200)  # as many commas as there should be
@example('a,b,c\n"1""",x,y\n2,x,y\n"3",x,y\n', 200)  # as many quotes as if each were in them
@example('a,b,c\nx"",1,1\n"y",1,1\n', 200)
@example("a,b,c\n1.5,x,y\n99999999999999999999,x,y\n", 200)
@example('a,b,c\n1,"x\ry",z\n1,2\n', 200)  # the second row is on line 4
def test_rows_are_those_of_pythons_csv_however_a_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, part: int
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode())
    try:
        wanted = records(text)
    except csv.Error:
        with pytest.raises(UsageError, match="is a quote left open"):
            list(read(path, KINDS))
        return
    rows = [json.loads(row) for row in read(path, KINDS, "number")]
    with monkeypatch.context() as patch:
        patch.setattr(delimited, "_PART", part)
        assert [json.loads(row) for row in read(path, KINDS, "number")] == rows
    for number, (row, (line, cells)) in enumerate(zip(rows, wanted, strict=True)):
        if cells is None or len(cells) < len(KINDS) or any(map(str.strip, cells[len(KINDS) :])):
            assert f"line {line}: " in row
            continue
        assert row["number"] == number
        for cell, (name, kind) in zip(cells, KINDS.items(), strict=False):
            assert is_said(cell, kind, row[name]), (cell, kind, row[name])
