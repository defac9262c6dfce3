"""Classes that nobody declared: they get their index when they come, in the order of the stream."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.stream.errors import TaskError
from headrace.stream.events import Prediction, Records
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import Rows, rows_of
from headrace.stream.task import Task, parse
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer

TASK = """
name = "signals"
[input]
topic = "signals.events"
[target]
field = "label"
kind = "classify"
%s
[features]
x = { kind = "number" }
y = { kind = "number" }
"""


def task(target: str = "") -> Task:
    return parse(TASK % target, "t")


def records(labels: list[Any], rows: NDArray[np.float64] | None = None) -> Records:
    count = len(labels)
    values: list[bytes | None] = [
        json.dumps({"id": n, "x": float(x), "y": float(y), "label": label}).encode()
        for n, (label, (x, y)) in enumerate(
            zip(labels, np.zeros((count, 2)) if rows is None else rows, strict=True)
        )
    ]
    return Records(
        "signals.events", values, [None] * count, [0] * count, [*range(count)], [0] * count
    )


def stream(count: int = 600) -> Records:
    """Draw points around the corners of a triangle; "far" comes in the second half only."""
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 2, count)
    corner[count // 2 :] = rng.integers(0, 3, count - count // 2)
    points = np.array([[0, 0], [3, 0], [0, 3]])[corner] + rng.normal(size=(count, 2))
    return records([["near", True, "far"][at] for at in corner], points)


def learned(
    trainer: Trainer, task: Task, events: Records, cuts: list[int]
) -> tuple[list[Prediction], list[Any]]:
    rows, refused = Normalizer(task).normalize(events)
    assert not refused
    said, letters = [], []
    for first, last in zip([0, *cuts], [*cuts, len(rows.id)], strict=True):
        part, dead = trainer.admit(Rows._make(column[first:last] for column in rows), events.topic)
        said += trainer.predictions(trainer.collect(trainer.submit(part)))
        letters += dead
    return said, letters


def test_classes_are_taken_up_as_they_come_and_never_before() -> None:
    events, made = stream(), task()
    trainer = Trainer(made, 600)
    said, letters = learned(trainer, made, events, [])
    labels = [json.loads(value or b"")["label"] for value in events.values]
    names = ["true" if label is True else label for label in labels]
    assert not letters
    assert made.spec.classes == 16
    order = list(dict.fromkeys(names))
    first = {name: names.index(name) for name in order}
    assert said[0].prediction is None
    for at, line in enumerate(said[1:], 1):
        met = [name for name in order if first[name] < at]
        assert line.prediction in met
        chances = np.array(line.probabilities)
        assert (chances[len(met) :] == 0).all()
        assert chances.sum() == pytest.approx(1, abs=1e-5)
    late = [line.prediction == name for line, name in zip(said, names, strict=True)][-200:]
    assert np.mean(late) > 0.8
    assert list(trainer.report()["per_class"]["all"]) == order


def test_the_cut_into_micro_batches_changes_nothing() -> None:
    events, made = stream(200), task('classes = ["near"]\nmax_classes = 3')
    whole, pieces = Trainer(made, 200), Trainer(made, 200)
    said, _ = learned(whole, made, events, [])
    assert learned(pieces, made, events, [1, 2, 99, 100, 101])[0] == said
    state = whole.snapshot().tensors()
    assert digest(pieces.snapshot().tensors()) == digest(state)
    pieces.restore(state, learned=whole.learned)
    again = records(["far", "near"])._replace(
        values=[b'{"id":"a","x":0,"y":3,"label":"far"}', b'{"id":"b","x":0,"y":0,"label":"near"}']
    )
    assert learned(pieces, made, again, []) == learned(whole, made, again, [])
    assert digest(pieces.snapshot().tensors()) == digest(whole.snapshot().tensors())


def test_a_class_without_room_is_refused_with_its_place() -> None:
    made = task("max_classes = 2")
    events = records(["a", None, "b", "c", "a", "c"])
    said, letters = learned(Trainer(made, 8), made, events, [3])
    assert [line.id for line in said] == [0, 1, 2, 4]
    assert [(dead.code, dead.offset) for dead in letters] == [("label", 3), ("label", 5)]
    assert "'c': expected one of the 2 that there is room for" in letters[0].detail


def test_one_class_however_it_is_written() -> None:
    made = task('classes = ["1"]\nmax_classes = 4')
    events = records([1, "1", 1.0, 7, "7", 7.0, True, "true", 2.5, "2.5"])
    rows, dead = Normalizer(made).normalize(events)
    assert not dead
    trainer = Trainer(made, 16)
    assert trainer.admit(rows, "t")[0].label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]


def test_a_row_without_the_name_that_it_needs_is_refused() -> None:
    made = task()
    rows, _ = Normalizer(made).normalize(records(["a", "b"]))
    forged = rows._replace(new_class=[None, "b"])  # only features that are not ours have this
    kept, letters = Trainer(made, 8).admit(forged, "t")
    assert [(dead.code, dead.offset) for dead in letters] == [("label", 0)]
    assert kept.label.tolist() == [0]


@pytest.mark.parametrize("label", ["", "x" * 256, "é" * 128])
def test_a_name_that_is_none_is_refused(label: str) -> None:
    rows, dead = Normalizer(task()).normalize(records([label, "good"]))
    assert [letter.code for letter in dead] == ["label"]
    assert rows.new_class == ["good"]


def test_names_go_through_the_features_topic() -> None:
    made, events = task(), records(["a", "b", None])
    normalizer = Normalizer(made)
    features, _ = normalizer.features(events)
    assert rows_of(made, features, events.keys).new_class == ["a", "b", None]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ('classes = ["a"]', "room for 1 of 1 classes"),
        ('classes = ["a", "b", "c"]\nmax_classes = 2', "room for 2 of 3 classes"),
        ('classes = ["a", "b", "a"]', "each once"),
    ],
)
def test_impossible_targets_are_explained(target: str, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        task(target)
