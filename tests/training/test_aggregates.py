"""Aggregates of an entity's events within a time, beside what Python counts by the definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.model.aggregates import BUCKETS, LATE
from headrace.stream.errors import TaskError
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task, parse
from headrace.stream.task.features import Aggregate
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer
from tests.support.json_rows import rows_of

TASK = """
name = "spend"
input = { topic = "t", entity = "who", time = "time" }
target = { field = "y", kind = "classify", classes = ["ok", "bad"] }
lags = { entities = 64, traces = [8] }
drift = { detectors = [] }
[features]
amount = { kind = "number" }
shop = { kind = "category" }
n = { kind = "aggregate", statistic = "count", seconds = 160 }
spent = { kind = "aggregate", statistic = "sum", of = "amount", seconds = 160 }
spent_long = { kind = "aggregate", statistic = "sum", of = "amount", seconds = 4000 }
mean = { kind = "aggregate", statistic = "mean", of = "amount", seconds = 160 }
most = { kind = "aggregate", statistic = "max", of = "amount", seconds = 160 }
least = { kind = "aggregate", statistic = "min", of = "amount", seconds = 2 }
shops = { kind = "aggregate", statistic = "distinct", of = "shop", seconds = 4000 }
gap = { kind = "aggregate", statistic = "since_last" }
[model]
chunk = 50
"""
START = 1_700_000_000_000  # milliseconds
Event = dict[str, Any]


def events(n: int, seed: int = 0, offset: float = 0.0) -> list[Event]:
    """Return events of a few entities, some without a number, some late, some after a long time."""
    rng = np.random.default_rng(seed)
    now = START + np.cumsum(rng.exponential(4000, n)).astype(int)
    now[n // 2 :] += 10_000_000
    late = rng.random(n) < 0.1
    times = np.where(late, now - rng.integers(0, 400_000, n), now)
    return [
        {
            "id": at,
            "who": int(rng.integers(0, 5)),
            "time": int(times[at]),
            "amount": None if rng.random() < 0.1 else offset + float(rng.normal(10, 5)),
            "shop": None if rng.random() < 0.1 else f"s{rng.integers(0, 40)}",
            "y": "ok" if rng.random() < 0.8 else "bad",
        }
        for at in range(n)
    ]


def columns(trainer: Trainer, rows: Rows, at: int = 50) -> NDArray[np.float64]:
    """Return the numbers of the last `at` rows as the model had them, a chunk at a time."""
    found = []
    for first in range(0, len(rows.id), at):
        trainer.collect(trainer.submit(take(rows, list(range(first, first + at)))))
        found.append(np.asarray(trainer._state.chunk.numeric, np.float64))
    return np.concatenate(found)


def expected(lines: list[Event], statistic: str, key: str, seconds: float) -> list[float]:
    """Go through all buckets of the entity for each event; a late one may find its bucket gone.

    One that is far in the future is given up.
    """
    width, found = max(round(seconds * 1000 / BUCKETS), 1), []
    rings: dict[int, dict[int, tuple[int, list[Any]]]] = {}
    for line in lines:
        ring, part = rings.setdefault(line["who"], {}), line["time"] // width
        there, kept = ring.get(part % BUCKETS, (-1, []))
        if there <= part or there >= part + LATE:
            kept = kept if there == part else []
            ring[part % BUCKETS] = part, kept
            value = 1.0 if statistic == "count" else line[key]
            if value is not None:
                kept.append(value)
        values = [v for p, kept in ring.values() if 0 <= part - p < BUCKETS for v in kept]
        if statistic == "count":
            found.append(math.log1p(len(values)))
        elif statistic == "sum":
            found.append(math.fsum(values))
        elif statistic == "distinct":
            found.append(float(len(set(values))))
        else:
            folds: dict[str, Callable[[list[float]], Any]]
            folds = {"mean": np.mean, "max": np.max, "min": np.min}
            found.append(float(folds[statistic](values)) if values else math.nan)
    return found


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_aggregates_are_what_the_definition_says(offset: float) -> None:
    task, lines = parse(TASK, "test"), events(1500, offset=offset)
    trainer = Trainer(task, 50)
    found = columns(trainer, rows_of(task, lines))
    assert task.columns[1:] == ["n", "spent", "spent_long", "mean", "most", "least", "shops", "gap"]
    frame = trainer._frame
    for at, name in list(enumerate(task.columns))[1:7]:
        each = task.features[name]
        assert isinstance(each, Aggregate) and each.seconds
        wanted = np.array(expected(lines, each.statistic, "amount", each.seconds))
        ours = found[:, at]
        ours, wanted = ours[100:], wanted[100:]  # where numbers are counted from is settled then
        ours = ours * frame.unit[at] + frame.origin[at]
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=2e-2 if offset else 2e-4)
    exact = np.array(expected(lines, "distinct", "shop", 4000))
    np.testing.assert_allclose(np.expm1(found[:, 7]), exact, rtol=0.25, atol=1.0)
    assert abs((np.expm1(found[:, 7]) / np.maximum(exact, 1)).mean() - 1) < 0.1
    newest: dict[int, int] = {}
    for line, gap in zip(lines, found[:, 8].tolist(), strict=True):
        before = newest.get(line["who"])
        if before is None:
            assert math.isnan(gap)
        else:
            apart = max(line["time"] - before, 0) / 1000
            assert gap == pytest.approx(math.log1p(apart), rel=1e-4, abs=1e-4)
        newest[line["who"]] = max(line["time"], before or 0)


def small(line: str) -> Task:
    text = TASK[: TASK.index("n = {")] + f'n = {{ kind = "aggregate", {line} }}\n'
    return parse(text, "test")


def seen(line: str, times: list[int], amounts: list[float] | None = None) -> NDArray[np.float64]:
    """Return an aggregate of events of one entity, in its own unit."""
    lines = [
        {"id": at, "who": 1, "time": time, "amount": amount, "shop": None, "y": "ok"}
        for at, (time, amount) in enumerate(zip(times, amounts or times, strict=True))
    ]
    trainer, task = Trainer(small(line), 50), small(line)
    found = columns(trainer, rows_of(task, lines), 1)[:, 1]
    return found * trainer._frame.unit[1] if amounts else np.expm1(found)


def test_a_clock_that_was_wrong_is_forgotten() -> None:
    times = [START, START + 5000, 4_000_000_000_000, *(START + 10_000 * n for n in range(1, 40))]
    assert seen('statistic = "count", seconds = 160', times)[-1] == pytest.approx(16)
    np.testing.assert_allclose(seen('statistic = "since_last"', times)[-30:], 10, rtol=1e-3)


def test_an_entity_may_come_back_after_years() -> None:
    times = [START + later + 100 * n for later in (0, 5 * 365 * 86_400_000) for n in range(20)]
    counts = seen('statistic = "count", seconds = 1', times)
    assert counts[20:25].round().tolist() == [1, 2, 3, 4, 5]


def test_small_amounts_add_up_beside_a_large_one() -> None:
    times, amounts = [START + n for n in range(2001)], [1e6, *2000 * [0.01]]
    found = seen('statistic = "sum", of = "amount", seconds = 160', times, amounts)
    assert found[-1] == pytest.approx(1_000_020, abs=0.2)


def test_aggregates_do_not_depend_on_cuts_and_go_on_from_a_snapshot() -> None:
    task = parse(TASK.replace("chunk = 50", "chunk = 1"), "test")
    rows = rows_of(task, events(300))
    whole = Trainer(task, 300)
    said = whole.collect(whole.submit(rows)).published
    parts, pieces, first = Trainer(task, 300), [], 0
    for end in (1, 2, 60, 200, 300):
        if first == 60:
            heir = Trainer(task, 300)
            heir.restore(parts.snapshot().tensors(), parts.learned)
            parts = heir
        part = take(rows, list(range(first, end)))
        pieces.append(parts.collect(parts.submit(part)).published)
        first = end
    np.testing.assert_array_equal(np.concatenate(pieces), said)
    assert digest(parts.snapshot().tensors()) == digest(whole.snapshot().tensors())


def test_what_somebody_spent_lately_is_learned() -> None:
    rng = np.random.default_rng(0)
    lines, spent = list[Event](), dict[int, list[tuple[int, float]]]()
    for at in range(6000):
        who, amount = int(rng.integers(0, 20)), float(rng.exponential(10))
        time = START + at * 5000
        kept = spent.setdefault(who, [])
        kept.append((time, amount))
        total = sum(value for when, value in kept if time - when < 600_000)
        lines.append({"id": at, "who": who, "time": time, "amount": amount, "shop": None})
        lines[-1]["y"] = "bad" if total > 70 else "ok"
    with_sum = """
