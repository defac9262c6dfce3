"""Whether events bring ids, and what an id that came before means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.stream.task import validate
from tests.support.readers import normalizers_of_readers

TASK: dict[str, Any] = {
    "name": "t",
    "input": {"topic": "t"},
    "target": {"field": "y", "kind": "classify", "max_classes": 2},
    "features": {"x": {"kind": "number"}},
    "model": {"hidden": [4], "neighbours": 20},
}
BARE: dict[str, Any] = {"x": 1.0, "y": "a"}
WRONG = {"x": "much"}


def learner() -> headrace.Learner:
    return headrace.Learner(validate(TASK, "t"))


def code_of(learner: headrace.Learner, event: dict[str, Any]) -> str | None:
    try:
        learner.learn_one(event)
    except headrace.EventError as error:
        return error.code
    return None


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("table", [False, True])
def test_an_event_that_is_refused_does_not_decide_whether_events_bring_ids(
    table: bool, saved: bool, tmp_path: Path
) -> None:
    for first, later, codes in (
        (BARE | WRONG, BARE | {"id": "a"}, [None, "duplicate_id"]),
        (BARE | WRONG | {"id": "a"}, BARE, [None, None]),
    ):
        ours = learner()
        if table:
            assert ours.predict_then_learn([first])["rejected"].to_pylist() == ["schema"]
        else:
            assert code_of(ours, first) == "schema"
        if saved:
            ours.save(tmp_path / "t.hr")
            ours = headrace.Learner.load(tmp_path / "t.hr")
        assert ours.events == 1
        assert [code_of(ours, later) for _ in codes] == codes


def test_a_class_without_room_does_not_decide_it_either() -> None:
    table = TASK | {"target": TASK["target"] | {"classes": ["a", "b"]}}
    ours = headrace.Learner(validate(table, "t"))
    assert code_of(ours, BARE | {"y": "c"}) == "label"
    assert code_of(ours, BARE | {"id": 1}) is None
    assert code_of(ours, BARE | {"id": 1}) == "duplicate_id"


def test_what_was_decided_stays_so(tmp_path: Path) -> None:
    ours = learner()
    assert code_of(ours, BARE | {"id": 1}) is None
    assert code_of(ours, BARE) == "schema"
    ours.save(tmp_path / "t.hr")
    assert code_of(headrace.Learner.load(tmp_path / "t.hr"), BARE) == "schema"


def test_an_event_that_was_learned_may_be_asked_about() -> None:
    """As a row of `predict` may; to learn it again is refused."""
    ours, event = learner(), BARE | {"id": 1}
    ours.learn_one(event)
    assert ours.predict_one(event).label == "a"
    assert ours.predict([event, event])["rejected"].null_count == 2
    assert code_of(ours, event) == "duplicate_id"


def test_a_learner_that_has_learned_nothing_reads_by_one_normaliser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, ours = normalizers_of_readers(monkeypatch), learner()
    for _ in range(3):
        ours.predict_one(BARE)
        ours.predict([BARE])
    ours.learn_one(BARE)
    assert len(made) == 1
    ours.learn_one(BARE)
    assert len(made) == 1
