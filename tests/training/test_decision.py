"""Which class is predicted where misses do not cost alike, and what is counted of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from headrace.model.decision import decide
from headrace.stream.errors import TaskError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.task import Task, parse
from tests.support.json_rows import TWO_NUMBERS, learn

CLASSES = ("ok", "odd", "bad")
N = 3000


def task(decision: str = "", more: str = "", classes: tuple[str, ...] = CLASSES) -> Task:
    return parse(
        f"""
        name = "rare"
        input = {{ topic = "t", entity = "who" }}
        target.field = "y"
        target.kind = "classify"
        target.classes = {json.dumps(classes)}
        {decision}
        {TWO_NUMBERS}
        {more}
        """,
        "test",
    )


def events(classes: tuple[str, ...] = CLASSES, n: int = N) -> list[dict[str, Any]]:
    """Return few events of the later classes, which are hard to tell."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n))
    score = a + 0.8 * rng.normal(size=n)
    index = np.searchsorted([1.8, 2.3][: len(classes) - 1], score)
    return [
        {"id": at, "who": at % 7, "a": x, "b": y, "y": classes[label]}
        for at, (x, y, label) in enumerate(zip(a.tolist(), b.tolist(), index, strict=True))
    ]


@pytest.fixture(scope="module")
def plain() -> NDArray[np.float32]:
    """Return the probabilities of the stream, whatever is decided."""
    return learn(task(), events())[1].published