name = "spend"
input = { topic = "t", entity = "who", time = "time" }
target = { field = "y", kind = "classify", classes = ["ok", "bad"] }
[features]
amount = { kind = "number" }
spent = { kind = "aggregate", statistic = "sum", of = "amount", seconds = 600 }
"""
    right = []
    for text in (with_sum, with_sum[: with_sum.index("spent =")]):
        task = parse(text, "test")
        trainer, rows = Trainer(task, 6000), rows_of(task, lines)
        right.append((trainer.collect(trainer.submit(rows)).answer == rows.label)[2000:].mean())
    assert right[0] > 0.93
    assert right[0] > right[1] + 0.05


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('statistic = "sum", seconds = 60', "sum needs of"),
        ('statistic = "sum", of = "amount"', "sum needs seconds"),
        ('statistic = "count", of = "amount", seconds = 60', "count takes no of"),
        ('statistic = "since_last", seconds = 60', "since_last takes no seconds"),
        ('statistic = "sum", of = "", seconds = 60', "of = '': expected text that is not empty"),
        ('statistic = "sum", of = "shop", seconds = 60', "of = 'shop': expected a number"),
        ('statistic = "distinct", of = "amount", seconds = 60', "expected a category"),
        (
            'statistic = "mean", of = "amount", seconds = 0',
            "seconds = 0: expected a number from 1",
        ),
        ('statistic = "median", of = "amount", seconds = 5', "statistic = 'median'"),
    ],
)
def test_what_cannot_be_aggregated_is_said(line: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        parse(
            TASK.replace(
                'n = { kind = "aggregate", statistic = "count", seconds = 160 }',
                f'n = {{ kind = "aggregate", {line} }}',
            ),
            "test",
        )
