"""Readers of the shared data: rows of a file as they stand, the label under "target"."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Row = dict[str, Any]
_MISSING = {"", "NA"}


def table(path: Path, *, target: str, drop: tuple[str, ...] = ()) -> Iterator[Row]:
    """Read a CSV file whose every column is used but those that are dropped."""
    for source in _csv(path):
        label = source.pop(target)
        yield {name: _cell(cell) for name, cell in source.items() if name not in drop} | {
            "target": label
        }


def smtp(path: Path) -> Iterator[Row]:
    """Read the KDD99 SMTP connections."""
    import numpy as np

    with np.load(path) as arrays:
        rows, labels = arrays["X"].tolist(), arrays["y"].tolist()
    for row, label in zip(rows, labels, strict=True):
        yield {f"x{n}": value for n, value in enumerate(row)} | {"target": str(label)}


def flights(path: Path) -> Iterator[Row]:
    """Read flights: was one more than 15 minutes late?"""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(4096):
            for row in batch.to_pylist():
                yield {
                    "time": _utc(row["date"].isoformat()),
                    "distance": row["distance"],
                    "origin": row["origin"],
                    "destination": row["destination"],
                    "target": "late" if row["delay"] > 15 else "in time",
                }


def tweets(path: Path) -> Iterator[Row]:
    """Read tweets about airlines: their sentiment."""
    for row in _csv(path):
        yield {"airline": row["airline"], "text": row["text"], "target": row["sentiment"]}


def sms(path: Path) -> Iterator[Row]:
    """Read text messages: spam or not; the file has no header and no quoting."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            label, _, text = line.rstrip("\n").partition("\t")
            if text:
                yield {"text": text, "target": label}


def youtube(path: Path) -> Iterator[Row]:
    """Read comments below videos: spam or not."""
    for row in _csv(path):
        yield {"author": row["author"], "content": row["content"], "target": row["spam"]}


def hacker_news(path: Path) -> Iterator[Row]:
    """Read posts: did one get 10 points or more?"""
    for row in _csv(path):
        yield {
            "time": _utc(row["created_at"]),
            "title": row["title"],
            "domain": urlsplit(row["url"]).netloc.removeprefix("www."),
            "author": row["author"],
            "target": "true" if int(row["num_points"]) >= 10 else "false",
        }


def pm25(path: Path) -> Iterator[Row]:
    """Read Beijing's hours: fine dust and weather."""
    names = {
        "DEWP": "dew_point",
        "TEMP": "temperature",
        "PRES": "pressure",
        "Iws": "wind_speed",
        "Is": "snow_hours",
        "Ir": "rain_hours",
    }
    for row in _csv(path):
        dust = _cell(row["pm2.5"])
        date = "-".join(row[part].zfill(2) for part in ("year", "month", "day"))
        yield {
            "time": f"{date}T{int(row['hour']):02}:00:00Z",
            "pm25": dust,
            **{name: _cell(row[column]) for column, name in names.items()},
            "wind_direction": row["cbwd"],
            "target": dust,
        }


def nab(path: Path, *, name: str) -> Iterator[Row]:
    """Read one series of the Numenta benchmark from its archive."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"nab/data/{name}.csv")
        if member is None:
            raise KeyError(name)
        for row in csv.DictReader(io.TextIOWrapper(member, "utf-8")):
            value = float(row["value"])
            yield {"time": _utc(row["timestamp"]), "value": value, "target": value}


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        yield from csv.DictReader(text)


def _cell(cell: str) -> float | int | str | None:
    """Read a number where it is one."""
    if cell in _MISSING:
        return None
    for read in (int, float):
        try:
            return read(cell)
        except ValueError:
            continue
    return cell


def _utc(time: str) -> str:
    """Write a time without a zone as UTC, as RFC 3339 has it."""
    return time.replace(" ", "T") + "Z"
