"""Read the rows of a user's own file as JSON events: CSV, TSV, Parquet, JSON lines."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import json
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import msgspec

from headrace.stream.errors import UsageError
from headrace.stream.formats.quantities import has_decimal_commas, is_grouped, without_literals

Kind = Literal["number", "string"]
Form = Literal["csv", "parquet", "json"]
_Item = TypeVar("_Item")
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"})

_FORMS: dict[str, Form] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
}
SAMPLE_ROWS = 1000
_PARQUET_BATCH_ROWS = 4096
# The widest JSON number that every decoder reads as itself: 18 digits fit an int64, a two-digit
# exponent fits a float64. Anything wider takes the slow path.
_JSON_NUMBER = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?"
_TOKENS = "|".join(re.escape(token) for token in sorted(MISSING))
_PLAIN_STRING = rf"(?! *(?:{_TOKENS}) *(?:\x1f|\Z))" + r'[^"\\\x00-\x1f]*'
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_CODE = re.compile(r"[+-]?0[0-9]", re.ASCII)


def read(path: str | Path, columns: Mapping[str, Kind] | None = None) -> Iterator[bytes]:
    """Yield one JSON object per row, in file order, as UTF-8 bytes.

    In CSV, a column that `columns` does not name has its kind inferred from the first 1,000 rows.
    Missing cells become null; a cell that is no number in a number column stays a JSON string;
    cells beyond the header go under "_extra", names without a cell under "_absent". Blank lines
    are no rows. JSON lines come out byte for byte.

    Raises:
        UsageError: no such file, unknown suffix, empty or broken file, or no such column.
    """
    source = Path(path)
    form = _format(source)
    if form == "json":
        return _guarded(source, _json_lines(source))
    if form == "parquet":
        return _guarded(source, _parquet_rows(source))
    names = _header(source)
    if unknown := sorted(set(columns or {}) - set(names)):
        raise UsageError(
            f"{source}: no column {unknown[0]!r}; the file has {', '.join(map(repr, names))}"
        )
    kinds: dict[str, Kind] = dict(columns or {})
    if len(kinds) < len(names):
        kinds = column_kinds(sample(source)) | kinds
    return _guarded(source, _csv_rows(source, names, [kinds.get(name, "number") for name in names]))


def sample(path: str | Path, rows: int = SAMPLE_ROWS) -> list[dict[str, object]]:
    """Return the first `rows` rows as they are: cells of CSV as text, missing ones as None.

    JSON lines that hold no object are left out: `read` passes them on, for others to reject.

    Raises:
        UsageError: as `read`; also JSON lines without any object among the first ones.
    """
    source = Path(path)
    if _format(source) == "csv":
        names = _header(source)
        cells = islice(_guarded(source, _csv_records(source)), 1, rows + 1)
        return [
            {
                name: None if cell.strip() in MISSING else cell
                for name, cell in zip(names, row, strict=False)
            }
            for row in cells
        ]
    found = list(objects(islice(read(source), rows)))
    if not found:
        raise UsageError(f"{source}: no JSON object in the first {rows} lines; one a line expected")
    return found


def column_kinds(rows: Iterable[Mapping[str, object]]) -> dict[str, Kind]:
    """Infer each column's kind: "number" where every cell that is there is one.

    Codes such as "007" are strings. A column without any cell counts as "number": the kind that
    passes on whatever comes later unchanged. Beside a column with decimal commas a column of cells
    such as "1.234" is one of strings, too: of thousands, which are no JSON.
    """
    kinds: dict[str, Kind] = {}
    rows = [*rows]
    for row in rows:
        for name, cell in row.items():
            if kinds.setdefault(name, "number") == "number" and not _is_number(cell):
                kinds[name] = "string"
    cells = {name: [row.get(name) for row in rows] for name in kinds}
    if any(kind == "string" and has_decimal_commas(cells[name]) for name, kind in kinds.items()):
        kinds |= {name: "string" for name in kinds if is_grouped(cells[name])}
    return kinds


def total_rows(path: str | Path) -> int | None:
    """Return how many rows the file has, or None where only reading it all would tell.

    Raises:
        UsageError: as `read`.
    """
    source = Path(path)
    if _format(source) != "parquet":
        return None
    import pyarrow.parquet

    with _broken_file(source):
        return int(pyarrow.parquet.read_metadata(source).num_rows)


def _is_number(cell: object) -> bool:
    if cell is None:
        return True
    if isinstance(cell, str):
        text = cell.strip()
        return bool(_NUMBER.fullmatch(text)) and not _CODE.match(text)
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def form_of(path: str | Path) -> Form | None:
    """Say by its name what a file holds; None if the name says nothing that can be read."""
    name = Path(path).name.lower()
    form = _FORMS.get(Path(name.removesuffix(".gz")).suffix)
    return None if form == "parquet" and name.endswith(".gz") else form


def has(row: object, place: Sequence[str]) -> bool:
    """Return whether a row has a field, if only null, at the end of these keys."""
    for key in place:
        if not isinstance(row, dict) or key not in row:
            return False
        row = row[key]
    return True


def lacking(path: str | Path, places: Iterable[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the fields, by their keys, that no row has; stops reading as soon as it knows.

    Raises:
        UsageError: as `read`.
    """
    source, missing = Path(path), set(places)
    form = _format(source)
    rows: Iterable[object] = (
        [dict.fromkeys(_header(source))] if form == "csv" else objects(read(source))
    )
    for row in rows:
        missing = {place for place in missing if not has(row, place)}
        # all rows of a Parquet file have the same columns
        if not missing or (form != "json" and not any(has(row, p[:1]) for p in missing)):
            break
    return missing


def objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Decode lines as the service would, leaving out what is no JSON object.

    NaN and Infinity, which are no JSON either, are None: what a task makes of them it says itself.
    """
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:
                yield msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                plain, literals = without_literals(line)
                if literals:
                    yield msgspec.json.decode(plain, type=dict[str, Any])


def _format(path: Path) -> Form:
    form = form_of(path)
    if form is None:
        suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
        raise UsageError(
            f"{path}: cannot read files of type {suffix!r}; expected .csv, .tsv, .jsonl or .ndjson"
            " (each also with .gz) or .parquet"
        )
    try:
        found = path.stat()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:  # of a NUL in it
        raise UsageError(f"{str(path)!r}: cannot read: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "no plain file"
        raise UsageError(f"{path}: is {kind}; expected a file that can be read more than once")
    if found.st_size == 0:
        raise UsageError(f"{path}: the file is empty; expected at least one row")
    return form


@contextlib.contextmanager
def _broken_file(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path}: broken gzip data ({error}); fetch or compress it again"
        ) from error
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1].hex()
        raise UsageError(
            f"{path}: byte 0x{bad} is not UTF-8; convert the file with iconv"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error
    except Exception as error:  # pyarrow raises many kinds, of broken files and of absurd dates
        if form_of(path) != "parquet" or isinstance(error, UsageError):
            raise
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not readable as Parquet: {reason}") from error


def _guarded(path: Path, items: Iterator[_Item]) -> Iterator[_Item]:
    """Read the first item now, so that a file that cannot be used is refused at the call."""

    def checked() -> Iterator[_Item]:
        with _broken_file(path):
            yield from items

    rows = checked()
    try:
        first = next(rows)
    except StopIteration:
        raise UsageError(f"{path}: no rows; expected at least one") from None
    return chain((first,), rows)


def _open(path: Path) -> BinaryIO:
    packed = path.suffix.lower() == ".gz"
    return cast(BinaryIO, gzip.open(path) if packed else path.open("rb"))


def _json_lines(path: Path) -> Iterator[bytes]:
    with _open(path) as lines:
        first = lines.readline().removeprefix(codecs.BOM_UTF8)
        for line in chain((first,), lines):
            if row := line.strip():
                yield row


def _csv_records(path: Path) -> Iterator[list[str]]:
    # utf-8-sig: spreadsheets begin their files with a byte order mark.
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as text:
        first = text.readline()
        outside_quotes = re.sub(r'"[^"]*"', "", first)
        delimiter = max(_delimiters(path), key=outside_quotes.count)
        # strict: a quote that is left open would swallow the rows after it.
        records = csv.reader(chain((first,), text), delimiter=delimiter, strict=True)
        try:
            yield from filter(None, records)
        except csv.Error as error:
            raise UsageError(
                f"{path}: line {records.line_num} is not CSV ({error}); is a quote left open?"
            ) from error


def _delimiters(path: Path) -> str:
    return "\t" if ".tsv" in path.name.lower() else ",;\t"


def _header(path: Path) -> list[str]:
    cells = next(_guarded(path, _csv_records(path)))
    names = [cell.strip() or f"column_{i}" for i, cell in enumerate(cells, 1)]
    if all(_NUMBER.fullmatch(name) for name in names):
        raise UsageError(
            f"{path}: the first line holds numbers, not column names; add a header line"
        )
    return _each_once(path, names)


def _each_once(path: Path, names: list[str]) -> list[str]:
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{path}: two columns are called {double[0]!r}; rename one")
    return names


def _csv_rows(path: Path, names: Sequence[str], kinds: Sequence[Kind]) -> Iterator[bytes]:
    """Check a whole row with one regular expression and print it with one template.

    Only rows with a cell that is not JSON as it stands (missing, quoted, "+5") are taken apart.
    """
    keys = [json.dumps(name, ensure_ascii=False) for name in names]
    template = ",".join(
        key.replace("%", "%%") + (":%s" if kind == "number" else ':"%s"')
        for key, kind in zip(keys, kinds, strict=True)
    )
    template = "{" + template + "}"
    plain_row = re.compile(
        "\x1f".join(_JSON_NUMBER if kind == "number" else _PLAIN_STRING for kind in kinds)
    ).fullmatch
    cell_json: list[Callable[[str], str]] = [
        _number_json if kind == "number" else _string_json for kind in kinds
    ]
    width = len(names)
    for row in islice(_csv_records(path), 1, None):
        if len(row) == width and plain_row("\x1f".join(row)):
            yield (template % tuple(row)).encode()
        else:
            pairs = [f"{k}:{f(c)}" for k, f, c in zip(keys, cell_json, row, strict=False)]
            if len(row) > width:
                pairs.append('"_extra":' + json.dumps(row[width:], ensure_ascii=False))
            elif len(row) < width:
                pairs.append('"_absent":[' + ",".join(keys[len(row) :]) + "]")
            yield ("{" + ",".join(pairs) + "}").encode()


def _string_json(cell: str) -> str:
    return "null" if cell.strip() in MISSING else json.dumps(cell, ensure_ascii=False)


def _number_json(cell: str) -> str:
    text = cell.strip()
    if text in MISSING:
        return "null"
    if _NUMBER.fullmatch(text):
        if len(text) < 19 and text.lstrip("+-").isdigit():
            return str(int(text))
        number = float(text)
        if abs(number) != float("inf"):
            return repr(number)
    return json.dumps(cell, ensure_ascii=False)


def _parquet_rows(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet

    from headrace.stream.formats.arrow import batch_rows

    with pyarrow.parquet.ParquetFile(path) as file:
        names = _each_once(path, file.schema_arrow.names)
        for batch in file.iter_batches(_PARQUET_BATCH_ROWS):
            yield from batch_rows(batch, names)
