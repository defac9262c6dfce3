"""The estimators for River, by River's own checks, metrics and pipelines."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Hashable
from typing import Any, cast

import numpy as np
import pytest
from river import checks, compose, datasets, drift, evaluate, linear_model, metrics, preprocessing

import headrace
from headrace.river import Classifier, Regressor

SMALL = {"model": {"hidden": [4], "neighbours": 20}}
ESTIMATORS = [Classifier(settings=SMALL), Regressor(settings=SMALL)]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("plainly_compiled")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=["classifier", "regressor"])
def test_rivers_own_checks_pass(estimator: Any) -> None:
    assert not estimator._unit_test_skips()
    checks.check_estimator(estimator)


def test_it_is_the_librarys_learner() -> None:
    """In River's evaluation, whatever the names of the features are."""
    rows = [*datasets.Phishing()][:300]
    ours, scored = Classifier(settings=SMALL), metrics.Accuracy()
    evaluate.progressive_val_score(iter(rows), ours, scored)
    names = {key: f"x{at}" for at, key in enumerate(sorted(rows[0][0]))}
    learner = headrace.Learner(ours._learner.task) if ours._learner else None
    assert learner
    learner.predict_then_learn(
        [{names[k]: float(v) for k, v in x.items()} | {"target": str(y)} for x, y in rows]
    )
    found = learner.metrics["all"]
    hits = found["accuracy"] * found["events"]
    assert scored.get() * 300 == pytest.approx(hits, abs=1.0)  # of the first nothing is said


@pytest.mark.parametrize(
    ("estimator", "rows", "plain", "metric"),
    [
        (Classifier(settings=SMALL), datasets.Bananas(), linear_model.ALMAClassifier(), "Accuracy"),
        (
            Regressor(),
            datasets.ChickWeights(),
            linear_model.LinearRegression(),
            "MAE",
        ),
    ],
)
def test_it_learns_in_rivers_pipelines(estimator: Any, rows: Any, plain: Any, metric: str) -> None:
    scores = {}
    for name, model in (("ours", estimator.clone()), ("plain", plain)):
        numbers = compose.SelectType(int, float) | preprocessing.StandardScaler()
        scored = getattr(metrics, metric)()
        evaluate.progressive_val_score(iter([*rows][:570]), numbers | model, scored, delay=3)
        scores[name] = scored.get()
    better = (
        scores["ours"] > scores["plain"]
        if metric == "Accuracy"
        else scores["ours"] < scores["plain"]
    )
    assert better, scores


def test_rivers_detector_hears_its_errors() -> None:
    rng, model, adwin = np.random.default_rng(0), Classifier(settings=SMALL), drift.ADWIN()
    alarms = []
    for at in range(1200):
        x: dict[Hashable, float] = {"a": float(rng.normal()), "b": float(rng.normal())}
        y = (x["a"] > 0) != (at >= 600)
        adwin.update(model.predict_one(x) != y)
        model.learn_one(x, y)
        alarms += [at] * adwin.drift_detected
    assert alarms
    assert 600 <= alarms[0] < 750


def test_labels_come_back_as_they_were() -> None:
    taken: list[list[Any]]  # NumPy's too, which River does not name
    taken = [[True, False], [np.bool_(True), np.bool_(False)], [3, 7], ["x", "y"]]
    for labels in taken:
        model = Classifier(max_classes=2, settings=SMALL)
        assert model.predict_one({"a": 1.0}) is None
        for at in range(40):
            model.learn_one({"a": float(at % 2)}, labels[at % 2])
        said = model.predict_proba_one({"a": 1.0})
        assert [*said] == labels
        assert math.isclose(sum(said.values()), 1.0)
        assert model.predict_one({"a": 1.0}) is labels[1]
    with pytest.raises(headrace.EventError, match=r"label: 'z'.* room for"):
        model.learn_one({"a": 1.0}, "z")


def test_what_a_feature_cannot_take_is_missing_and_what_is_new_is_named() -> None:
    model = Regressor(settings=SMALL)
    model.learn_one({"n": 1, "t": "red", 5: np.float32(2)}, 3)
    rows: list[dict[Hashable, object]]
    rows = [{"n": "one"}, {"t": None}, {"n": math.inf}, {"n": math.nan}, {}, {"n": True}]
    for x in rows:
        model.learn_one(x, 4.0)
        assert 2.0 < model.predict_one(x) < 5.0
    model.learn_one({"n": 1, "later": 2.0}, 3.0)
    assert model.unknown == {"later"}
    for value in (10**400, object(), [1.0], 1j):
        for ask in (model.predict_one, lambda x: model.learn_one(x, 1.0)):
            with pytest.raises(headrace.EventError, match=rf"'n' = {type(value).__name__} "):
                ask({"n": value})
        with pytest.raises(headrace.EventError, match=rf"'y' = {type(value).__name__} "):
            model.learn_one({"n": 1}, cast("float", value))
    with pytest.raises(headrace.HeadraceError, match=r"model\.hidden"):
        Regressor(settings={"model": {"hidden": "wide"}}).learn_one({"n": 1}, 1.0)


def test_a_copy_goes_on_alone_and_memory_stays() -> None:
    model = Classifier(settings=SMALL)
    rows = [*datasets.Phishing()][:60]
    for x, y in rows[:30]:
        model.learn_one(x, y)
    size, other = model._raw_memory_usage, copy.deepcopy(model)
    assert size > 10_000
    for x, y in rows[30:]:
        assert model.predict_proba_one(x) == other.predict_proba_one(x)
        model.learn_one(x, y)
        other.learn_one(x, y)
    assert other.predict_proba_one(rows[0][0]) == model.predict_proba_one(rows[0][0])
    for x, y in itertools.islice(rows, 20):
        model.learn_one(x, not y)
    assert other.predict_proba_one(rows[0][0]) != model.predict_proba_one(rows[0][0])
    assert model._raw_memory_usage == size
