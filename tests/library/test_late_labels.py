"""`Learner.learn_label`: labels that a program tells later than their events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import Learner
from headrace.stream.errors import EventError, UsageError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import Task, validate

EVENTS, DELAY = 120, 9


def task(**labels: object) -> Task:
    return validate(
        {
            "name": "late",
            "input": {"topic": "events.late"},
            "target": {"field": "y", "kind": "classify", "classes": ["no", "yes"]},
            "features": {"x": {"kind": "number"}, "c": {"kind": "category"}},
            "labels": {"topic": "labels.late", "max_pending": 50, "in_memory": 5} | labels,
            "model": {"neighbours": 20, "learning_rate": 0.01, "hidden": [4]},
        },
        "test",
    )


def event(number: int) -> dict[str, Any]:
    return {"id": number, "x": (number * 7 % 11) - 5.0, "c": "abc"[number % 3]}


def label(number: int) -> str:
    return "yes" if number * 7 % 11 > 5 else "no"


def test_events_that_are_held_out_are_marked(tmp_path: Path) -> None:
    learner = Learner(task(holdout=0.3))
    said = [learner.learn_one(event(number)) for number in range(50)]
    held = [each.holdout for each in said]
    assert 5 < sum(held) < 35
    learner.save(tmp_path / "saved.hr")
    again = Learner.load(tmp_path / "saved.hr")
    assert [again.predict_one(event(number)).holdout for number in range(50)] == held
    for number in range(50):
        again.learn_label(number, label(number))
    assert 0 < again.metrics["held_out"]["events"] < again.metrics["event_time"]["events"]


@pytest.fixture(scope="module")
def learner() -> Learner:
    return Learner(task())


def test_what_is_told_later_is_learned_as_evaluate_learns_it(
    learner: Learner, tmp_path: Path
) -> None:
    """With the learner saved and loaded between, and asked."""
    lines = [f"{n},{event(n)['x']},{event(n)['c']},{label(n)}" for n in range(EVENTS)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["id,x,c,y", *lines]) + "\n")
    found = evaluate(task(), path, label_delay=str(DELAY))
    for number in range(EVENTS + DELAY):
        if (due := number - DELAY) >= 0:
            assert learner.learn_label(due, label(due)) == "scored"
        if number < EVENTS:
            asked = learner.predict_one(event(number))
            assert learner.learn_one(event(number)).probabilities == asked.probabilities
        if number == EVENTS // 2:
            learner.save(tmp_path / "saved.hr")
            learner = Learner.load(tmp_path / "saved.hr")
    assert learner.metrics["all"] == found.metrics["all"]
    assert learner.metrics["labels"]["pending"] == 0


def test_each_label_says_what_became_of_it() -> None:
    learner = Learner(task(weight="w", source="who", exclude=["robot"], max_pending=3))
    assert learner.learn_label("a", "yes") == "held"
    assert learner.learn_label("a", "yes") == "repeated"
    learner.learn_one(event(0) | {"id": "a"})
    learner.learn_one(event(1) | {"id": "b", "y": "no"})
    learner.learn_one(event(2) | {"id": "c"})
    for refused, code in ((("a", "no"), "corrected"), (("c", "maybe"), "label")):
        with pytest.raises(EventError, match=f"^{code}"):
            learner.learn_label(*refused)
    with pytest.raises(EventError, match=r"^excluded: 'robot' is among labels\.exclude"):
        learner.learn_label("c", "no", source="robot")
    assert learner.learn_label("c", "no", weight=0.5, source="ann") == "scored"
    found = learner.metrics["labels"]
    assert (found["labels"], found["scored"], found["repeated"], found["pending"]) == (5, 3, 1, 0)
    with pytest.raises(UsageError, match=r"no \[labels\]"):
        Learner(task().model_copy(update={"labels": None})).learn_label("a", "yes")


def test_a_label_too_many_is_told_of_the_one_it_drives_out(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.stream.training.label_join.KEPT", 2)
    for number in range(1000, 1004):
        assert learner.learn_label(number, "yes") == "held"
    assert learner.metrics["labels"]["refused"] == 2


@pytest.mark.parametrize(
    ("horizon", "more"), [(2, {"max_pending": 50}), (0, {"max_pending": 3, "on_expiry": "no"})]
)
def test_what_is_asked_knows_the_labels_that_are_learned_before(
    horizon: int, more: dict[str, object]
) -> None:
    """With a horizon those that stand in events; and those of events that make room."""
    made = task(**more)
    target = made.target.model_copy(update={"horizon": horizon})
    learner = Learner(made.model_copy(update={"target": target}))
    for number in range(40):
        told = event(number) | ({"y": label(number)} if horizon else {})
        asked = learner.predict_one(told)
        before = learner.metrics
        assert learner.predict_one(told) == asked and learner.metrics == before
        assert learner.learn_one(told) == asked
    seen = learner.metrics["labels"]
    assert seen["scored"] > 30
    waits = event(39) | {"x": 3.0}  # its id is that of an event that waits
    assert learner.predict_one(waits) == learner.predict_one(waits | {"id": "new"})
    assert learner.metrics["labels"] == seen


def test_a_label_that_answers_what_is_gone_is_told_so() -> None:
    """Its own event has not expired: with a horizon it answers an earlier one."""
    made = task(max_pending=4)
    target = made.target.model_copy(update={"horizon": 2})
    learner = Learner(made.model_copy(update={"target": target}))
    for number in range(7):
        learner.learn_one(event(number))
        assert learner.learn_label(number, label(number)) == ("scored" if number > 1 else "unasked")
    with pytest.raises(EventError, match="id 4: the prediction that it answers expired before, or"):
        learner.learn_label(4, label(4))
    assert learner.learn_label(6, label(6)) == "repeated"
