"""Explanations: they add up, come again, and are the exact ones where these can be counted."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.attributions import REMEMBERED
from headrace.reading import unlabelled
from headrace.stream.errors import UsageError
from headrace.stream.events import Prediction
from headrace.stream.rows.inputs import Inputs, inputs_of
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task
from headrace.stream.training.background import SIZE, Background
from headrace.stream.training.learned import Foreseen, Learned
from headrace.stream.training.snapshot import digest, released_shapes, shapes_of
from headrace.stream.training.trainer import Trainer
from tests.support.kinds_of_tasks import CLASSES, MORE, NUMBERS, VALUE, events, rows, task

PIXELS = {"image": {"kind": "image", "height": 2, "width": 2}}


def explained(more: dict[str, Any], share: float = 1.0) -> Task:
    return task(more | {"model": more.get("model", {}) | {"explain": share}})


def learned(trainer: Trainer, stream: Rows, size: int, first: int = 0) -> list[Prediction]:
    """Return what is published of a stream in micro-batches of a size."""
    found = []
    for at in range(first, len(stream.id), size):
        row = take(stream, [*range(at, min(at + size, len(stream.id)))])
        row, _ = trainer.admit(row, "")
        found += trainer.predictions(trainer.collect(trainer.submit(row)))
    return found


def said(prediction: Prediction, classes: list[str]) -> float:
    """Return what the parts of an explanation have to add up to."""
    if prediction.probabilities is None:
        assert isinstance(prediction.prediction, float)
        return prediction.prediction
    assert isinstance(prediction.prediction, str)
    assert prediction.explanation
    assert prediction.explanation.of == prediction.prediction
    return prediction.probabilities[classes.index(prediction.prediction)]


@pytest.mark.parametrize("name", MORE)
def test_parts_add_up_to_the_prediction_which_is_the_same_without(name: str) -> None:
    count, makes = 150, explained(MORE[name], 0.3)
    stream = rows(makes, events(count))
    names = Inputs(makes).names
    trainer = Trainer(makes, 64)
    with_parts = learned(trainer, stream, 50)
    plain = learned(Trainer(task(MORE[name]), 64), stream, 50)
    assert [(p.prediction, p.probabilities, p.interval, p.step) for p in with_parts] == [
        (p.prediction, p.probabilities, p.interval, p.step) for p in plain
    ]
    found = [p for p in with_parts if p.explanation]
    assert 0.15 * count < len(found) < 0.45 * count
    for prediction in found:
        why = prediction.explanation
        assert why
        assert [*why.inputs] == names
        assert why.base + sum(why.inputs.values()) == pytest.approx(
            said(prediction, [*trainer.classes]), abs=1e-12
        )
    sizes = np.abs([[*p.explanation.inputs.values()] for p in found if p.explanation]).mean(0)
    assert sizes.max() > 0.02


@pytest.mark.parametrize("name", ["words", "entities", "horizon", "late labels", "chunks"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.integers(1, 64), min_size=1, max_size=12), stop=st.integers(0, 11))
def test_no_cut_and_no_restart_changes_an_explanation(
    name: str, sizes: list[int], stop: int
) -> None:
    made = explained(MORE[name], 0.2)
    stream = rows(made, events(90))
    whole = Trainer(made, 64)
    wanted = learned(whole, stream, 45)
    trainer, at, found = Trainer(made, 64), 0, list[Prediction]()
    for turn, size in enumerate([*sizes, *[64] * 2]):
        if turn == stop:
            kept = trainer.snapshot().tensors()
            trainer = Trainer(made, 64)
            trainer.restore(kept, 0)
        part = take(stream, [*range(at, min(at + size, 90))])
        at += len(part.id)
        if part.id:
            part, _ = trainer.admit(part, "")
            found += trainer.predictions(trainer.collect(trainer.submit(part)))
    assert found == wanted
    assert any(each.explanation for each in found)
    assert digest(trainer.snapshot().tensors()) == digest(whole.snapshot().tensors())


def exact(trainer: Trainer, stream: Rows, at: int, place: int) -> Any:
    """Return Shapley's value of each input by its definition, asked of the exact program."""
    made, why = trainer.task, trainer._explaining
    assert why
    names, inputs, others = [*inputs_of(made)], Inputs(made), why.background
    count, size = len(others), len(names)

    def worth(own: set[int]) -> float:
        mine = np.tile([part in own for part in range(size)], (count, 1))
        mixed = inputs.mixed(stream, at, others, mine, np.arange(count))
        mixed = mixed._replace(id=[f"m{line}" for line in range(count)])
        return float(trainer.ask(mixed).published[:, place].mean())

    found = np.zeros(size)
    for one in range(size):
        rest = [part for part in range(size) if part != one]
        for chosen in range(size):
            for own in combinations(rest, chosen):
                gain = worth({*own, one}) - worth({*own})
                found[one] += gain / (size * comb(size - 1, chosen))
    return found


