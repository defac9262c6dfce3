"""Forms, separators, compressions and encodings of files that people have, and what is told."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.stream.errors import UsageError
from headrace.stream.formats import files

ROWS = [{"x": 1, "name": "ann"}, {"x": -2.5, "name": "bob"}]
CSV = "x,name\n1,ann\n-2.5,bob\n"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(given: files.Given) -> list[Any]:
    return [json.loads(value) for value in files.read(given)]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", "x|name\n1|ann\n-2.5|bob\n", "columns separated by bars"),
        ("a.psv", "x|name\n1|ann\n-2.5|bob\n", ""),
        ("a.tab", "x\tname\n1\tann\n-2.5\tbob\n", ""),
        ("a.csv", "x;name\n1;ann\n-2.5;bob\n", "columns separated by semicolons"),
        ("a.dat", "x   name\n1   ann\n -2.5 bob \n", "columns separated by spaces"),
        ("data", "x\tname\n1\tann\n-2.5\tbob\n", "columns separated by tabs"),
        ("a.csv", 'x,"na,me;"\n1,ann\n-2.5,bob\n', ""),
        ("a.csv", "# of 2024, by me\n\n#\nx,name\n1,ann\n# a note\n-2.5,bob\n", "3 lines before"),
        ("a.txt", "# made here\n# x name\n1 ann\n-2.5 bob\n", "the last of them as the header"),
        ("a.csv", "x,name\r1,ann\r-2.5,bob\r", ""),
        ("a.csv", "x,name\n1,ann,\n-2.5,bob,,\n", ""),
        ("a.csv", CSV.encode("utf-16"), ""),
        ("a.csv", codecs.BOM_UTF16_BE + CSV.encode("utf-16-be"), ""),
        ("a.csv", CSV.encode("utf-8-sig"), ""),
        ("a.jsonl", codecs.BOM_UTF8 + b'{"x":1,"name":"ann"}\n{"x":-2.5,"name":"bob"}', ""),
        ("a.jsonl", '{"x":1,"name":"ann"}\n{"x":-2.5,"name":"bob"}'.encode("utf-16"), ""),
        ("a.json", '[{"x":1,"name":"ann"},{"x":-2.5,"name":"bob"}]', ""),
        ("a.json", ' [\n {"x":1, "name":"ann"}\n,{"x":-2.5,"name":"bob"} ]\n', ""),
        ("a.json", '{\n"x":1,\n"name":"ann"\n}\n{\n"x":-2.5,\n"name":"bob"\n}', ""),
        ("a.txt", '{"x":1,"name":"ann"}\n{"x":-2.5,"name":"bob"}', ""),
        ("a.tsv.gz", gzip.compress(b"x\tname\n1\tann\n-2.5\tbob\n"), ""),
        ("not named so.csv", gzip.compress(CSV.encode()), ""),
    ],
)
def test_what_people_have_gives_the_same_rows(
    tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    path = write(tmp_path / name, content)
    assert [list(row.values()) for row in rows(path)] == [list(row.values()) for row in ROWS]
    said = "".join(files.describe(path))
    assert told in said and bool(told) == bool(said)


@pytest.mark.parametrize("suffix", PACKED)
def test_what_is_compressed_is_read_and_what_is_cut_off_is_told(
    tmp_path: Path, suffix: str
) -> None:
    packed = PACKED[suffix](b"x,y\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000)))
    path = write(tmp_path / f"a.csv{suffix}", packed)
    assert rows(path)[-1] == {"x": 19_999, "y": 19_999**2}
    write(path, packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"a\.csv\..*broken .* data after [0-9,]+ unpacked bytes"):
        rows(path)
    write(path, CSV)
    with pytest.raises(UsageError, match="it begins otherwise"):
        rows(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b;c,d\n1,2;3,4\n", "separated by commas (3 of them) or by semicolons (2"),
        ("a.csv", "a;b,c\n1;2,3\n4;5,6\n", "more than one, or none"),
        ("a.csv", "#id,name\nx,bob\n", "line 1 may be a comment, or hold the names"),
        ("a.txt", "once upon a time\nthere was\n", "cannot read files of type '.txt'"),
        ("a.csv", "x,name\n1,é\n".encode("latin-1"), "0xe9 is not UTF-8 (at byte 9, in line 2)"),
        ("a.csv", CSV.encode("utf-16-le"), "byte 1 is 0, and no text has that"),
        ("a.csv", CSV.encode("utf-16")[:-1], "not UTF-16 at byte"),
        ("a.json", '[{"x":1},{"x":2}', "ends at byte 16 within its array"),
        ("a.json", '[{"x":1},{"x":"2', "ends at byte 16 within a row"),
        ("a.json", '[{"x":1} {"x":2}]', "b'{' at byte 9: expected a comma or ]"),
        ("a.json", '[{"x":1},]', "b']' at byte 9: expected a row after the comma"),
        ("a.json", '[{"x":1}] {"x":2}', "b'{' at byte 10: expected nothing after"),
        ("a.json", "[]", "no rows"),
        ("a.csv", "x,y\n1," + "2" * 17_000_000, "line 2 is longer than 16,777,216 bytes"),
        ("a.json", '[{"x":"' + "2" * 17_000_000, "the row at byte 1 is longer than"),
        ("a.csv", "# only\n# comments\n", "no rows"),
    ],
    ids=range(16),
)
def test_what_has_no_one_meaning_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UsageError) as raised:
        rows(path)
    told = str(raised.value)
    assert told.startswith(f"{path}: ") and message in told and "\n" not in told


def test_a_bomb_of_compressed_zeros_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(bytes(100_000_000), 9))
    with pytest.raises(UsageError, match="longer than 16,777,216 bytes"):
        rows(path)


def test_elements_of_an_array_come_byte_for_byte_wherever_pieces_end(tmp_path: Path) -> None:
    odd = ['{"a":"}, {\\""}', '{"a": {"b":[{"c":"]"}]} }', '"x,]"', "5", "null", '["]"]', "{}"]
    odd += ['{"a":NaN}', '{"a":"\\\\"}', '{"a":"b"}']
    elements = [each for n in range(9000) for each in (*odd, f'{{"n":{n}}}')]
    path = write(tmp_path / "a.json", "[" + odd[0] + ",\n" + " , ".join(elements) + "\n]")
    assert [value.decode() for value in files.read(path)] == [odd[0], *elements]
    assert path.stat().st_size > 3 * (1 << 18)


def test_a_long_file_is_sampled_in_the_middle_and_at_the_end(tmp_path: Path) -> None:
    count = 200_000
    table = [f"{n},{'early' if n < count / 3 else 'late'} {n:20}" for n in range(count)]
    csv = write(tmp_path / "a.csv", "\n".join(["n,s", *table, ""]))
    lines = write(
        tmp_path / "a.jsonl", "\n".join(json.dumps({"n": n, "s": "x" * 20}) for n in range(count))
    )
    parquet = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"n": range(count)}), parquet, row_group_size=count // 4)
    for path in (csv, lines, parquet):
        seen = [json.loads(row)["n"] for row in files.later(path, 50)]
        assert 90 <= len(seen) == len(set(seen)) <= 100 and seen == sorted(seen)
        assert count * 0.4 < seen[0] < seen[40] < count * 0.7 < seen[-40] < seen[-1] < count
    packed = write(tmp_path / "a.csv.gz", gzip.compress(csv.read_bytes(), 1))
    assert [*files.later(packed, 50)] == []


def test_the_sample_of_quoted_texts_begins_at_a_row_or_is_left_out(tmp_path: Path) -> None:
    text = 'a text,\nof "" lines, "" and\ncommas,\n'
    path = write(tmp_path / "a.csv", "n,s\n" + "".join(f'{n},"{text}"\n' for n in range(150_000)))
    for row in map(json.loads, files.later(path, 50)):
        assert row["s"] == text.replace('""', '"') and isinstance(row["n"], int)


@pytest.mark.parametrize("text", ['1,"a\nb,c"\n', '"1,2"\n', '"1","a"\n', '1,""\n', '1,"\n"\n'])
def test_quotes_mean_what_they_do_to_pythons_csv(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.csv", f"x,s\n{text}")
    [cells] = csv.reader(io.StringIO(text, newline=""))
    [row] = rows(path)
    if len(cells) == 2:
        assert row == {"x": int(cells[0]), "s": cells[1] if cells[1].strip() else None}
    else:
        assert "line 2: 1 cell, expected 2" in row


def test_a_column_of_numbers_stays_one_when_few_cells_are_none(tmp_path: Path) -> None:
    good = "".join(f"{n},{n % 9}\n" for n in range(95))
    path = write(tmp_path / "a.csv", f"n,m\n{good}" + "ERR,1\ninf,1\nNaN,1\n-,1\n")
    assert [row["n"] for row in rows(path)][94:] == [94, "ERR", "inf", None, "-"]
    codes = write(tmp_path / "b.csv", f"n,m\n{good}" + "007,1\n")
    assert [row["n"] for row in rows(codes)][94:] == ["94", "007"]
