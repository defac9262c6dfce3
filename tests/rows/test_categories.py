"""What categories may be beside one value each: lists, spellings, combinations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.stream.errors import TaskError
from headrace.stream.task import Task, parse
from tests.support.json_rows import learn, normalised, rows_of

HEAD = """
name = "shop"
input = { topic = "t" }
target = { field = "y", kind = "classify", classes = ["no", "yes"] }
"""
LIST = '[features]\ntags = { kind = "category", several = true, max_tokens = 4 }\n'
SPELT = '[features]\ntags = { kind = "category", ngrams = [3, 3], max_tokens = 16 }\n'
PAIR = '[features]\na = { kind = "category" }\nb = { kind = "category" }\n'


def task(text: str) -> Task:
    return parse(HEAD + text, "test")


def ids(task: Task, *events: dict[str, Any]) -> NDArray[np.uint32]:
    return rows_of(task, [{"id": 1, **each} for each in events]).ids


def test_a_list_is_a_set_of_at_most_so_many_values() -> None:
    found = ids(
        task(LIST),
        {"tags": ["x", "y", 7]},
        {"tags": [7, "y", "X ", "x", None]},
        {"tags": "x"},
        {"tags": ["x"]},
        {"tags": []},
        {"tags": None},
        {"tags": [*range(100)]},
        {"tags": [*range(99, -1, -1)]},
    )
    kept = [{*row.tolist()} - {0} for row in found]
    assert len(kept[0]) == 3
    assert (found[0] == found[1]).all()
    assert kept[2] == kept[3] < kept[0]
    assert kept[4] == kept[5] == set()
    assert (found[6] == found[7]).all()
    assert len(kept[6]) == 4


@pytest.mark.parametrize("tags", [[["x"]], [{"x": 1}], {"x": 1}])
def test_what_is_no_list_of_scalars_is_refused(tags: Any) -> None:
    rows, dead = normalised(task(LIST), [{"id": 1, "tags": tags}])
    assert (len(rows.id), [letter.code for letter in dead]) == (0, ["schema"])


def test_a_key_that_stands_twice_beside_a_list_is_found() -> None:
    _, dead = normalised(task(LIST), [b'{"id":1,"tags":["a","b"],"y":"no","tags":["c"]}'])
    assert [letter.code for letter in dead] == ["duplicate_key"]


def test_values_that_are_spelt_alike_share_n_grams_of_their_own_column() -> None:
    two = task(SPELT + SPELT.partition("\n")[2].replace("tags", "city"))
    right, wrong, number = ids(
        two,
        {"tags": "Amsterdam", "city": "Amsterdam"},
        {"tags": "amstredam ", "city": None},
        {"tags": 12345, "city": "Rotterdam"},
    )
    assert right[0] != wrong[0]
    tags, others = {*right[2:18].tolist()} - {0}, {*right[18:].tolist()} - {0}
    assert len(tags) == len(others) == 9
    assert tags.isdisjoint(others)
    assert len(tags & {*wrong[2:18].tolist()}) == 5  # <am ams mst dam am>
    assert not number[2:18].any()
    assert {*number[18:].tolist()} & others


def test_combinations_have_an_id_each_and_none_without_a_part() -> None:
    crossed = task('cross = [["a", "b"]]\n' + PAIR)
    values = [{"a": a, "b": b} for a in range(30) for b in range(30)]
    found = ids(crossed, *values)
    assert (found[:, :2] == ids(task(PAIR), *values)).all()
    assert len({*found[:, 2].tolist()} - {0}) == 900
    again = ids(crossed, {"a": 3, "b": 4}, {"a": 3}, {"b": 4}, {})
    assert again[:, 2].tolist() == [found[3 * 30 + 4, 2], 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('cross = [["a", "c"]]\n' + PAIR, r"cross\[0\] = \['a', 'c'\]: .*of a, b"),
        ('cross = [["a", "a"]]\n' + PAIR, r"cross\[0\] = \['a', 'a'\]: expected different"),
        ('cross = [["a", "b"], ["b", "a"]]\n' + PAIR, "each combination once"),
        ('cross = [["a"]]\n' + PAIR, r"cross\[0\] = \['a'\]"),
        ('cross = [["tags", "tags2"]]\n' + LIST, "of which there is none"),
        (SPELT.replace("[3, 3]", "[3, 2]"), r"ngrams = \[3, 2\]: .*shortest first"),
        (SPELT.replace("ngrams = [3, 3], ", ""), "expected several or ngrams"),
    ],
)
def test_what_cannot_be_is_said(text: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        task(text)


def learned(task: Task, events: list[dict[str, Any]]) -> float:
    """Return the share of the last quarter that is predicted well."""
    _, said = learn(task, events)
    truth = [each["y"] == "yes" for each in events]
    return float((said.answer == truth)[-len(events) // 4 :].mean())


def answers(yes: NDArray[np.bool_], **columns: list[Any]) -> list[dict[str, Any]]:
    names = [*columns]
    return [
        {"id": at, "y": "yes" if y else "no", **dict(zip(names, row, strict=True))}
        for at, (y, *row) in enumerate(zip(yes.tolist(), *columns.values(), strict=True))
    ]


def test_a_cross_learns_what_its_parts_cannot_tell() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 10, (3, 16_000))
    yes = rng.random((10, 10, 10))[a, b, c] < 0.5
    events = answers(yes, a=a.tolist(), b=b.tolist(), c=c.tolist())
    parts = PAIR + 'c = { kind = "category" }\n'
    crossed = learned(task('cross = [["a", "b", "c"]]\n' + parts), events)
    assert crossed > 0.9
    assert crossed > learned(task(parts), events) + 0.1


def test_a_list_tells_by_what_stands_in_it() -> None:
    rng = np.random.default_rng(0)
    tags = [rng.choice(500, 3, replace=False).tolist() for _ in range(8000)]
    good = rng.random(500) < 0.3
    events = answers(np.array([good[each].any() for each in tags]), tags=tags)
    assert learned(task(LIST), events) > 0.9


def test_names_that_are_misspelt_are_known_by_their_n_grams() -> None:
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 10)) for _ in range(40)]
    good, chosen = rng.random(40) < 0.5, rng.integers(0, 40, 8000)
    written = []
    for at in chosen:
        letters = [*names[at]]
        letters[rng.integers(0, 10)] = rng.choice([*"abcdefghijklmnopqrstuvwxyz"])
        letters[rng.integers(0, 10)] = rng.choice([*"abcdefghijklmnopqrstuvwxyz"])
        written.append("".join(letters))
    events = answers(good[chosen], tags=written)
    spelt = learned(task(SPELT), events)
    assert spelt > 0.9
    assert spelt > learned(task('[features]\ntags = { kind = "category" }\n'), events) + 0.1
