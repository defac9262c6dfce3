"""The estimators for scikit-learn, by its own checks, metrics, pipelines and searches."""

from __future__ import annotations

import io
import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import headrace
from headrace.sklearn import StreamClassifier, StreamRegressor
from headrace.stream.errors import RecoveryError, TaskError

SMALL = {"model": {"hidden": [4], "neighbours": 20}, "drift": {"ladder": []}}
ESTIMATORS = [StreamClassifier, StreamRegressor]
EXEMPT = {
    "check_sample_weight_equivalence_on_dense_data": "a row that weighs three is learned in one "
    "step three times as large, and stands once in the windows: not as three rows one by one"
}
SKIPPED = {"check_array_api_input"}  # by scikit-learn, unless SCIPY_ARRAY_API is set


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Can't validate estimator:UserWarning")
@pytest.mark.usefixtures("plainly_compiled")
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_scikit_learns_own_checks_pass(kind: Any) -> None:
    failed, count = [], 0
    for estimator, check in estimator_checks_generator(kind(settings=SMALL)):
        count += 1
        name = getattr(check, "func", check).__name__
        try:
            check(estimator)
        except Exception as error:
            if type(error).__name__ != "SkipTest" or name not in SKIPPED:
                failed.append(name)
    assert failed == [*EXEMPT]
    assert count > 45


def rows() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "/load": rng.normal(size=400),
            "id": rng.integers(0, 3, 400),
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], 400)),
            "note": rng.choice(["all is well here", "something is wrong here"], 400),
            "on": rng.random(400) > 0.5,
            "weight": rng.normal(size=400).astype(np.float32),
        }
    )
    frame.loc[::17, "/load"] = np.nan
    frame.loc[::13, "note"] = None
    good = (frame["colour"] == "red") | (frame["note"] == "all is well here") & frame["on"]
    return frame, good.map({True: "good", False: "bad"}).rename("state")


def test_a_frame_keeps_its_names_and_kinds() -> None:
    frame, state = rows()
    model = StreamClassifier(settings=SMALL).fit(frame[:300], state[:300])
    task = model.learner_.task
    kinds = {name: feature.kind for name, feature in task.features.items()}
    words = ["number", "number", "category", "text", "category", "number"]
    assert kinds == dict(zip(frame.columns, words, strict=True))
    assert (task.target.field, task.target.classes) == ("state", ("bad", "good"))
    assert model.feature_names_in_.tolist() == [*frame.columns]
    assert model.score(frame[300:], state[300:]) > 0.9 > (state[300:] == "bad").mean()
    later = frame[300:].assign(colour=frame["colour"].astype(str), id=frame["id"].astype(float))
    assert (model.predict_proba(later) == model.predict_proba(frame[300:])).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"on": "off"}))
    for wrong in (frame.assign(id="x"), frame.assign(id=frame["/load"] / 0)):
        with pytest.raises(ValueError, match=r"x|infinity"):
            model.predict(wrong)
    with pytest.raises(ValueError, match="'at' holds timestamp"):
        model.fit(frame.assign(at=pd.Timestamp("2026-01-01")), state)


def test_it_is_the_librarys_learner_and_parts_make_the_whole() -> None:
    X, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order], y[order]
    whole = StreamClassifier(settings=SMALL).fit(X, y)
    parts = StreamClassifier(settings=SMALL)
    for at in range(0, len(X), 50):
        parts.partial_fit(X[at : at + 50], y[at : at + 50], classes=[0, 1, 2])
    chances = whole.predict_proba(X)
    assert (chances == parts.predict_proba(X)).all()
    assert (chances == whole.partial_fit(X[:1], y[:1]).fit(X, y).predict_proba(X)).all()
    learner = headrace.Learner(whole.learner_.task)
    events = [{f"x{at}": x for at, x in enumerate(row)} for row in X.tolist()]
    learner.predict_then_learn(
        [e | {"target": str(label)} for e, label in zip(events, y, strict=True)]
    )
    said = learner.predict(events)
    assert said["prediction"].to_pylist() == [str(each) for each in whole.predict(X)]
    assert np.allclose(said["probabilities"].to_pylist(), chances, atol=1e-6)
    assert chances.sum(1) == pytest.approx(1.0)
    assert chances.argmax(1).tolist() == whole.predict(X).tolist()


