"""What is blamed for a drift: streams in which it is known what broke, when, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.blame import Blame, blame
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import Task, parse

COUNT, BROKEN = 4000, 2500
TASK = """
name = "t"
[input]
topic = "t"
entity = "who"
[features]
a = { kind = "number" }
b = { kind = "number" }
c = { kind = "number" }
[model]
neighbours = 100
"""
CLASSES = '[target]\nfield = "y"\nkind = "classify"\nclasses = ["no", "yes"]\n'
NUMBERS = '[target]\nfield = "y"\nkind = "regress"\n'
LATER = NUMBERS + "horizon = 2\n"


def drawn(broken: str, where: str, target: str, path: Path) -> Task:
    """Write a stream in which an input says nothing any more from BROKEN on, of some entities."""
    rng = np.random.default_rng(3)
    inputs, who = rng.normal(size=(COUNT, 3)), rng.integers(0, 4, COUNT)
    level = 2 * inputs[:, 0] + 2 * inputs[:, 1] + rng.normal(size=COUNT) / 5
    if target == LATER:  # the label of the row two rows of the entity before
        for one in range(4):
            rows = np.flatnonzero(who == one)
            level[rows[2:]] = level[rows[:-2]]
    late = np.arange(COUNT) >= BROKEN
    bad = late & ((who == 1) if where == "w1" else True)
    at = "abc".index(broken)
    inputs[bad, at] = rng.normal(size=bad.sum())
    lines = ["who,a,b,c,y"]
    for row in range(COUNT):
        label = ("yes" if level[row] > 0 else "no") if target == CLASSES else f"{level[row]:.4f}"
        lines.append(f"w{who[row]},{','.join(f'{x:.4f}' for x in inputs[row])},{label}")
    path.write_text("\n".join(lines) + "\n")
    return parse(TASK + target, "t")


def of_the_break(found: list[Blame]) -> Blame:
    """Return what is said of the first alarm behind BROKEN."""
    return next(each for each in found if each.at > BROKEN)


@pytest.mark.parametrize("target", [CLASSES, NUMBERS, LATER], ids=["classes", "numbers", "horizon"])
@pytest.mark.parametrize("broken", ["a", "b"])
def test_the_input_that_broke_is_blamed_and_when_it_did(
    tmp_path: Path, broken: str, target: str
) -> None:
    path = tmp_path / "t.csv"
    task = drawn(broken, "everywhere", target, path)
    told = of_the_break(blame(task, str(path)))
    assert abs(told.since - BROKEN) < 60
    assert told.after > told.before
    assert max(told.inputs, key=lambda name: told.inputs[name]) == broken
    assert told.inputs[broken] > 4 * told.noise[broken]
    assert abs(told.inputs["c"]) < 4 * told.noise["c"] + 0.01
    rise = told.after - told.before
    assert sum(told.inputs.values()) + told.rest == pytest.approx(rise)
    assert sum(told.sources.values()) == pytest.approx(rise)
    assert told.inputs[broken] > rise / 2


def test_the_entity_whose_input_broke_is_blamed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    told = of_the_break(blame(drawn("a", "w1", NUMBERS, path), str(path)))
    first, *others = told.sources.items()
    assert first[0] == "w1"
    assert first[1] > 4 * max(part for _, part in others)


def test_alarms_are_those_of_an_evaluation_and_a_change_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    task = drawn("a", "everywhere", NUMBERS, path)
    found = blame(task, str(path))
    alarms = [each["at"] for each in evaluate(task, str(path)).drifts]
    assert {each.at for each in found} <= {*alarms}
    assert len({each.since for each in found}) == len(found) > 0


def test_a_quiet_stream_blames_nobody(tmp_path: Path, run: Any) -> None:
    path, file = tmp_path / "t.csv", tmp_path / "t.toml"
    task = drawn("c", "everywhere", CLASSES, path)
    assert task
    file.write_text(TASK + CLASSES)
    told = run("blame", str(file), "-i", str(path))
    assert told.code == 0
    assert "no drift alarm" in told.out


def test_the_command_draws_it_and_tells_machines(tmp_path: Path, run: Any) -> None:
    path, file = tmp_path / "t.csv", tmp_path / "t.toml"
    drawn("a", "w1", NUMBERS, path)
    file.write_text(TASK + NUMBERS)
    told = run("blame", str(file), "-i", str(path)).out.splitlines()
    assert max(map(len, told)) <= 80
    found = json.loads(run("blame", str(file), "-i", str(path), "--json").out)["alarms"]
    (heading,) = [at for at, line in enumerate(told) if "rose" in line]
    rose = next(each for each in found if each["after"] > each["before"])
    assert f"row {rose['at']:,}" in told[heading]
    assert told[heading + 1].split()[0] == max(
        rose["inputs"], key=lambda name: abs(rose["inputs"][name])
    )


def test_what_cannot_be_read_twice_or_has_late_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        blame(parse(TASK + CLASSES, "t"), "-")
    late = parse(TASK + CLASSES + '[labels]\ntopic = "l"\n', "t")
    with pytest.raises(UsageError, match="late"):
        blame(late, str(tmp_path / "t.csv"))
