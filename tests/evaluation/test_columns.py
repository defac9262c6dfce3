"""Which columns are told to be leaks, constants, copies or ids; and which honest ones are not."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.stream.evaluation import columns
from headrace.stream.evaluation.columns import ColumnCheck, too_good
from headrace.stream.evaluation.infer import infer_file
from headrace.stream.evaluation.inspection import inspect_file
from headrace.stream.rows import outside
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, load, validate

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "producers/data"
REAL = [
    folder for folder in (ROOT.parent / "shared/data", Path("/work/shared/data")) if folder.is_dir()
]
RNG = np.random.default_rng(7)
ROWS = 3000
NOISE = RNG.normal(size=ROWS)
WALK = np.cumsum(RNG.normal(size=ROWS))
CLASS = RNG.integers(0, 4, ROWS)
RARE = (RNG.random(ROWS) < 0.003).astype(int)


def task_of(kind: str, features: Mapping[str, Any], **more: Any) -> Task:
    classes = {"classes": [*"0123"]} if kind == "classify" else {}
    target = {"field": "y", "kind": kind, **classes} | more.pop("target", {})
    source = {"topic": "e"} | more.pop("input", {})
    return validate(
        {"name": "t", "input": source, "target": target, "features": features, **more}, "t"
    )


def warned(task: Task, table: Mapping[str, Iterable[Any]], batch: int = 700) -> list[str]:
    """Return the warnings about rows that are given as columns."""
    values = [each.tolist() if isinstance(each, np.ndarray) else [*each] for each in table.values()]
    raws = [
        json.dumps({"id": at, **dict(zip(table, row, strict=True))}).encode()
        for at, row in enumerate(zip(*values, strict=True))
    ]
    check, normalizer = ColumnCheck(task), Normalizer(task)
    for at in range(0, len(raws), batch):
        rows, refused = normalizer.normalize(outside.records(task, "e", raws[at : at + batch], at))
        assert not refused
        check.add(rows)
    return check.warnings()


NUMBER, CATEGORY, TEXT = {"kind": "number"}, {"kind": "category"}, {"kind": "text"}
LEAKS: dict[str, tuple[str, Any, dict[str, str], Any, str]] = {
    "equal": ("regress", NOISE, NUMBER, NOISE, "is equal to the target y in all 3,000 rows"),
    "equal, slow": ("regress", WALK, NUMBER, WALK, "is equal to the target y"),
    "other unit": ("regress", WALK, NUMBER, 1.8 * WALK + 32, "sorts all 3,000 rows as the target"),
    "log": ("regress", np.exp(NOISE), NUMBER, NOISE, "sorts all 3,000 rows as the target y does"),
    "falling": ("regress", NOISE, NUMBER, -(NOISE**3), "sorts all 3,000 rows as the target"),
    "rounded": ("regress", NOISE, NUMBER, NOISE.round(), "sorts all 3,000 rows as the target"),
    "flag": ("regress", NOISE, NUMBER, (NOISE > 1) * 1, "sorts all 3,000 rows as the target y"),
    "level": ("regress", NOISE, CATEGORY, np.where(NOISE > 0, "hi", "lo"), "has one value for"),
    "square": ("regress", NOISE**2, NUMBER, NOISE, "alone tells the target y in"),
    "price list": ("regress", CLASS * 1.5, CATEGORY, [*map("p{}".format, CLASS)], "alone tells"),
    "code": ("classify", CLASS, NUMBER, 10 - CLASS, "alone tells the target y in 100 % of 3,000"),
    "finer": ("classify", CLASS, CATEGORY, CLASS * 100 + RNG.integers(0, 9, ROWS), "alone tells"),
    "coarser": ("classify", CLASS, CATEGORY, CLASS // 2, "has one value for each y in all 3,000"),
    "coarser number": ("classify", CLASS, NUMBER, CLASS // 2, "has one value for each y in all"),
    "threshold": ("classify", (NOISE > 0.3) * 1, NUMBER, NOISE, "alone tells the target y in"),
    "text": ("classify", CLASS, TEXT, [f"it is the class {at}" for at in CLASS], "alone tells"),
    "rare class": ("classify", RARE.repeat(4)[:ROWS], NUMBER, RARE.repeat(4)[:ROWS], ""),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_column_that_gives_the_target_away_is_named(leak: str) -> None:
    kind, target, feature, values, words = LEAKS[leak]
    honest = {"noise": NUMBER, "other": CATEGORY}
    task = task_of(kind, {"x": feature | {"field": "the x"}, **honest})
    table = {"y": target, "the x": values, "noise": RNG.normal(size=ROWS)}
    found = warned(task, {**table, "other": RNG.integers(0, 9, ROWS)})
    if not words:  # too few of it for anything to be said
        assert found == []
        return
    [line] = found
    assert line.startswith(f"x: {words}"), line
    assert line.endswith("if it is known only with y, it is a leak: leave it out (--drop the x)")


def test_a_leak_that_is_sometimes_missing_is_one() -> None:
    values = [None if at % 3 else value for at, value in enumerate(NOISE.tolist())]
    [line] = warned(task_of("regress", {"x": NUMBER}), {"y": NOISE, "x": values})
    assert "is equal to the target y in all 1,000 rows" in line


CLOCK = np.arange(ROWS) ** 1.01
ONE_CLASS = [
    value if label == 1 else None for value, label in zip(NOISE.tolist(), CLASS, strict=True)
]
HONEST: dict[str, tuple[str, Any, dict[str, str], Any]] = {
    "clock beside a slow target": ("regress", np.sin(CLOCK / 300), NUMBER, CLOCK),
    "clock beside slow classes": ("classify", np.arange(ROWS) // 50 % 4, NUMBER, CLOCK),
    "clock of a growing target": ("regress", CLOCK**2, NUMBER, CLOCK),
    "day beside slow classes": ("classify", np.arange(ROWS) // 50 % 4, CATEGORY, CLOCK // 30),
    "the label before": ("regress", WALK, NUMBER, np.roll(WALK, 1)),
    "noisy copy": ("regress", NOISE, NUMBER, NOISE + RNG.normal(size=ROWS) * 0.05),
    "noisy threshold": ("classify", (NOISE > 0) * 1, NUMBER, NOISE + RNG.normal(size=ROWS) * 0.1),
    "rare class": ("classify", RARE, NUMBER, NOISE),
    "rare event": ("regress", RARE * 5.0, NUMBER, NOISE),
    "sorted by class": ("classify", np.sort(CLASS), NUMBER, CLOCK),
    "there for one class": ("classify", CLASS, NUMBER, ONE_CLASS),
    "constant target": ("regress", np.ones(ROWS), NUMBER, NOISE),
    "no label": ("regress", [None] * ROWS, NUMBER, NOISE),
}


@pytest.mark.parametrize("column", HONEST)
def test_an_honest_column_is_not_accused(column: str) -> None:
    kind, target, feature, values = HONEST[column]
    assert warned(task_of(kind, {"x": feature}), {"y": target, "x": values}) == []


WHO = RNG.integers(0, 3, ROWS)


def later(values: Any, steps: int, who: Any = None) -> list[Any]:
    """Return for each row what its entity has so many of its rows later; None if nothing."""
    rows: dict[Any, list[int]] = {}
    found: list[Any] = [None] * len(values)
    for at, one in enumerate([0] * len(values) if who is None else who):
        mine = rows.setdefault(one, [])
        mine.append(at)
        if len(mine) > steps:
            found[mine[-1 - steps]] = values[at].item()
    return found


AHEAD: dict[str, tuple[str, Any, dict[str, str], int, Any, str]] = {
    "equal": ("regress", NOISE, NUMBER, 2, later(NOISE, 2), "is equal to the target y 2 events ah"),
    "slow": ("regress", WALK, NUMBER, 1, later(WALK, 1), "is equal to the target y 1 event ahead"),
    "unit": ("regress", WALK, NUMBER, 3, 2 - 5 * np.roll(WALK, -3), "sorts all 2,997 rows as"),
    "class": ("classify", CLASS, CATEGORY, 5, later(CLASS, 5), "alone tells the target y 5 events"),
}


@pytest.mark.parametrize("leak", AHEAD)
def test_what_tells_the_label_that_is_still_to_come_is_a_leak(leak: str) -> None:
    kind, target, feature, horizon, values, words = AHEAD[leak]
    task = task_of(kind, {"x": feature, "y": NUMBER}, target={"horizon": horizon})
    [line] = warned(task, {"y": target, "x": values})
    assert line.startswith(f"x: {words}"), line
    other = task_of(kind, {"x": feature, "y": NUMBER}, target={"horizon": horizon + 1})
    assert warned(other, {"y": target, "x": values}) == []


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_label_to_come_is_that_of_the_entity(
    monkeypatch: pytest.MonkeyPatch, horizon: int
) -> None:
    monkeypatch.setattr(columns, "BLOCK_ROWS", 700)
    names = [f"w{one}" for one in WHO]
    table: dict[str, Any] = {"y": NOISE, "who": names, "x": later(NOISE, horizon, WHO)}
    target = {"horizon": horizon}
    task = task_of("regress", {"x": NUMBER}, target=target, input={"entity": "who"})
    [line] = warned(task, table)
    told = ROWS - 5 * 3 * horizon  # of each block, the last rows of each entity have none
    assert f"{horizon} event{'s' * (horizon > 1)} ahead in all {told:,} rows" in line
    assert warned(task_of("regress", {"x": NUMBER}, target=target), table) == []


SAW = np.arange(ROWS) % 60 * 1.0
TURN = np.arange(ROWS) % 3
PRESENT: dict[str, tuple[str, Any, dict[str, str], Any]] = {
    "target": ("regress", NOISE, NUMBER, NOISE),
    "target in another unit": ("regress", NOISE, NUMBER, NOISE * 2),
    "slow target": ("regress", WALK, NUMBER, WALK),
    "saw": ("regress", SAW, NUMBER, SAW * 3),
    "classes in turn": ("classify", TURN, CATEGORY, TURN),
    "classes in turn as numbers": ("classify", TURN, NUMBER, TURN * 2),
    "slow classes": ("classify", np.arange(ROWS) // 50 % 4, CATEGORY, np.arange(ROWS) // 50 % 4),
    "the label before": ("classify", CLASS, CATEGORY, np.roll(CLASS, 1)),
}


@pytest.mark.parametrize("horizon", [1, 7])
@pytest.mark.parametrize("column", PRESENT)
def test_with_a_horizon_the_target_is_a_good_input(column: str, horizon: int) -> None:
    kind, target, feature, values = PRESENT[column]
    features = {"y": feature, "x": feature}
    task = task_of(kind, features, target={"horizon": horizon})
    lines = warned(task, {"y": target, "x": values})
    assert [line for line in lines if "the same as" not in line] == []


def test_a_suspicion_is_dropped_when_later_rows_speak_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(columns, "BLOCK_ROWS", 1000)
    values, copy, still = CLASS.copy(), NOISE.copy(), np.zeros(ROWS)
    values[2500:] = RNG.integers(0, 4, 500)
    copy[2500:] += 1
    still[-1] = 1
    features = {name: NUMBER for name in ("x", "noise", "copy", "still")}
    task = task_of("classify", features)
    table = {"y": CLASS, "x": values, "noise": NOISE, "copy": copy, "still": still}
    assert warned(task, table) == []
    head = {name: column[:2000] for name, column in table.items()}
    lines = warned(task, head)
    assert [line.partition(":")[0] for line in lines] == ["x", "still", "copy"]
    assert "in 100 % of 2,000 rows" in lines[0] or "100 % of 1,99" in lines[0]
    assert "the same as noise in 2,000 rows" in lines[2]


def test_columns_that_teach_nothing_are_named() -> None:
    task = task_of(
        "regress",
        {
            **{f"still {at}": NUMBER for at in range(7)},
            "gone": CATEGORY,
            "row": NUMBER,
            "name": CATEGORY,
            "color": CATEGORY,
            "farbe": CATEGORY,
            "x": NUMBER,
        },
        input={"entity": "who"},
    )
    color = RNG.integers(0, 3, ROWS)
    found = warned(
        task,
        {
            "y": NOISE,
            **{f"still {at}": [at] * ROWS for at in range(7)},
            "gone": [None] * ROWS,
            "row": np.arange(ROWS) * 60 + 1_700_000_000,
            "name": [f"n{at}" for at in range(ROWS)],
            "color": np.array(["red", "green", "blue"])[color],
            "farbe": np.array(["rot", "gruen", "blau"])[color],
            "x": RNG.normal(size=ROWS),
            "who": [f"w{at}" for at in range(ROWS)],
        },
    )
    said = [line.partition(":")[0] for line in found]
    assert said == [
        "still 0, still 1, still 2, still 3, still 4 and 3 more",
        "farbe",
        "name",
        "row",
        "input.entity = 'who'",
    ]
    assert "the same in all 3,000 rows" in found[0]
    assert "the same as color in 3,000 rows; leave one of them out" in found[1]
    assert "3,000 different values in 3,000 rows" in found[2]
    assert "changes by 60 from each row to the next" in found[3]


@pytest.mark.parametrize(
    ("example", "stream"), [("pm25", "sensor"), ("hackernews", "social"), ("spam", "text")]
)
def test_the_bundled_streams_are_clean(example: str, stream: str) -> None:
    seen = inspect_file(load(ROOT / f"examples/{example}.toml"), BUNDLED / f"{stream}.csv.gz", 4000)
    assert (seen.warnings, seen.refusals) == ((), ())
    assert seen.labelled > 3000


def test_so_are_the_digits_and_what_is_inferred_of_points_is_a_leak() -> None:
    seen = inspect_file(load(ROOT / "examples/digits.toml"), BUNDLED / "image.csv.gz")
    assert (seen.warnings, seen.rows) == ((), 1797)
    path = BUNDLED / "social.csv.gz"
    [line] = inspect_file(infer_file(path, "popular"), path, 4000).warnings
    assert line.startswith("points: alone tells the target popular in 100 % of 4,000 rows")


@pytest.mark.skipif(not REAL, reason="shared/data is not there: no real streams to be quiet about")
def test_electricity_is_clean_though_columns_stand_still_for_a_third_of_it() -> None:
    path = REAL[0] / "electricity.csv.gz"
    seen = inspect_file(infer_file(path, "class"), path)
    assert (seen.rows, seen.warnings) == (45_312, ())


def test_memory_is_bounded_and_few_rows_say_nothing() -> None:
    task = task_of("regress", {f"x{at}": NUMBER for at in range(300)})
    raw = json.dumps({"id": 1, "y": 1.0} | {f"x{at}": at for at in range(300)}).encode()
    rows, _ = Normalizer(task).normalize(outside.records(task, "e", [raw] * 49, 0))
    check = ColumnCheck(task)
    check.add(rows)
    assert check.warnings() == []
    rows.numeric[:] = RNG.normal(size=rows.numeric.shape)
    tracemalloc.start()
    for _ in range(600):
        check.add(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * columns.BLOCK_CELLS * 4


def report(metric: str, ours: float | None, baseline: float, events: int = 5000) -> dict[str, Any]:
    return {
        "all": {metric: ours, "events": events},
        "window": {metric: ours},
        "baselines": {"no_change": {"window": {metric: baseline}}},
    }


def test_a_score_that_is_too_good_is_told() -> None:
    assert too_good(report("accuracy", 0.999, 0.5)) == "accuracy 0.9990 in the newest rows"
    assert too_good(report("mae", 0.001, 1.0))
    assert too_good(report("accuracy", 0.99, 0.5)) is None
    assert too_good(report("accuracy", 0.9999, 0.998)) is None
    assert too_good(report("accuracy", 0.999, 0.5, events=900)) is None
    assert too_good(report("accuracy", 1.0, 1.0)) is None
    assert too_good(report("mae", None, 1.0)) is None


@pytest.mark.parametrize("told", [True, False])
def test_a_column_is_named_beside_such_a_score_only_if_it_tells_much(told: bool) -> None:
    task = task_of("regress", {"x": NUMBER, "z": NUMBER})
    noise = np.random.default_rng(4).normal(size=(4, ROWS))
    y = noise[2] if told else noise[3]
    raws = [
        json.dumps({"id": at, "y": y, "x": x, "z": z}).encode()
        for at, (y, x, z) in enumerate(zip(y, noise[2] ** 3, noise[1], strict=True))
    ]
    check = ColumnCheck(task)
    check.add(Normalizer(task).normalize(outside.records(task, "e", raws, 0))[0])
    check.warnings()
    best = check.best()
    assert best is not None
    assert best.startswith("x alone tells y in" if told else "no column alone tells y in most")