def test_it_learns_better_than_chance_in_pipelines_and_searches() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), StreamClassifier(settings=SMALL)),
        {"streamclassifier__settings": [SMALL, {**SMALL, "lags": {"labels": 0}}]},
        cv=TimeSeriesSplit(2),
        error_score="raise",
    ).fit(X[:400], y[:400])
    said = search.predict_proba(X[400:])
    plain = DummyClassifier().fit(X[:400], y[:400])
    linear = make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(X[:400], y[:400])
    right = accuracy_score(y[400:], search.predict(X[400:]))
    assert right > plain.score(X[400:], y[400:]) + 0.1
    assert right > linear.score(X[400:], y[400:]) - 0.03
    assert log_loss(y[400:], said) < 0.25
    X, y = load_diabetes(return_X_y=True)
    model = StreamRegressor(settings=SMALL).fit(X[:300], y[:300])
    misses = [
        mean_absolute_error(y[300:], each.predict(X[300:]))
        for each in (model, DummyRegressor(strategy="median").fit(X[:300], y[:300]))
    ]
    assert misses[0] < 0.8 * misses[1]


def test_what_weighs_nothing_teaches_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    y, weight = (X[:, 0] > 0).astype(int), (rng.random(400) > 0.7).astype(float)
    lied = np.where(weight > 0, y, 1 - y)
    model = StreamClassifier(settings=SMALL).fit(X, lied, sample_weight=weight)
    assert model.score(X, y) > 0.9
    assert StreamClassifier(settings=SMALL).fit(X, lied).score(X, y) < 0.5
    for wrong, words in (([-1.0] * 400, "[Nn]egative"), ([1001.0] * 400, "1000"), ([1.0], "shape")):
        with pytest.raises(ValueError, match=words):
            model.fit(X, y, sample_weight=wrong)


def test_labels_come_back_as_they_were() -> None:
    X = np.tile([[0.0], [1.0]], (60, 1))
    for labels in ([False, True], [3, 7], [1.0, 2.0], ["", "x"], ["1", "a b"]):
        y = np.array(labels * 60)
        model = StreamClassifier(settings=SMALL).fit(X, y)
        assert model.classes_.tolist() == labels
        assert model.predict(X[:2]).tolist() == labels
        assert model.predict(X).dtype == y.dtype
    model = StreamClassifier(settings=SMALL).partial_fit(X, y, classes=["1", "a b", "z"])
    assert model.predict_proba(X[:1]).shape == (1, 3)
    for wrong in ({"y": ["?"] * 120}, {"y": y, "classes": ["1", "a b"]}):
        with pytest.raises(ValueError, match="classes"):
            model.partial_fit(X, **wrong)
    with pytest.raises(TaskError, match=r"model\.hidden"):
        StreamClassifier(settings={"model": {"hidden": "wide"}}).fit(X, y)


