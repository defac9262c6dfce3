"""Rows of a file that is not in the order of its times are told, by infer, check and evaluate."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.stream.evaluation.infer import Options, guess_file
from headrace.stream.evaluation.inspection import inspect_file

START = datetime(2026, 1, 31, tzinfo=UTC)


def told(path: Path, minutes: list[float]) -> list[str]:
    """Return what is warned of in a file with these times, of which its task names the column."""
    draw = random.Random(1).random
    times = [(START + timedelta(minutes=minute)).isoformat() for minute in minutes]
    rows = [f"{time},{draw()},{at % 7}.5" for at, time in enumerate(times)]
    path.write_text("\n".join(["time,x,y", *rows]) + "\n")
    task = guess_file(path, "y", Options(kind="regress")).task
    assert task.input.time == "time"
    return [line for line in inspect_file(task, path).doubts() if "as they stand" in line]


def test_rows_in_order_or_late_by_a_little_are_as_they_should_be(tmp_path: Path) -> None:
    assert told(tmp_path / "a.csv", [*range(5000)]) == []
    late = [at - 3 * (at % 5 == 0) for at in range(5000)]
    assert told(tmp_path / "b.csv", [*late]) == []
    assert told(tmp_path / "c.csv", [7.0] * 60) == []


@pytest.mark.parametrize("rows", [20, 6000])
def test_the_newest_first_is_told(tmp_path: Path, rows: int) -> None:
    [line] = told(tmp_path / "a.csv", [*range(rows, 0, -1)])
    assert line == (
        "warning: time: the newest row comes first; rows are learned as they stand: sort them, "
        "oldest first"
    )


def test_files_one_after_the_other_are_told_with_how_far_they_go_back(tmp_path: Path) -> None:
    [line] = told(tmp_path / "a.csv", [*range(4000), *range(4000), *range(100)])
    assert "time: 2 of 8,100 rows are older than the one before, by up to 2 days, 18:39:00" in line
