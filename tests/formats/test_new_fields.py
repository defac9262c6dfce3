"""Fields that appear in mid-stream: named, counted, and the same however events are batched."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from headrace.stream.formats import new_fields
from headrace.stream.formats.new_fields import NewFields
from headrace.stream.task import Task, parse

TEXT = """
name = "t"
[input]
topic = "e"
entity = "/who/name"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
late = { kind = "number" }
"""
TASK = parse(TEXT, "t")
EVENTS = new_fields.USUAL_EVENTS + 1000


def event(number: int, **more: Any) -> bytes:
    row = {"id": number, "who": {"name": "a"}, "x": 1, "y": 2, "usual": 'a "quoted": b'} | more
    return json.dumps(row).encode()


def watched(values: list[bytes], task: Task = TASK, size: int = 300) -> NewFields:
    watch = NewFields(task)
    for at in range(0, len(values), size):
        watch.add(values[at : at + size])
        watch = NewFields(task, json.loads(json.dumps(watch.state())))  # a restart after each
    return watch


def test_a_field_that_appears_later_is_named_and_counted() -> None:
    values = [
        event(
            n, **({"new": 1} if n >= 900 and n % 3 == 0 else {}), **({"late": 1} if n > 700 else {})
        )
        for n in range(EVENTS)
    ]
    values[950:960] = [b"", b"poison", b"[1]", b'{"new":', b"\xff", b"null", *values[956:960]]
    watch = watched(values)
    expected = [n for n in range(EVENTS) if b'"new": 1' in values[n]]
    first, count = watch.found()["new"]
    assert [*watch.found()] == ["new"]
    # One event in LOOK_EVERY is looked at until it is found, as `late` has changed all shapes.
    assert first in expected[: new_fields.LOOK_EVERY]
    assert len(expected) - new_fields.LOOK_EVERY <= count <= len(expected)
    [line] = watch.lines()
    assert line == (
        f"new: a field that is new in mid-stream, which the task does not read, in {count} rows, "
        f"the first is row {first + 1}; name it under features to learn from it"
    )


def test_a_field_that_takes_the_place_of_another_one_is_found_soon() -> None:
    values = [event(n) for n in range(EVENTS)]
    values[700:] = [each.replace(b'"usual"', b'"usua1"') for each in values[700:]]
    first, count = watched(values).found()["usua1"]
    assert 700 <= first < 700 + new_fields.LOOK_EVERY
    assert count == EVENTS - first


def test_what_is_found_does_not_depend_on_how_events_are_batched() -> None:
    rng = random.Random(1)
    values = [
        event(n, **{f"field{rng.randrange(40)}": 1 for _ in range(rng.randrange(3)) if n > 250})
        for n in range(EVENTS)
    ]
    states = [watched(values, size=size).state() for size in (1, 7, 300, 4096)]
    assert all(state == states[0] for state in states)
    assert len(states[0]["found"]) == new_fields.MOST_NAMED
    assert states[0]["more"] > 0
    assert watched(values).lines()[-1].endswith("rows with still other fields that are new")


def test_the_data_of_cloudevents_is_watched() -> None:
    task = parse(TEXT.replace('topic = "e"', 'topic = "e"\nformat = "cloudevents"'), "t")
    values = [
        json.dumps(
            {"specversion": "1.0", "id": n, "data": {"x": 1} | ({"z": 1} if n > 500 else {})}
        )
        for n in range(EVENTS)
    ]
    assert [*watched([each.encode() for each in values], task).found()] == ["z"]


def test_no_more_is_remembered_than_has_room_whatever_comes() -> None:
    hostile = [json.dumps({f"{n}-{at}": 1 for at in range(50)}).encode() for n in range(EVENTS)]
    assert len(json.dumps(watched(hostile).state())) < 2 * new_fields.MOST_USUAL
    later = [event(n) for n in range(200)] + [
        json.dumps({"k" * 5000 + str(n): 1 for _ in range(n % 300)}).encode() for n in range(1000)
    ]
    assert len(json.dumps(watched(later).state())) < 2 * new_fields.MOST_USUAL


@pytest.mark.parametrize("text", [TEXT, TEXT.replace('entity = "/who/name"', "")])
def test_what_stands_from_the_beginning_is_no_news(text: str) -> None:
    assert watched([event(n) for n in range(EVENTS)], parse(text, "t")).lines() == []
