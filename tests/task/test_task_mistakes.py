from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.stream.errors import TaskError
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, parse, validate
from headrace.stream.task.places import places

GOOD = """name = "power"
[input]
topic = "events.power"
entity = "site"
[target]
field = "price"
kind = "classify"
classes = ["low", "high"]
[features]
load = { kind = "number", min = 0 }
site = { kind = "category" }
"""
WRONG = tomllib.loads((Path(__file__).parent / "wrong_tasks.toml").read_text())["wrong"]


def told(text: str) -> list[str]:
    with pytest.raises(TaskError) as caught:
        parse(text, "t.toml")
    return [*caught.value.args]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(wrong["stands"])[-40:])
def test_each_mistake_is_told_with_its_place_and_what_is_expected(wrong: dict[str, Any]) -> None:
    assert wrong["instead"] in GOOD
    assert told(GOOD.replace(wrong["instead"], wrong["stands"], 1)) == wrong["told"]


def test_the_task_that_is_changed_is_right() -> None:
    assert parse(GOOD, "t.toml").name == "power"


def test_no_words_of_a_library_are_shown() -> None:
    lines = [line for wrong in WRONG for line in wrong["told"]]
    for word in ("Input should", "valid", "pydantic", "constrained", "tuple", "discriminator", "^"):
        assert not [line for line in lines if word in line and "not TOML" not in line]


def test_a_table_without_a_file_has_no_place() -> None:
    with pytest.raises(TaskError, match=r"^here: model\.chunk = true: expected a whole number"):
        validate({**tomllib.loads(GOOD), "model": {"chunk": True}}, "here")


@pytest.mark.parametrize(
    ("instead", "stands", "line"),
    [
        (
            "min = 0",
            'unit = "degQ", to = "degC"',
            "t.toml:10:27: features.load.unit = 'degQ' to 'degC': ",
        ),
        (
            "[input]",
            'hash_key_file = "/nowhere/key"\n[input]',
            "t.toml:2:1: hash_key_file = /nowhere/key: cannot be read: No such file or directory",
        ),
    ],
)
def test_a_mistake_that_shows_when_rows_are_made_has_its_place_too(
    instead: str, stands: str, line: str
) -> None:
    task = parse(GOOD.replace(instead, stands, 1), "t.toml")
    with pytest.raises(TaskError) as caught:
        Normalizer(task)
    assert str(caught.value).startswith(line)


def test_numbers_of_numpy_are_numbers() -> None:
    model = {"chunk": np.int64(32), "hidden": (np.int32(8),), "learning_rate": np.float32(0.5)}
    task = validate({**tomllib.loads(GOOD), "model": model}, "here")
    assert (task.model.chunk, task.model.hidden, task.model.learning_rate) == (32, (8,), 0.5)
    assert type(task.model.chunk) is int
    with pytest.raises(TaskError, match=r"model\.chunk"):
        validate({**tomllib.loads(GOOD), "model": {"chunk": np.True_}}, "here")


def test_where_a_task_was_read_is_no_part_of_it() -> None:
    here, there = parse(GOOD, "here.toml"), parse(f"# moved\n{GOOD}", "there.toml")
    assert here == there == Task.model_validate(tomllib.loads(GOOD))
    assert here.model_dump() == there.model_dump()


def test_places_are_found_through_all_of_toml() -> None:
    text = '''# a comment with [brackets] = and "quotes"
a.b = 1
"x y".'z' = """
[not.a.table]
"""  # behind it
list = [ 1, # one
  "two, ]", { c = 3 },
]
[t] # head
s = \'it"s\'
d = 1979-05-27 07:32:00Z
[t."u.v"]
w = { x = { y = [[0], []] } }
[[many]]
k = 1
[[many]]
k = 2
'''
    tomllib.loads(text)
    found = places(text)
    assert {path: found[path] for path in found if path[0] != "t"} == {
        ("a",): (2, 1),
        ("a", "b"): (2, 1),
        ("x y",): (3, 1),
        ("x y", "z"): (3, 1),
        ("list",): (6, 1),
        ("list", 0): (6, 10),
        ("list", 1): (7, 3),
        ("list", 2): (7, 13),
        ("list", 2, "c"): (7, 15),
        ("many",): (14, 1),
        ("many", 0): (14, 1),
        ("many", 0, "k"): (15, 1),
        ("many", 1): (16, 1),
        ("many", 1, "k"): (17, 1),
    }
    assert found["t", "d"] == (11, 1)
    assert found["t", "u.v", "w", "x", "y", 0, 0] == (13, 19)
