"""Rows of files that know the types of their columns: Parquet, Arrow, Avro, workbooks."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.formats.cells import is_missing
from headrace.stream.formats.dialect import each_once
from headrace.stream.formats.places import Place
from headrace.stream.formats.unpack import bytes_taken, open_unpacked

_BATCH_ROWS = 4096
_ABOUT_BYTES = 1 << 20  # of a file, that say how long its rows are
_WORKBOOK_BYTES = 1 << 30  # unpacked, which is held in memory


@contextlib.contextmanager
def broken(place: Place, form: str) -> Iterator[None]:
    """Say in one line what is wrong with a file: its readers raise errors of many kinds."""
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{place}: not readable as {form}: {reason}") from error


def parquet_rows(place: Place, groups: Sequence[int] | None = None) -> Iterator[bytes]:
    """Yield the rows of a Parquet file as JSON, or those of some of its row groups."""
    from headrace.stream.formats.arrow import batch_rows

    with _parquet(place) as file, broken(place, "Parquet"):
        names = each_once(place, file.schema_arrow.names)
        row = 0
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups):
            yield from _located(place, row, batch_rows(batch, names))
            row += batch.num_rows


def parquet_names(place: Place) -> list[str]:
    """Return the names of a Parquet file's columns."""
    with _parquet(place) as file:
        return list(file.schema_arrow.names)


def parquet_shape(place: Place) -> tuple[int, int]:
    """Return how many rows, and how many row groups, a Parquet file has."""
    with _parquet(place) as file:
        return int(file.metadata.num_rows), int(file.metadata.num_row_groups)


@contextlib.contextmanager
def _parquet(place: Place) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        contextlib.closing(place.open()) as raw,
        broken(place, "Parquet"),
        pq.ParquetFile(pa.PythonFile(raw, "r"), pre_buffer=False) as file,
    ):
        yield file


def arrow_rows(place: Place) -> Iterator[bytes]:
    """Yield the rows of Arrow's IPC format as JSON, of a file or of a stream."""
    import pyarrow as pa

    from headrace.stream.formats.arrow import batch_rows

    with _arrow(place) as (_, reader):
        batches = reader
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            batches = map(reader.get_batch, range(reader.num_record_batches))
        names = each_once(place, reader.schema.names)
        row = 0
        for batch in batches:
            batch.validate(full=True)  # what offsets say is not trusted
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                part = batch.slice(start, _BATCH_ROWS)
                yield from _located(place, row, batch_rows(part, names))
                row += part.num_rows


def about_arrow_rows(place: Place) -> int:
    """Return how many rows Arrow's IPC format has: of a long stream about, by how it begins."""
    import pyarrow as pa

    with _arrow(place) as (raw, reader):
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            count = reader.num_record_batches  # as long as the first one, but for the last
            ends = [reader.get_batch(at).num_rows for at in {0, max(count - 1, 0)} if at < count]
            return int(ends[0] * (count - 1) + ends[-1]) if ends else 0
        return _about(place, raw, (batch.num_rows for batch in reader))


def _about(place: Place, raw: Any, counts: Iterable[int]) -> int:
    """Return about how many rows there are, by those of the first blocks of a file."""
    rows = 0
    for count in counts:
        rows += count
        if place.size and (taken := bytes_taken(raw)) >= _ABOUT_BYTES:
            return rows * place.size // min(taken, place.size)
    return rows


@contextlib.contextmanager
def _arrow(place: Place) -> Iterator[Any]:
    """Open Arrow's IPC format: yield the file, and the reader of a file or of a stream."""
    import pyarrow as pa

    with contextlib.closing(place.open()) as raw:
        is_file = raw.read(6) == b"ARROW1"
    opened = place.open if is_file else lambda: open_unpacked(place)
    with contextlib.closing(opened()) as raw, broken(place, "Arrow"):
        open_ipc = pa.ipc.open_file if is_file else pa.ipc.open_stream
        yield raw, open_ipc(pa.PythonFile(raw, "r"))