@pytest.mark.parametrize("name", ["words", "values", "entities", "late labels"])
def test_the_mean_of_explanations_is_shapleys_value(name: str) -> None:
    made = explained(MORE[name], 0.0)
    trainer, count = Trainer(made, 64), 200
    stream = rows(made, events(count))
    assert not any(p.explanation for p in learned(trainer, take(stream, [*range(190)]), 64))
    asked = unlabelled(made, take(stream, [*range(190, 193)]))
    why, many = trainer._explaining, []
    assert why
    for _ in range(400):
        many.append(trainer.explain(asked))
        why.background.met += 1  # so that other walks are drawn
    for at in range(3):
        parts = np.array([[*each.explanations[at].inputs.values()] for each in many])
        error = parts.std(0) / np.sqrt(len(parts))
        place = int(many[0].answer[at]) if made.spec.classes else 0
        wanted = exact(trainer, asked, at, place)
        assert np.abs(wanted).max() > 10 * error.max()
        assert (np.abs(parts.mean(0) - wanted) < 5 * error + 1e-5).all()


@pytest.mark.parametrize("name", ["words", "entities", "late labels", "balanced"])
def test_what_is_asked_is_explained_as_what_is_published(name: str) -> None:
    made = explained(MORE[name])
    trainer, stream = Trainer(made, 64), rows(made, events(80))
    learned(trainer, take(stream, [*range(60)]), 64)
    for at in range(60, 80):
        row = take(stream, [at])
        before = trainer.predictions(trainer.explain(unlabelled(made, row)))
        assert before == learned(trainer, row, 1)
        assert before[0].explanation


@pytest.mark.parametrize("factor", [1.0, 1e20], ids=["origin", "unit"])
def test_rows_that_move_their_frame_are_explained_in_it(factor: float) -> None:
    made = explained({"target": VALUE})
    trainer, moved = Trainer(made, 64), 0
    low, high = rows(made, events(40)), rows(made, events(40, 1e9))
    high = high._replace(id=[f"h{at}" for at in range(40)], label=high.label * factor)
    for at in range(40):
        for row in (take(low, [at]), take(high, [at])):
            asked = unlabelled(made, row)
            before = trainer.predictions(trainer.explain(asked))
            foreseen = trainer.foresee(asked)
            assert isinstance(foreseen, Foreseen)
            assert before == trainer.predictions(foreseen.found)
            held = trainer._frame.copy()
            assert trainer.explain(asked).published.tobytes() == foreseen.found.published.tobytes()
            (after,) = learned(trainer, row, 1)
            changed = trainer._frame.unit if factor > 1 else trainer._frame.origin
            moved += bool((changed != (held.unit if factor > 1 else held.origin)).any())
            if why := after.explanation:
                total = why.base + sum(why.inputs.values())
                assert total == pytest.approx(said(after, []), rel=1e-9)
    assert moved


def test_importance_is_the_fading_mean_of_the_sizes_of_parts() -> None:
    made = explained({"target": VALUE})
    trainer = Trainer(made, 64)
    lines = learned(trainer, rows(made, events(3 * REMEMBERED)), 64)
    mean, count = np.zeros(len(NUMBERS)), 0
    for line in lines:
        if line.explanation:
            sizes = np.abs([*line.explanation.inputs.values()])
            count += 1
            mean += (sizes - mean) / min(count, REMEMBERED)
    told = trainer.report()["importance"]
    assert [*told] == [*NUMBERS]
    assert [*told.values()] == pytest.approx(mean, rel=1e-3)
    assert trainer.sketch()()["importance"] == told


