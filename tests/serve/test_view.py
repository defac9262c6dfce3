"""What the page shows: of what the topics hold, and never more than it has room for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stream.events import Records
from headrace.stream.serve.view import (
    ALARMS,
    CODES,
    EXPLAINED,
    POINTS,
    PREDICTIONS,
    SHOWN,
    STAGES,
    View,
)
from tests.support.hostile import STRINGS
from tests.support.serving import small_task

TASK = small_task()


def records(values: list[Any], stage: str = "metrics", first: int = 0) -> Records:
    raws = [
        each if isinstance(each, bytes | None) else json.dumps(each).encode() for each in values
    ]
    count = len(values)
    return Records(
        topic=f"poisoned.{stage}",
        values=raws,
        keys=[None] * count,
        partitions=[0] * count,
        offsets=[*range(first, first + count)],
        timestamps_ms=[1_000 + at for at in range(first, first + count)],
    )


def metrics(number: int) -> dict[str, Any]:
    score = {"accuracy": 0.9, "events": number}
    return {
        "time_ms": number,
        "events": number,
        "lag": 3,
        "events_per_second": 10.5,
        "window": score,
        "all": score,
        "baselines": {"majority": {"window": {"accuracy": 0.5}, "all": {"accuracy": 0.4}}},
        "members": {"row": 1.0},
    }


def prediction(offset: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e-{offset}", "prediction": "yes", "partition": 0, "offset": offset} | more


def test_points_hold_the_scores_of_the_records() -> None:
    view = View(TASK)
    view.take("metrics", records([metrics(1), metrics(2)]))
    first, last = view.as_json()["points"]
    assert first == {
        "t": 1,
        "model_window": 0.9,
        "model_all": 0.9,
        "no_change_window": None,
        "no_change_all": None,
        "majority_window": 0.5,
        "majority_all": 0.4,
        "rate": 10.5,
        "lag": 3,
        "pending": None,
    }
    assert last["t"] == 2
    assert view.as_json(after_ms=1)["points"] == [last]
    assert view.as_json()["latest"]["members"] == {"row": 1.0}


def test_what_it_holds_does_not_grow() -> None:
    view = View(TASK)
    explained = {"explanation": {"base": 0.5, "inputs": {"x": 0.1}}}
    for lot in range(8):
        first = 1000 * lot
        span = range(first, first + 1000)
        view.take("metrics", records([metrics(at + 1) for at in span]))
        view.take("drift", records([{"kind": "alarm", "detector": "adwin"} for _ in span]))
        view.take("predictions", records([prediction(at) | explained for at in span]))
        view.take("dead-letter", records([{"code": f"c{at}", "detail": "d" * 9999} for at in span]))
        view.choose()
    found = view.as_json()
    assert len(found["points"]) == POINTS
    assert len(found["drift"]) <= ALARMS
    assert len(found["predictions"]) == PREDICTIONS
    assert found["predictions"][0]["id"] == "e-7999"
    assert len(found["explained"]) == EXPLAINED
    assert len(found["refused"]) == CODES
    assert all(len(each["example"]["detail"]) == SHOWN for each in found["refused"].values())


def test_predictions_get_their_truth_and_how_long_they_took() -> None:
    view = View(TASK)
    view.take("predictions", records([prediction(at) for at in range(3)]))
    assert view.choose() == [(0, 0), (0, 1), (0, 2)]
    view.know({(0, 0): ("no", 990), (0, 2): (None, 1_000)})
    last, _, first = view.as_json()["predictions"]
    assert first["truth"] == "no"
    assert "truth" not in last
    assert view.as_json()["latency"] == {"p50": 10, "p95": 10, "p99": 10}
    assert view.choose() == []  # they are shown, and known, already


@pytest.mark.parametrize("stage", STAGES)
@given(
    values=st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=20),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text()),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3),
                    st.dictionaries(
                        st.sampled_from(
                            [
                                *("time_ms", "window", "baselines", "members", "labels", "code"),
                                *("partition", "offset", "explanation", "lag", "detail", "raw"),
                            ]
                        ),
                        inner,
                        max_size=5,
                    ),
                ),
                max_leaves=12,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        max_size=6,
    )
)
def test_whatever_strangers_write_is_shown_or_left_out(
    stage: str, values: list[bytes | None]
) -> None:
    view = View(TASK)
    view.take(stage, records(values, stage))
    for place in view.choose():
        view.know({place: ("x", 1)})
    json.dumps(view.as_json(), allow_nan=False)


def test_hostile_texts_come_as_they_are() -> None:
    view = View(TASK)
    view.take("dead-letter", records([{"code": "id", "detail": text} for text in STRINGS]))
    (told,) = view.as_json()["refused"].values()
    assert told["count"] == len(STRINGS)
    assert told["example"]["detail"] == STRINGS[-1][:SHOWN]