def _located(place: Place, row: int, rows: Iterator[bytes]) -> Iterator[bytes]:
    """Pass rows on, and say what cannot be read among them, and where."""
    try:
        yield from rows
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None
    except Exception as error:
        last = row + _BATCH_ROWS
        raise ValueError(f"{error} (among the rows {row + 1:,} to {last:,})") from error


def avro_rows(place: Place) -> Iterator[bytes]:
    """Yield the records of an Avro object file as JSON."""
    from headrace.stream.formats.arrow import rows_as_json

    fastavro = _fastavro(place)
    with contextlib.closing(open_unpacked(place)) as raw, broken(place, "Avro"):
        records: Any = fastavro.reader(raw)
        schema: Any = records.writer_schema
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise UsageError(f"{place}: holds no records; expected an Avro schema of type record")
        names = [field["name"] for field in schema["fields"]]
        while part := list(islice(records, _BATCH_ROWS)):
            yield from rows_as_json(
                names, ([_plain(record[name]) for name in names] for record in part)
            )


def about_avro_rows(place: Place) -> int:
    """Return how many records an Avro object file has: of a long one about, by how it begins."""
    fastavro = _fastavro(place)
    with contextlib.closing(open_unpacked(place)) as raw, broken(place, "Avro"):
        return _about(place, raw, (block.num_records for block in fastavro.block_reader(raw)))


def _fastavro(place: Place) -> Any:
    try:
        import fastavro
    except ImportError:
        raise _lacking(place, "Avro", "avro") from None
    return fastavro


def workbook_rows(place: Place) -> Iterator[bytes]:
    """Yield the rows of a workbook's one sheet that is not empty as JSON; the first has the names.

    Raises:
        UsageError: no sheet has rows, or several have; it is too large, or broken.
    """
    from headrace.stream.formats.arrow import rows_as_json

    try:
        from python_calamine import CalamineWorkbook
    except ImportError:
        raise _lacking(place, "a workbook", "excel") from None
    with contextlib.closing(place.open()) as raw, broken(place, "a workbook"):
        data = io.BytesIO(raw.read(_WORKBOOK_BYTES))
        with zipfile.ZipFile(data) as parts:
            if not any(name.startswith("xl/") for name in parts.namelist()):
                raise UsageError(f"{place}: is a zip archive, and no workbook; unpack it")
            if sum(part.file_size for part in parts.infolist()) > _WORKBOOK_BYTES:
                raise UsageError(f"{place}: has more than 1 GiB when unpacked; save it as CSV")
        data.seek(0)
        book = CalamineWorkbook.from_filelike(data)
        sheets = {name: book.get_sheet_by_name(name) for name in book.sheet_names}
        filled = {name: sheet for name, sheet in sheets.items() if sheet.height}
        if len(filled) != 1:
            told = ", ".join(map(repr, filled)) or "none"
            raise UsageError(
                f"{place}: expected one sheet with rows, has {told}; keep one, or save it as CSV"
            )
        [sheet] = filled.values()
        rows = iter(sheet.iter_rows())
        header = [str(cell).strip() or f"column_{at}" for at, cell in enumerate(next(rows), 1)]
        names = each_once(place, header)
        while part := list(islice(rows, _BATCH_ROWS)):
            yield from rows_as_json(names, (map(_cell, row) for row in part if _is_filled(row)))


def _is_filled(row: Iterable[Any]) -> bool:
    return any(cell != "" for cell in row)


def _cell(cell: Any) -> Any:
    if isinstance(cell, str):
        return None if is_missing(cell) else cell
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)  # a workbook has no other numbers
    return _plain(cell)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, or as msgspec puts it there: times are of UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _lacking(place: Place, what: str, extra: str) -> UsageError:
    return UsageError(f"{place}: to read {what}, pip install 'headrace[{extra}]'")
