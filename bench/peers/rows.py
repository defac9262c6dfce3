"""The rows of a prepared stream, as every peer is given them; standard library only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_CYCLES = {"hour": 24.0, "weekday": 7.0, "year": 365.25}


@dataclass(frozen=True)
class Rows:
    """Hold a stream: what is known before each prediction, and the label that comes after it.

    `x` holds numbers (missing ones filled), categories and texts by column; `y` a class name, a
    number, or None where it is not known.
    """

    classes: tuple[str, ...]  # none for a number
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    texts: tuple[str, ...]
    x: list[Row]
    y: list[Any]
    now: list[Any]  # the label of the row itself, known before the prediction if horizon is 1
    horizon: int

    def values(self, column: str) -> list[str]:
        """List the values of a category, sorted: some peers must be told them before the start."""
        return sorted({row[column] for row in self.x})


def read(stream: Path, count: int) -> Rows:
    """Read the first rows of a prepared stream; its description lies beside it.

    With a horizon of one row, the label of a row is that of the next: to learn it at once is then
    the same as to wait for that row.
    """
    about = json.loads(stream.with_suffix(".json").read_bytes())
    with stream.open("rb") as lines:
        found = [json.loads(line) for line in islice(lines, count)]
    kinds: dict[str, str] = about["features"]
    names = {kind: [n for n, k in kinds.items() if k == kind] for kind in set(kinds.values())}
    numbers = names.get("number", [])
    x, labels = list(_filled(found, kinds)), [row["target"] for row in found]
    for cycle in about["calendar"]:
        numbers = [*numbers, f"{cycle}_sin", f"{cycle}_cos"]
        for row, source in zip(x, found, strict=True):
            angle = 2 * math.pi * _phase(cycle, source["time"])
            row[f"{cycle}_sin"], row[f"{cycle}_cos"] = math.sin(angle), math.cos(angle)
    horizon = about["horizon"]
    return Rows(
        classes=tuple(about["classes"]),
        numbers=tuple(numbers),
        categories=tuple(names.get("category", ())),
        texts=tuple(names.get("text", ())),
        x=x[: len(x) - horizon],
        y=labels[horizon:],
        now=labels[: len(x) - horizon],
        horizon=horizon,
    )


def _filled(rows: list[Row], kinds: dict[str, str]) -> Iterator[Row]:
    """Yield the features of each row; for a missing number, the mean of those before it."""
    sums: dict[str, tuple[float, int]] = {}
    for source in rows:
        row: Row = {}
        for name, kind in kinds.items():
            value = source[name]
            if kind != "number":
                row[name] = "" if value is None else str(value)
                continue
            total, n = sums.get(name, (0.0, 0))
            if value is None:
                row[name] = total / n if n else 0.0
            else:
                row[name] = float(value)
                sums[name] = (total + float(value), n + 1)
        yield row


def _phase(cycle: str, time: str) -> float:
    """Return how far into a cycle a moment is, from 0 to 1."""
    at = datetime.fromisoformat(time)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    hour = at.hour + at.minute / 60
    places = {"hour": hour, "weekday": at.weekday(), "year": at.timetuple().tm_yday}
    return places[cycle] / _CYCLES[cycle]