def chosen(costs: list[list[float]], chances: NDArray[np.float32]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = (chances.astype(np.float64) @ np.array(costs)).argmin(1)
    return found


@pytest.mark.parametrize(
    ("decision", "costs"),
    [
        ("target.class_weight = { bad = 30, odd = 0.5 }", [[0, 1, 1], [0.5, 0, 0.5], [30, 30, 0]]),
        ("target.costs = { bad = { ok = 40 } }", [[0, 1, 1], [1, 0, 1], [40, 1, 0]]),
        (
            "target.costs = { ok = { bad = 0.1, odd = 0 }, odd = { bad = 7 } }",
            [[0, 0, 0.1], [1, 0, 7], [1, 1, 0]],
        ),
    ],
)
def test_the_class_of_least_expected_cost_is_predicted(
    decision: str, costs: list[list[float]], plain: NDArray[np.float32]
) -> None:
    trainer, learned = learn(task(decision), events())
    np.testing.assert_array_equal(learned.published[:, :3], plain)
    expected = chosen(costs, plain)
    assert (expected != plain.argmax(1)).sum() > 20
    assert (expected != learned.answer).mean() < 1e-3  # of equals, another one
    said = trainer.predictions(learned)
    assert [p.prediction for p in said] == [CLASSES[int(at)] for at in learned.answer]
    assert [p.probabilities for p in said] == plain.astype(np.float64).tolist()
    report = trainer.report()
    truth = [line["y"] for line in events()]
    answers = [p.prediction for p in said]
    recall = metrics.recall_score(truth, answers, labels=CLASSES, average=None)
    for name, value in zip(CLASSES, recall, strict=True):
        assert report["per_class"]["all"][name]["recall"] == pytest.approx(value, abs=1e-6)
    kappa = metrics.cohen_kappa_score(truth, answers)
    assert report["all"]["kappa"] == pytest.approx(kappa, abs=1e-6)


def test_a_threshold_is_the_probability_from_which_a_class_is_predicted() -> None:
    two = ("ok", "bad")
    trainer, learned = learn(task("target.threshold = { bad = 0.15 }", classes=two), events(two))
    above = learned.published[:, 1] >= 0.15
    assert ((learned.answer == 1) != above).sum() <= 1
    assert 0.05 < above.mean() < 0.3
    assert trainer.report()["per_class"]["all"]["bad"]["recall"] > 0.6


def test_balanced_classes_are_weighed_by_how_rare_they_are(plain: NDArray[np.float32]) -> None:
    trainer, learned = learn(task('target.class_weight = "balanced"'), events())
    np.testing.assert_array_equal(learned.published[:, :3], plain)
    counts, expected = np.zeros(3), []
    for line, chances in zip(events(), plain, strict=True):
        expected.append((chances / np.maximum(counts, 1)).argmax())
        counts = counts * (1 - 1e-5) + (np.array(CLASSES) == line["y"])
    assert (np.array(expected) != learned.answer).mean() < 1e-3
    weighed = trainer.report()["all"]["balanced_accuracy"]
    likeliest = learn(task(), events())[0].report()["all"]["balanced_accuracy"]
    assert weighed > likeliest + 0.1


def test_what_was_decided_is_what_is_scored_when_its_label_comes(tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    lines = events()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ahead = task('target.class_weight = "balanced"', "target.horizon = 2")
    found = evaluate(ahead, file, trace=out)
    table = pq.read_table(out).to_pydict()
    said, pairs = table["prediction"], []
    for label, scored, answers in zip(
        table["label"], table["scored"], table["answers"], strict=True
    ):
        if scored:
            pairs.append((label, said[answers]))
    truth, answers = zip(*pairs, strict=True)
    assert found.metrics["all"]["accuracy"] == pytest.approx(
        metrics.accuracy_score(truth, answers), abs=1e-6
    )
    assert found.metrics["all"]["events"] == len(pairs) == len(lines) - 14
    assert set(found.per_class["all"]) == set(CLASSES)


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("target.threshold = { bad = 0.2 }", "threshold: of 3 classes, expected two"),
        (
            "target.threshold = { bad = 1.0 }",
            "threshold.bad = 1.0: expected a number above 0 and",
        ),
        ("target.class_weight = { worse = 2 }", "class_weight: 'worse' is not among classes"),
        ("target.costs = { bad = { worse = 2 } }", "costs: 'worse' is not among classes"),
        ("target.costs = { bad = { ok = -2 } }", r"target.costs.bad.ok = -2"),
        (
            'target.class_weight = "even"',
            "class_weight = 'even': expected 'balanced' or a table",
        ),
        (
            "target.class_weight = { bad = -1 }",
            "class_weight.bad = -1: expected a number from 0 to",
        ),
        ("target.costs = { bad = { bad = 2 } }", "costs: of a class where it is true"),
        (
            'target.class_weight = "balanced"\ntarget.costs = { bad = { ok = 2 } }',
            "class_weight and costs: expected one of them",
        ),
    ],
)
def test_what_cannot_be_decided_is_said(decision: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        task(decision)


def test_a_class_that_was_not_met_is_not_predicted_however_cheap() -> None:
    costs = "target.costs = { ok = { bad = 5 }, bad = { ok = 20 } }\ntarget.max_classes = 4"
    two = ("ok", "bad")
    trainer, learned = learn(task(costs, classes=two), events(two))
    assert {p.prediction for p in trainer.predictions(learned)} <= {"ok", "bad", None}
    assert np.nanmax(learned.answer) == 1


@pytest.mark.parametrize("classes", [("ok", "bad"), ("bad", "ok")])
def test_a_probability_that_is_the_threshold_is_enough(classes: tuple[str, ...]) -> None:
    spec = task("target.threshold = { bad = 0.25 }", classes=classes).spec
    at = classes.index("bad")
    for chance, chosen in ((0.25, at), (0.2499, 1 - at), (0.2501, at)):
        chances = jnp.asarray([1 - chance, chance] if at else [chance, 1 - chance])
        assert decide(spec, jnp.zeros(0), chances) == chosen


@pytest.mark.parametrize("decision", ['class_weight = "balanced"', "costs = { a = { b = 2 } }"])
def test_numbers_have_no_classes_to_decide_on(decision: str) -> None:
    with pytest.raises(TaskError, match=f"{decision.split()[0]} is for classes"):
        parse(
            f"""
            name = "n"
            input.topic = "t"
            target.field = "y"
            target.kind = "regress"
            target.{decision}
            features.a.kind = "number"
            """,
            "test",
        )
