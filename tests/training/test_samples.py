"""What late labels teach: samples of negatives, corrections, horizons, events held out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.stream.events import Prediction, Records
from headrace.stream.rows.late import LateLabel, labels_of, unlabelled
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task, validate
from headrace.stream.training.trainer import Trainer

TASK = {
    "name": "t",
    "input": {"topic": "events.t", "entity": "who"},
    "target": {"field": "y", "kind": "classify", "classes": ["no", "yes"]},
    "features": {"x": {"kind": "number"}},
    "labels": {"topic": "labels.t", "max_pending": 500},
    "model": {"hidden": [8]},
    "drift": {"ladder": []},
}


def task(**changes: Any) -> Task:
    """Change tables of the task; None leaves one out."""
    told: dict[str, Any] = {
        name: (TASK.get(name) or {}) | table if table is not None else None
        for name, table in changes.items()
    }
    return validate({k: v for k, v in (TASK | told).items() if v is not None}, "t")


def rows_of(task: Task, events: list[dict[str, Any]]) -> Rows:
    values: list[bytes | None] = [json.dumps(each).encode() for each in events]
    count = len(events)
    records = Records("events.t", values, [None] * count, [0] * count, [*range(count)], [1] * count)
    rows, refused = Normalizer(task).normalize(records)
    assert not refused
    return rows


def go(
    task: Task, rows: Rows, delay: int | None = None, batch: int = 700
) -> tuple[list[Prediction], Trainer]:
    """Learn rows with the labels within them, or with each behind so many more events."""
    trainer, said = Trainer(task, batch), list[Prediction]()
    labels, bare = labels_of(rows), rows if delay is None else unlabelled(rows)
    for first in range(0, len(rows.id), batch):
        last = min(first + batch, len(rows.id))
        late = [
            (at + 1 - first, label)
            for at in range(first, last)
            if delay is not None and at >= delay and (label := labels[at - delay])
        ]
        learned = trainer.collect(trainer.submit(take(bare, [*range(first, last)]), late))
        said += trainer.predictions(learned)
    return said, trainer


def clicks(count: int) -> list[dict[str, Any]]:
    """Draw rare clicks, ten times as likely for some as for others; no other label ever comes."""
    rng = np.random.default_rng(2)
    x, lot = rng.choice([-1.0, 1.0], count), rng.random(count)
    chance = np.where(x > 0, 0.1, 0.01)
    return [
        {"id": n, "who": "w", "x": x[n], "y": "yes" if lot[n] < chance[n] else None}
        for n in range(count)
    ]


def chances(said: list[Prediction], events: list[dict[str, Any]], x: float) -> NDArray[Any]:
    pairs = zip(said[len(said) // 2 :], events[len(said) // 2 :], strict=True)
    return np.array([(each.probabilities or [0, 0])[1] for each, event in pairs if event["x"] == x])


def test_probabilities_are_those_of_all_events_though_clicks_come_first_and_a_sample_teaches() -> (
    None
):
    events = clicks(20_000)
    labels = {"max_pending": 500, "on_expiry": "no"}
    whole, sampled = task(labels=labels), task(labels=labels | {"sample_negatives": 0.1})
    for each in (whole, sampled):
        said, trainer = go(each, rows_of(each, events))
        for x, wanted in ((1.0, 0.1), (-1.0, 0.01)):
            assert chances(said, events, x).mean() == pytest.approx(wanted, rel=0.35)
        scored, steps = trainer.report()["all"]["events"], said[-1].step
        assert scored >= 19_400
        clicked = sum(event["y"] == "yes" for event in events)
        negatives = len(events) - clicked
        share = 0.1 if each is sampled else 1.0
        assert steps == pytest.approx(clicked + share * negatives, rel=0.05)


def test_probabilities_hold_where_one_class_is_labelled_long_before_the_other() -> None:
    """A vote of the newest rows, which clicks alone have labels of, made .3 of .1."""
    events = [event | {"y": event["y"] or "no"} for event in clicks(16_000)]
    told = task(labels={"max_pending": 600})
    rows, trainer, said = rows_of(told, events), Trainer(told, 1024), list[Prediction]()
    labels, due = labels_of(rows), dict[int, list[LateLabel]]()
    for at, label in enumerate(labels):
        assert label
        due.setdefault(at + 1 + (0 if label.label else 500), []).append(label)
    for first in range(0, len(events), 1000):
        last = first + 1000
        late = [
            (at - first, label) for at in range(first + 1, last + 1) for label in due.get(at, ())
        ]
        part = take(unlabelled(rows), [*range(first, last)])
        said += trainer.predictions(trainer.collect(trainer.submit(part, late)))
    for x, wanted in ((1.0, 0.1), (-1.0, 0.01)):
        assert chances(said, events, x).mean() == pytest.approx(wanted, rel=0.35)


def test_a_label_that_is_corrected_is_scored_again_and_teaches_once() -> None:
    """The labels of all events are turned round at once, before the next one comes."""
    events = [
        {"id": n, "who": "w", "x": n % 3, "y": "yes" if n % 3 == 0 else "no"} for n in range(600)
    ]
    said = {}
    for policy in ("ignore", "rescore", "relearn"):
        told = task(labels={"policy": policy}, lags={"labels": 0})
        rows, trainer = rows_of(told, events), Trainer(told, 1024)
        labels = labels_of(rows)
        twice = [
            (at + 1, each._replace(label=label))
            for at, each in enumerate(labels)
            if each
            for label in (each.label, 1.0 - each.label)
        ]
        learned = trainer.collect(trainer.submit(unlabelled(rows), twice))
        report = trainer.report()
        said[policy] = report["all"]["accuracy"], int(learned.step[-1])
    first, steps = said["ignore"]
    assert first > 0.9
    assert said["rescore"] == pytest.approx((0.5, steps), abs=0.01)
    assert said["relearn"][1] == 2 * steps


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_labels_within_events_answer_earlier_rows_as_without_a_topic_of_labels(kind: str) -> None:
    """Also where an entity is new, and where a label is missing."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=900).round(3)
    y = [float(5 + x[n - 14] * 3) if n % 11 else None for n in range(900)]
    who = [n % 7 if n < 400 or n % 50 else n for n in range(900)]
    label: list[Any] = y if kind == "regress" else [None if v is None else str(v > 5) for v in y]
    events = [{"id": n, "who": who[n], "x": x[n], "y": label[n]} for n in range(900)]
    target: dict[str, Any] = {"kind": kind, "horizon": 2, "field": "y"}
    target |= {"classes": ["False", "True"]} if kind == "classify" else {"classes": []}
    alone, both = task(target=target, labels=None), task(target=target)
    (one, first), (other, second) = (go(each, rows_of(each, events)) for each in (alone, both))
    assert [each.step for each in one] == [each.step for each in other]
    wanted, found = (trainer.report()["all"] for trainer in (first, second))
    metric = "accuracy" if kind == "classify" else "mae"
    assert found["events"] == wanted["events"]
    assert found[metric] == pytest.approx(wanted[metric], rel=0.03)
    baselines = (trainer.report()["baselines"] for trainer in (first, second))
    wanted, found = (each["no_change"]["all"][metric] for each in baselines)
    assert found == pytest.approx(wanted, rel=1e-6)
    waits = 0
    for one_of in set(who):
        own = [n for n in range(900) if who[n] == one_of]
        waits += min(len(own), 2) + sum(label[n] is None for n in own[2:])
    assert second.join
    assert second.join.pending == waits


