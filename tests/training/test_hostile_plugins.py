"""What parts of others may do at an event, and what must come of it: no end, and the same rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import headrace
from headrace.model import encoders, metrics
from headrace.model.metrics import make_regression_metrics
from headrace.stream.errors import TaskError
from headrace.stream.task import Task, parse
from tests.support.json_rows import normalised

TASK = """
name = "t"
metrics = [METRICS]
[input]
topic = "events.t"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
FEATURES
[model]
hidden = [2]
neighbours = 0
[drift]
ladder = []
"""
ENCODED = 'e = { kind = "encoded", encoder = "odd", width = 2 }\n'

pytestmark = pytest.mark.usefixtures("registries")


class MuteError(Exception):
    """Be an error that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def task_of(*, metric: bool = False, features: str = "") -> Task:
    text = TASK.replace("METRICS", '"odd"' if metric else "")
    return parse(text.replace("FEATURES", features), "t")


def rows(encoder: Any, values: list[str], features: str = ENCODED) -> Any:
    encoders.ENCODERS["odd"] = encoder
    lines = [f'{{"id": {at}, "y": 1, "e": {value}}}' for at, value in enumerate(values)]
    return normalised(task_of(features=features), [line.encode() for line in lines])


def mute(*_: Any) -> Any:
    raise MuteError


def no_text(*_: Any) -> Any:
    raise ValueError("\udcff")


def test_an_error_of_an_encoder_without_words_refuses_its_event() -> None:
    found, (letter,) = rows(mute, ['"a"', "null"])
    assert letter.detail == "e: 'a' cannot be encoded: MuteError"
    assert len(found.id) == 1


def test_what_an_encoder_does_to_a_value_is_seen_by_nobody() -> None:
    def taking(values: Any) -> Any:
        return [[value.pop("a"), value.pop("b")[0]] for value in values]

    twice = ENCODED + ENCODED.replace("e =", "f =").replace("width", 'field = "e", width')
    values = ['{"a": 1, "b": [2]}', "7", '{"a": 3, "b": [4]}']
    found, letters = rows(taking, values, twice)
    assert [letter.offset for letter in letters] == [1]
    assert found.numeric[:, 1:].tolist() == [[1, 2, 1, 2], [3, 4, 3, 4]]


def test_numbers_that_are_too_large_to_be_subtracted_are_missing_as_ever() -> None:
    found, _ = rows(lambda values: [[1.7e308, -1e300]], ['"a"'])
    assert found.numeric[0, 1:].tolist() == [pytest.approx(np.nan, nan_ok=True), -1e300]


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (mute, "MuteError"),
        (no_text, "ValueError: ?"),
        (lambda state, unit: {"\udcff": 1}, "UnicodeEncodeError: "),
        (lambda state, unit: dict.fromkeys(range(10_000), 1), "ValueError: its report has "),
    ],
)
def test_a_metric_says_what_a_record_can_hold_or_why_not(report: Any, told: str) -> None:
    odd = metrics.Metric(lambda spec: make_regression_metrics(), report)
    metrics.METRICS["odd"] = odd
    said = headrace.Learner(task_of(metric=True)).metrics
    assert said["further"]["odd"]["error"].startswith(told)
    assert len(msgspec.json.encode(said)) < 20_000


@pytest.mark.parametrize(
    ("convert", "told"),
    [
        (no_text, "?"),
        (mute, "MuteError"),
        (lambda state, to: None, "convert makes something else of further.odd.sums"),
        (
            lambda state, to: state._replace(means=np.zeros(3, np.float32)),
            "convert makes something else of further.odd.means",
        ),
    ],
)
def test_a_metric_that_cannot_be_converted_is_told_before_the_first_event(
    convert: Any, told: str
) -> None:
    fold = make_regression_metrics()
    metrics.METRICS["odd"] = metrics.Metric(lambda spec: fold, lambda state, unit: 1, convert)
    with pytest.raises(TaskError) as caught:
        headrace.Learner(task_of(metric=True))
    assert str(caught.value).endswith(f"metrics: 'odd' does not fit: {told}")
