"""Learn a file as the service would learn a topic: the same normaliser and learner, no Kafka."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stream import files
from stream.errors import UsageError
from stream.events import DriftAlarm, Records, pointer
from stream.kinds import Image, Number, Text
from stream.normalize import Normalizer
from stream.task import Task
from stream.trainer import Pending, Trainer

BATCH = 4096


@dataclass(frozen=True)
class Evaluation:
    """Report a test-then-train run; `seconds` counts from the first row, compilation excluded."""

    events: int
    learned: int
    rejected: int
    seconds: float
    metrics: dict[str, Any]
    baselines: dict[str, Any]
    drifts: list[dict[str, Any]]
    codes: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Give what `--json` prints."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "events": self.events,
            "learned": self.learned,
            "rejected": self.rejected,
            "seconds": round(self.seconds, 3),
            "events_per_second": round(self.events / max(self.seconds, 1e-9), 1),
            "peak_rss_mb": round(peak / (1 << 20 if sys.platform == "darwin" else 1024), 1),
            "metrics": self.metrics,
            "baselines": self.baselines,
            "drifts": self.drifts,
            "reject_codes": self.codes,
        }


def evaluate(
    task: Task,
    path: Path,
    *,
    limit: int | None = None,
    on_progress: Callable[[int, Callable[[], dict[str, Any]]], None] = lambda events, report: None,
) -> Evaluation:
    """Predict, score and learn each row of a file, in file order.

    Args:
        limit: rows to read at most.
        on_progress: called after each batch with the events so far, and a function that waits for
            the batch and gives the metrics.

    Raises:
        UsageError: the file cannot be read, or lacks a column that the task needs.
    """
    normalizer = Normalizer(task)
    trainer = Trainer(task, BATCH)
    started = time.perf_counter()
    codes: dict[str, int] = {}
    drifts: list[DriftAlarm] = []
    events = 0
    pending: Pending | None = None
    for records in _batches(task, path, limit):
        rows, refused = normalizer.normalize(records)
        rows, repeated = trainer.admit(rows, records.topic)
        for letter in (*refused, *repeated):
            codes[letter.code] = codes.get(letter.code, 0) + 1
        submitted = trainer.submit(rows) if rows.id else None
        if pending:
            drifts += trainer.collect(pending).alarms
        pending = submitted
        events += len(records.values)
        on_progress(events, trainer.report)
    if pending:
        drifts += trainer.collect(pending).alarms
    report = trainer.report()
    return Evaluation(
        events=events,
        learned=trainer.learned,
        rejected=sum(codes.values()),
        seconds=time.perf_counter() - started,
        metrics={scope: report[scope] for scope in ("all", "window")},
        baselines=report["baselines"],
        drifts=[
            {"at": alarm.offset, "detector": alarm.detector}
            | {"before": alarm.before, "after": alarm.after}
            for alarm in drifts
        ],
        codes=codes,
    )


def _batches(task: Task, path: Path, limit: int | None) -> Iterator[Records]:
    """Cut the file's rows into records as a topic would give them; the offset is the row."""
    rows = islice(_with_ids(task, path), limit)
    first = 0
    while values := list(islice(rows, BATCH)):
        count = len(values)
        yield Records(
            topic=str(path),
            values=list(values),
            keys=[None] * count,
            partitions=[0] * count,
            offsets=list(range(first, first + count)),
            timestamps_ms=[0] * count,
        )
        first += count


def _with_ids(task: Task, path: Path) -> Iterator[bytes]:
    """Read the file's rows, numbering them where they carry no id of their own."""
    sample = files.sample(path, 100)
    columns = dict.fromkeys(name for row in sample for name in row)
    _require(task, path, columns)
    kinds: dict[str, files.Kind] = {
        place: "number" if isinstance(feature, Number) else "string"
        for name, feature in task.features.items()
        if isinstance(feature, Number | Text | Image)
        and (place := feature.field or name) in columns
    }
    typed = kinds if path.name.removesuffix(".gz").endswith((".csv", ".tsv")) else None
    rows = files.read(path, typed)
    if pointer(task.input.id)[0] in columns:
        return rows
    key = json.dumps(task.input.id)
    return (b"{%s:%d,%s" % (key.encode(), n, row[1:]) for n, row in enumerate(rows))


def _require(task: Task, path: Path, columns: dict[str, None]) -> None:
    """Refuse a file without a column that the task names."""
    named = {
        "target.field": task.target.field,
        "input.time": task.input.time,
        "input.entity": task.input.entity,
    } | {f"features.{name}": f.field or name for name, f in task.features.items()}
    for key, field in named.items():
        if field and pointer(field)[0] not in columns:
            raise UsageError(
                f"{path}: no column {field!r} for {key}; the file has {', '.join(columns)}"
            )