def test_late_labels_answer_the_rows_of_a_horizon() -> None:
    """The label of an event comes 5 events later, and tells what was to come 1 event before it."""
    events = [
        {"id": n, "who": "w", "x": n % 4, "y": "yes" if n % 4 == 1 else "no"} for n in range(900)
    ]
    told = task(target={"horizon": 1}, labels={"max_pending": 20})
    said, trainer = go(told, rows_of(told, events), delay=5)
    right = [each.prediction == events[n + 1]["y"] for n, each in enumerate(said[:-1])]
    assert np.mean(right[300:]) > 0.99
    assert trainer.report()["all"]["accuracy"] > 0.9
    extra = LateLabel(0, None, 0, 0, 1, 1.0, None)
    joined = trainer.submit(take(rows_of(told, events), []), [(0, extra)]).joined
    assert joined
    assert joined.truth.held == 1  # its event left long ago


def test_the_first_events_of_an_entity_answer_nothing() -> None:
    told = task(target={"horizon": 2})
    trainer = Trainer(told, 64)
    rows = rows_of(told, [{"id": n, "who": n % 2, "x": 0, "y": "no"} for n in range(10)])
    joined = trainer.submit(rows).joined
    assert joined
    assert (joined.truth.labels, joined.truth.unasked, joined.truth.scored) == (10, 4, 6)


def test_events_are_held_out_by_their_ids_and_scored_apart() -> None:
    events = [
        {"id": f"e-{n}", "who": "w", "x": n % 3, "y": "yes" if n % 3 == 0 else "no"}
        for n in range(3_000)
    ]
    told = task(labels={"holdout": 0.2})
    said, trainer = go(told, rows_of(told, events), delay=40)
    held = {each.id for each in said if each.holdout}
    assert len(held) == pytest.approx(600, rel=0.15)
    again, _ = go(told, rows_of(told, events[::-1]), delay=40)
    assert {each.id for each in again if each.holdout} == held
    report = trainer.report()
    window = told.spec.window
    scored = len([each for each in said[:-40] if each.holdout])
    assert report["held_out"]["events"] == pytest.approx(
        window * (1 - (1 - 1 / window) ** scored), rel=1e-4
    )
    assert report["held_out"]["accuracy"] > 0.9
    assert report["event_time"]["behind"] == 40
    none, _ = go(task(), rows_of(told, events[:50]))
    assert not any(each.holdout for each in none)


def test_events_that_were_chosen_teach_as_all_would_by_their_propensity() -> None:
    """Where something that the model does not see decides what happens, and who is chosen."""
    rng = np.random.default_rng(6)
    count = 12_000
    risky = rng.random(count) < 0.5
    happens = rng.random(count) < np.where(risky, 0.5, 0.1)
    chance = np.where(risky, 0.2, 0.9)
    shown = rng.random(count) < chance
    events: list[dict[str, Any]] = [
        {"id": n, "who": "w", "x": float(n % 2), "p": chance[n]}
        | {"y": ("yes" if happens[n] else "no") if shown[n] else None}
        for n in range(count)
    ]
    means = []
    for propensity in (None, "p"):
        told = task(input={"topic": "events.t", "propensity": propensity}, labels=None)
        said, _ = go(told, rows_of(told, events))
        means.append(np.mean([(each.probabilities or [0, 0])[1] for each in said[count // 3 :]]))
    naive, weighted = means
    assert naive == pytest.approx(0.19 / 1.1, rel=0.15)
    assert weighted == pytest.approx(0.3, rel=0.1)