def test_a_copy_goes_on_alone_and_a_broken_one_is_refused() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = StreamRegressor(settings=SMALL).fit(X[:200], y[:200])
    kept = io.BytesIO()
    joblib.dump(model, kept)
    data = pickle.dumps(model)
    kept.seek(0)
    for other in (joblib.load(kept), pickle.loads(data)):
        assert (other.predict(X) == model.predict(X)).all()
        other.partial_fit(X[200:], y[200:])
        assert (other.predict(X) != model.predict(X)).any()
    assert b"jax" not in data
    with pytest.raises(RecoveryError, match="broken"):
        pickle.loads(data.replace(data[-600:-590], bytes(byte ^ 1 for byte in data[-600:-590])))
    fresh = clone(model)
    assert not hasattr(fresh, "learner_")
    assert fresh.get_params() == {"settings": SMALL}
    assert (
        fresh.set_params(settings=SMALL).fit(X[:200], y[:200]).predict(X) == model.predict(X)
    ).all()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_row_that_is_refused_is_told_and_not_predicted(kind: Any) -> None:
    table = pd.DataFrame({"a": ["p", "q"] * 5})
    model = kind(settings=SMALL).fit(table, [0, 1] * 5)
    with pytest.raises(ValueError, match="row 1 was refused and not predicted: too_large"):
        model.predict(pd.DataFrame({"a": ["p", "z" * 20_000_000]}))


COLUMNS: dict[str, Any] = {
    "numbers": [1.5, 2.0],
    "texts": ["p", "q"],
    "booleans": [True, False],
}


@pytest.mark.parametrize("first", COLUMNS)
def test_a_later_column_holds_what_it_did_at_first(first: str) -> None:
    """Or nothing that is known; of a categorical, and of objects, it is the values that count."""

    def frame(values: Any) -> pd.DataFrame:
        return pd.DataFrame({"a": values, "b": [0.5, 1.5]})

    model = StreamClassifier(settings=SMALL).fit(frame(COLUMNS[first]), [0, 1])
    said = model.predict_proba(frame(COLUMNS[first])).tolist()
    for kind, given in COLUMNS.items():
        for values in (given, pd.Categorical(given), pd.Series(given, dtype=object)):
            if kind == first:
                assert model.predict_proba(frame(values)).tolist() == said
                continue
            told = f"the column 'a' holds {kind}: expected {first}, as when it first came"
            for use in (model.predict, lambda X: model.partial_fit(X, [0, 1])):
                with pytest.raises(ValueError, match=told):
                    use(frame(values))
    unknown = [None, np.nan, pd.NA, pd.Categorical([None, None])]
    chances = [model.predict_proba(frame(values)).tolist() for values in unknown]
    assert chances == chances[:1] * 4
    for mixed in (["p", 1.5], [True, "p"], [b"p", 3]):
        with pytest.raises(ValueError, match=r"the column 'a' holds \w+, \w+: expected one of"):
            model.predict(frame(mixed))
    model.partial_fit(frame([None, COLUMNS[first][0]]), [0, 1])
    assert model.learner_.events == 4


@pytest.mark.parametrize("kind", ["int64", "uint64", "Int64"])
def test_whole_numbers_that_float64_rounds_are_taken_as_of_an_array(kind: str) -> None:
    whole = np.arange(20) * 1_000_003 + 2**60
    frame, array = pd.DataFrame({"x0": whole}).astype(kind), whole[:, None].astype(np.float64)
    labels = np.arange(20) % 7 * 1.5
    of_frame, of_array = (StreamRegressor(SMALL).fit(X, labels) for X in (frame, array))
    np.testing.assert_array_equal(of_frame.predict(frame), of_array.predict(array))


def test_categories_that_were_not_there_before_are_as_good() -> None:
    model = StreamClassifier(settings=SMALL)
    model.fit(pd.DataFrame({"a": pd.Categorical(["p", "q"])}), [0, 1])
    model.partial_fit(pd.DataFrame({"a": pd.Categorical(["z", "q"], ["q", "z"])}), [0, 1])
    chances = model.predict_proba(pd.DataFrame({"a": ["q", "z"]}))
    assert (model.predict_proba(pa.table({"a": ["q", "z"]}).to_pandas()) == chances).all()


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_an_array_behind_a_frame_is_held_to_its_columns() -> None:
    model = StreamClassifier(settings=SMALL).fit(pd.DataFrame({"a": ["p", "q"]}), [0, 1])
    with pytest.raises(ValueError, match="the column 'a' holds numbers: expected texts"):
        model.predict(np.array([[1.0], [2.0]]))
