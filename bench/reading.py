"""How fast files become rows of the learner, and what it takes in memory; beside other readers."""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bench.arena import OnProgress
from headrace.stream.evaluation.evaluate import BATCH
from headrace.stream.evaluation.file_rows import FileRows
from headrace.stream.evaluation.infer import infer_file
from headrace.stream.process.garbage import tune_memory
from headrace.stream.rows.normalizer import Normalizer

FORMS = ("csv", "jsonl", "parquet")
_PART = 100_000


def reading(*, rows: int, on_progress: OnProgress = lambda note: None) -> dict[str, Any]:
    """Write a table of 8 columns (a time, a word, five numbers, a class) in each form and read it.

    All of it on one thread; CPU seconds, as machines are shared.

    Returns:
        by form: `mb`; rows a second of CPU: `arrays` (read and normalised, nothing learned), `read`
        (as JSON) and `peer` (Python's csv, msgspec's decoder, pyarrow's to_pylist); `infer_s`, wall
        seconds to guess a task from it; `growth_mb`, by how much resident memory was higher at its
        peak than after the first tenth.
    """
    tune_memory()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _write(folder, rows)
        return {
            form: _measure(folder / f"rows.{form}", form, on_progress) | {"rows": rows}
            for form in FORMS
        }


def table(found: dict[str, Any]) -> str:
    """Return it for a person."""
    lines = ["form      MB  arrays/s     read/s     peer/s  infer s  growth MB"]
    lines += [
        f"{form:8}{of['mb']:4,.0f}{of['arrays']:10,.0f}{of['read']:11,.0f}{of['peer']:11,.0f}"
        f"{of['infer_s']:9.1f}{of['growth_mb']:11,.0f}"
        for form, of in found.items()
    ]
    return "\n".join(lines)


def _measure(path: Path, form: str, on_progress: OnProgress) -> dict[str, float]:
    on_progress(f"reading: {form}")
    started = time.perf_counter()
    task = infer_file(path, "class")
    infer_s = time.perf_counter() - started
    peaks: list[float] = []

    def arrays() -> int:
        source = FileRows(task, path, None)
        normalizer, count = Normalizer(source.task), 0
        while (records := source.take(BATCH)).values:
            normalised, refused = normalizer.normalize(records)
            count += len(normalised.id) + len(refused)
            peaks.append(_resident_mb())
        return count

    def read() -> int:
        source, count = FileRows(task, path, None), 0
        while taken := len(source.take(BATCH).values):
            count += taken
        return count

    rates = {"arrays": _rate(arrays), "read": _rate(read), "peer": _rate(lambda: _peer(path, form))}
    growth_mb = max(peaks) - peaks[len(peaks) // 10]
    mb = path.stat().st_size / 1e6
    return rates | {"mb": mb, "infer_s": infer_s, "growth_mb": growth_mb}


def _rate(run: Callable[[], int]) -> float:
    started = time.process_time()
    count = run()
    return count / (time.process_time() - started)


def _peer(path: Path, form: str) -> int:
    if form == "csv":
        with path.open(newline="") as file:
            return sum(1 for _ in csv.reader(file)) - 1
    if form == "jsonl":
        with path.open("rb") as file:
            return sum(1 for _ in map(msgspec.json.decode, file))
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return sum(len(batch.to_pylist()) for batch in file.iter_batches(BATCH))


def _resident_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1024)


def _write(folder: Path, rows: int) -> None:
    random, writer = np.random.default_rng(1), None
    with ExitStack() as stack:
        text = stack.enter_context((folder / "rows.csv").open("wb"))
        lines = stack.enter_context((folder / "rows.jsonl").open("w"))
        for first in range(0, rows, _PART):
            part = _part(random, first, min(_PART, rows - first))
            header = first == 0
            pyarrow.csv.write_csv(part, text, pyarrow.csv.WriteOptions(include_header=header))
            lines.writelines(json.dumps(row) + "\n" for row in part.to_pylist())
            if writer is None:
                path = folder / "rows.parquet"
                writer = stack.enter_context(pq.ParquetWriter(path, part.schema))
            writer.write_table(part)


def _part(random: np.random.Generator, first: int, count: int) -> Any:
    seconds = np.arange(first, first + count) + 1_700_000_000
    times = np.char.add(np.datetime_as_string(seconds.astype("datetime64[s]")), "Z")
    return pa.table(
        {
            "time": pa.array(times.tolist()),
            "station": pa.array(random.choice(["north", "south", "east"], count).tolist()),
            "a": random.normal(size=count).round(4),
            "b": random.normal(20, 5, count).round(2),
            "c": random.integers(0, 1000, count),
            "d": random.random(count),
            "e": random.normal(size=count).round(3),
            "class": pa.array(random.choice(["up", "down"], count).tolist()),
        }
    )