def test_inputs_of_every_kind_stand_where_the_rows_have_them() -> None:
    made = task(
        {
            "target": CLASSES,
            "input": {"entity": "who", "time": "t"},
            "features": NUMBERS
            | {
                "wind": {"kind": "category"},
                "also": {"kind": "category", "field": "wind"},
                "bag": {"kind": "category", "several": True, "max_tokens": 3},
                "text": {"kind": "text", "max_tokens": 8},
                "hour": {"kind": "number"},
                "mean_x": {"kind": "aggregate", "statistic": "mean", "of": "x", "seconds": 60},
                "since": {"kind": "aggregate", "statistic": "since_last"},
            }
            | PIXELS,
            "calendar": ["hour"],
            "cross": [["wind", "also"]],
            "model": {"network": "textcnn"},
        }
    )
    found = inputs_of(made)
    of = {each.name: each for each in found}
    assert [*of] == [
        *("x", "z", "wind", "also", "bag", "text", "hour", "image"),
        *("hour (of the event)", "entity"),
    ]
    assert of["x"].numeric.tolist() == [0, 5]
    assert of["hour (of the event)"].numeric.tolist() == [3, 4]
    assert of["entity"].numeric.tolist() == [6]
    assert of["entity"].entity
    assert of["image"].image
    columns = sorted(at for each in found for at in each.numeric.tolist())
    assert columns == [*range(made.spec.numeric)]
    slots = sorted(at for each in found for at in each.ids.tolist())
    assert slots == [at for at in range(made.spec.ids) if at != 2]  # which is the cross


def test_a_cross_goes_with_its_categories() -> None:
    table = {"wind": {"kind": "category"}, "text": {"kind": "category"}}
    made = explained({"target": CLASSES, "features": table, "cross": [["wind", "text"]]})
    stream = rows(made, events(30))
    background = Background(made.spec)
    background.add(stream, np.arange(20))
    own, of = np.array([[True, True], [True, False], [False, False]]), np.array([3, 4, 5])
    mixed = Inputs(made).mixed(stream, 25, background, own, of)
    assert mixed.ids[0].tolist() == stream.ids[25].tolist()
    assert mixed.ids[2].tolist() == stream.ids[5].tolist()
    assert mixed.ids[1, :2].tolist() == [stream.ids[25, 0], stream.ids[4, 1]]
    assert mixed.ids[1, 2] not in (0, stream.ids[25, 2], stream.ids[4, 2])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_background_is_of_the_newest_rows_however_they_come(cuts: list[int]) -> None:
    made = task({"target": VALUE})
    stream = rows(made, events(300))
    stream = stream._replace(numeric=np.tile(np.arange(2400.0)[:, None], (1, 2)))
    whole, parts = Background(made.spec), Background(made.spec)
    stream = stream._replace(
        ids=np.zeros((2400, 0), np.uint32),
        entity=np.zeros((2400, 2), np.uint32),
        image=np.zeros((2400, 0, 0, 0), np.uint8),
    )
    whole.add(stream, np.arange(2400))
    for first, end in zip(
        [0, *(8 * cut for cut in sorted(cuts))],
        [*(8 * cut for cut in sorted(cuts)), 2400],
        strict=True,
    ):
        parts.add(stream, np.arange(first, end))
    assert all(
        one.tobytes() == other.tobytes()
        for one, other in zip(whole.arrays().values(), parts.arrays().values(), strict=True)
    )
    kept = np.sort(whole.numeric[:, 0])
    assert len(set(kept)) == SIZE
    assert kept[0] > 2400 - 3 * 16 * SIZE
    gaps = np.diff(kept)
    assert len(set(gaps.tolist())) > 10  # no cycle of the stream can hide between


def test_a_state_has_the_arrays_that_it_says() -> None:
    made = explained(MORE["entities"], 0.5)
    arrays = Trainer(made, 64).snapshot().tensors()
    told = shapes_of(made)
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        name: kind for name, (kind, _) in told.items()
    }
    assert {"background_numeric", "background_counts"} <= released_shapes(made).keys()
    assert "importance" not in released_shapes(made)


def test_a_task_that_does_not_say_so_explains_nothing() -> None:
    made = task({"target": VALUE})
    trainer = Trainer(made, 64)
    with pytest.raises(UsageError, match=r"model\.explain"):
        trainer.explain(rows(made, events(1)))
    assert "importance" not in trainer.report()


def test_nothing_is_explained_before_there_is_anything_to_compare_with() -> None:
    made = explained({"target": VALUE})
    trainer = Trainer(made, 64)
    first: Learned = trainer.explain(unlabelled(made, rows(made, events(1))))
    assert not first.explanations
    assert learned(trainer, rows(made, events(5)), 5)[0].explanation is None
