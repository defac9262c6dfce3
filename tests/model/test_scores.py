"""The reports against scikit-learn, over all events and with the weights of the fading window."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from river import metrics as river
from sklearn import metrics as sklearn

from headrace.model.metrics import (
    ScoredClass,
    classification_report,
    make_classification_metrics,
    make_regression_metrics,
    ranking,
    regression_report,
)
from tests.support.folds import run
from tests.support.scored_streams import blocks, classes, counting, numbers

WINDOW = 200
SPANS = (("all", 1.0), ("window", 1 - 1 / WINDOW))


def _close(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        if value is None:
            assert ours[name] is None, name
            continue
        assert ours[name] == pytest.approx(value, rel=5e-5, abs=5e-5), name


def _weights(fade: float, n: int) -> np.ndarray:
    return fade ** np.arange(n)[::-1]


def _oracle(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Have scikit-learn say what `confusion.scores` says."""
    given: dict[str, Any] = {"sample_weight": weights, "zero_division": 0.0}
    found = {
        "accuracy": sklearn.accuracy_score(labels, predicted, sample_weight=weights),
        "kappa": sklearn.cohen_kappa_score(labels, predicted, sample_weight=weights),
    }
    recalls = sklearn.recall_score(
        labels, predicted, average=None, labels=np.unique(labels), **given
    )
    found["balanced_accuracy"] = recalls.mean()
    for average in ("macro", "micro"):
        for name in ("precision", "recall", "f1"):
            score = getattr(sklearn, f"{name}_score")
            found[f"{average}_{name}"] = score(labels, predicted, average=average, **given)
    return found


def _calibration_error(events: list[Any], weights: np.ndarray) -> float:
    """Go through Guo's definition bin by bin."""
    sure = np.array([max(row[1]) for row in events], np.float32)
    hit = np.array([np.argmax(row[1]) == row[0] for row in events])
    error = 0.0
    for m in range(15):
        inside = (sure > np.float32(m / 15)) & (sure <= np.float32((m + 1) / 15))
        if inside.any():
            w = weights[inside]
            error += abs(
                np.average(hit[inside], weights=w) - np.average(sure[inside], weights=w)
            ) * (w.sum() / weights.sum())
    return error


@pytest.mark.parametrize("n_classes", [3, 7, 20])
def test_classification_is_scikit_learns(n_classes: int) -> None:
    events = classes(n_classes, 3000, n_classes)
    report = classification_report(
        run(make_classification_metrics(n_classes, WINDOW), blocks(events))[0]
    )
    rows = counting(events)
    labels = np.array([row[0] for row in rows])
    model = np.array([np.argmax(row[1]) for row in rows])
    no_change = np.array([max(int(row[2]), 0) for row in rows])
    known = np.array([np.bincount(labels[:i], minlength=n_classes) for i in range(len(labels))])
    majority = known.argmax(axis=1)
    for span, fade in SPANS:
        weights = _weights(fade, len(rows))
        _close(report[span], _oracle(labels, model, weights))
        for name, predicted in (("no_change", no_change), ("majority", majority)):
            ours = report["baselines"][name][span]
            theirs = _oracle(labels, predicted, weights)
            _close(ours, theirs)
            assert set(ours) == set(theirs)
            accuracy = np.average(labels == model, weights=weights)
            kappa = (accuracy - theirs["accuracy"]) / (1 - theirs["accuracy"])
            key = "kappa_t" if name == "no_change" else "kappa_m"
            assert report[span][key] == pytest.approx(kappa, abs=2e-4)
        _close(report[span], {"ece": _calibration_error(rows, weights)})
        columns = sklearn.precision_recall_fscore_support(
            labels, model, labels=range(n_classes), sample_weight=weights, zero_division=0.0
        )
        for ours, row in zip(report["per_class"][span], zip(*columns, strict=True), strict=True):
            _close(ours, dict(zip(("precision", "recall", "f1", "support"), row, strict=True)))
    probabilities = np.array([row[1] for row in rows])[-1000:]
    labels = labels[-1000:]
    one_vs_rest = [
        sklearn.roc_auc_score(labels == c, probabilities[:, c]) for c in np.unique(labels)
    ]
    assert report["window"]["roc_auc"] == pytest.approx(np.mean(one_vs_rest), abs=1e-9)
    for c, line in enumerate(report["per_class"]["window"]):
        if c not in labels:
            assert line["pr_auc"] is None
            continue
        area = sklearn.average_precision_score(labels == c, probabilities[:, c])
        assert line["pr_auc"] == pytest.approx(area, abs=1e-9)
    areas = [line["pr_auc"] for line in report["per_class"]["window"] if line["pr_auc"] is not None]
    if n_classes > 2:
        assert report["window"]["pr_auc"] == pytest.approx(np.mean(areas), abs=1e-9)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_all_events_are_ranked_by_steps_of_their_log_odds(n_classes: int) -> None:
    events = classes(3, 4800, n_classes + 1)
    events = events._replace(probabilities=events.probabilities[:, :n_classes])
    fold = make_classification_metrics(n_classes)
    report = classification_report(run(fold, blocks(events))[0])
    eight = run(fold, blocks(events, 8))[0]
    np.testing.assert_array_equal(run(fold, blocks(events))[0].ranks, eight.ranks)
    known = np.asarray(events.weight, bool)
    labels = np.asarray(events.label)[known]
    scores = np.asarray(events.probabilities)[known]
    steps = np.floor(np.log(scores / (1 - scores)) / 0.3)
    for c in range(n_classes):
        found = report["per_class"]["all"][c]["pr_auc"]
        exact = sklearn.average_precision_score(labels == c, scores[:, c])
        assert found == pytest.approx(exact, abs=0.01)
    chosen = [1] if n_classes == 2 else range(n_classes)
    areas = [sklearn.roc_auc_score(labels == c, steps[:, c]) for c in chosen]
    assert report["all"]["roc_auc"] == pytest.approx(np.mean(areas), abs=1e-3)


def test_ranks_never_end() -> None:
    full = ranking.no_ranks(2).at[0, 1, 60].set(2**31 - 2).at[0, 0, 3].set(4)
    one = jnp.asarray([1]), jax.nn.softmax(jnp.asarray([[0.0, 0.3 * (60 - 47) - 0.1]]))
    after = np.asarray(ranking.count(full, *one))
    assert after[0, 1].sum() < 2**31 - 1
    assert after[0, 0, 3] == 2


@pytest.mark.parametrize(("n", "digits"), [(700, 7), (2600, 7), (2600, 1)])
def test_auc_of_two_classes_is_scikit_learns_and_rivers(n: int, digits: int) -> None:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 2, n)
    scores = rng.normal(0.3 + 0.3 * labels, 0.2).round(digits)
    events = ScoredClass(
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(np.stack([1 - scores, scores], 1), jnp.float32),
        jnp.zeros(n, jnp.int32),
        jnp.asarray(rng.random(n) < 0.9),
    )
    report = classification_report(run(make_classification_metrics(2), blocks(events))[0])
    rows = counting(events)[-1000:]
    newest = [(int(row[0]), float(row[1][1])) for row in rows]
    assert report["window"]["roc_auc"] == pytest.approx(
        sklearn.roc_auc_score(*zip(*newest, strict=True)), abs=1e-9
    )
    if digits == 1:  # many ties, of which River counts none as half a win
        return
    rolling = river.RollingROCAUC(window_size=1000)
    for label, score in newest:
        rolling.update(label, score)
    assert report["window"]["roc_auc"] == pytest.approx(rolling.get(), abs=1e-9)


def test_the_answer_is_scored_where_it_is_not_the_likeliest() -> None:
    events = classes(5, 400, 4)
    answer = (np.asarray(events.label) + (np.arange(400) % 3 == 0)) % 4
    said = events._replace(answer=jnp.asarray(answer, jnp.int32))
    fold = make_classification_metrics(4)
    found = [classification_report(run(fold, blocks(each))[0])["all"] for each in (events, said)]
    right = np.asarray(events.weight) > 0
    assert found[1]["accuracy"] == pytest.approx((np.arange(400) % 3 > 0)[right].mean())
    for name in ("log_loss", "pr_auc", "roc_auc"):
        assert found[0][name] == found[1][name]


def test_auc_of_scores_that_are_not_numbers_is_a_number() -> None:
    newest = np.array([[np.nan, np.nan, 2.0], [0.5, 0.5, 1.0], [0, 0, 0]])
    assert ranking.roc_auc(ranking.exact_ranks(newest)) == 0.0


def test_no_scores_are_kept_of_many_classes() -> None:
    state = make_classification_metrics(ranking.MAX_CLASSES + 1).init()
    assert state.newest.size == 0
    assert state.ranks.size == 0
    assert "roc_auc" not in classification_report(state)["window"]


def test_a_sure_model_that_errs_is_uncalibrated() -> None:
    n = 300
    events = ScoredClass(
        jnp.asarray(np.arange(n) % 3 == 0, jnp.int32),
        jnp.tile(jnp.float32([1, 0]), (n, 1)),
        jnp.zeros(n, jnp.int32),
        jnp.ones(n),
    )
    for probabilities in ([1.0, 0.0], [np.nan, np.nan], [3e38, 0.0]):
        events = events._replace(probabilities=jnp.tile(jnp.float32(probabilities), (n, 1)))
        report = classification_report(run(make_classification_metrics(2), blocks(events))[0])
        assert report["all"]["ece"] == pytest.approx(1 / 3)


def test_kappa_against_a_baseline_that_no_longer_misses_is_none() -> None:
    labels = np.repeat([0, 1, 0], [10, 10, 8000])
    events = classes(0, len(labels), 3, labels)._replace(weight=jnp.ones(len(labels)))
    report = classification_report(run(make_classification_metrics(3, WINDOW), blocks(events))[0])
    assert report["window"]["kappa_m"] is None
    assert report["all"]["kappa_m"] < 0


@pytest.mark.parametrize("seed", range(2))
def test_regression_is_scikit_learns(seed: int) -> None:
    events = numbers(seed, 3000)
    label = np.asarray(events.label).copy()
    label[::7] = 0.0
    events = events._replace(label=jnp.asarray(label), size=jnp.abs(jnp.asarray(label)))
    report = regression_report(run(make_regression_metrics(WINDOW), blocks(events))[0])
    rows = np.array(counting(events), np.float64)
    labels, predicted, low, high, last, median = rows.T[:6]
    means = np.array([0.0, *(np.cumsum(labels)[:-1] / np.arange(1, len(labels)))])
    predictions = {
        "no_change": np.where(np.isnan(last), means, last),
        "mean": means,
        "median": np.where(np.isnan(median), means, median),
    }
    some = labels != 0
    for span, fade in SPANS:
        weights = _weights(fade, len(rows))
        for name, values in (predictions | {"": predicted}).items():
            ours = report["baselines"][name][span] if name else report[span]
            _close(
                ours,
                {
                    "mae": sklearn.mean_absolute_error(labels, values, sample_weight=weights),
                    "rmse": math.sqrt(
                        sklearn.mean_squared_error(labels, values, sample_weight=weights)
                    ),
                    "mape": sklearn.mean_absolute_percentage_error(
                        labels[some], values[some], sample_weight=weights[some]
                    ),
                },
            )
            r2 = sklearn.r2_score(labels, values, sample_weight=weights)
            assert ours["r2"] == pytest.approx(r2, rel=1e-4, abs=1e-4)
        inside = (low <= labels) & (labels <= high)
        _close(
            report[span],
            {
                "coverage": np.average(inside, weights=weights),
                "width": np.average(high - low, weights=weights),
                "mape_events": weights[some].sum(),
                "events": weights.sum(),
            },
        )
    assert isinstance(report["all"]["mape_events"], int)


def test_an_interval_is_as_wide_as_can_be_or_is_none() -> None:
    events = numbers(0, 100)._replace(weight=jnp.ones(100))
    for low, high, width in ((np.nan, 1.0, None), (-np.inf, np.inf, 1e15), (1.0, 0.0, 0.0)):
        broken = events._replace(low=jnp.full(100, low), high=jnp.full(100, high))
        report = regression_report(run(make_regression_metrics(), blocks(broken))[0])
        assert report["all"]["width"] == (width and pytest.approx(width))


@pytest.mark.parametrize("n_classes", [2, 20])
def test_classes_in_blocks_score_the_same_but_for_the_majority(n_classes: int) -> None:
    events = classes(1, 3200, max(n_classes, 3))
    events = events._replace(probabilities=events.probabilities[:, :n_classes])
    fold = make_classification_metrics(n_classes, WINDOW)
    one, eight = (classification_report(run(fold, blocks(events, k))[0]) for k in (1, 8))
    known = np.asarray(events.weight, bool).reshape(-1, 8)
    labels = np.asarray(events.label).reshape(-1, 8)
    counts, majority = np.zeros(n_classes), np.zeros(labels.shape, int)
    for block, (label, counting_) in enumerate(zip(labels, known, strict=True)):
        majority[block] = counts.argmax()
        np.add.at(counts, label[counting_], 1)
    for span, fade in SPANS:
        weights = _weights(fade, known.sum())
        theirs = _oracle(labels[known], majority[known], weights)
        _close(eight["baselines"]["majority"][span], theirs)
        _close(eight["baselines"]["no_change"][span], one["baselines"]["no_change"][span])
        misses = 1 - theirs["accuracy"]
        kappa_m = 1 - (1 - one[span]["accuracy"]) / misses
        _close(eight[span], one[span] | {"kappa_m": kappa_m})
        for ours, same in zip(eight["per_class"][span], one["per_class"][span], strict=True):
            _close(ours, same)
    assert eight["window"]["roc_auc"] == one["window"]["roc_auc"]


def test_numbers_in_blocks_score_the_same_but_for_the_running_mean() -> None:
    events = numbers(1, 3200, 30.0)
    events = events._replace(no_change=jnp.nan_to_num(events.no_change, nan=1.0))
    fold = make_regression_metrics(WINDOW)
    one, eight = (regression_report(run(fold, blocks(events, k))[0]) for k in (1, 8))
    known = np.asarray(events.weight, bool).reshape(-1, 8)
    labels = np.asarray(events.label, np.float64).reshape(-1, 8)
    total, n, means = 0.0, 0, np.zeros(labels.shape)
    for block, (label, counting_) in enumerate(zip(labels, known, strict=True)):
        means[block] = total / n if n else 0.0
        total, n = total + label[counting_].sum(), n + counting_.sum()
    for span, fade in SPANS:
        weights = _weights(fade, known.sum())
        ours = eight["baselines"]["mean"][span]
        misses = np.abs(labels - means)[known]
        assert ours["mae"] == pytest.approx(np.average(misses, weights=weights), rel=1e-4)
        _close(eight["baselines"]["no_change"][span], one["baselines"]["no_change"][span])
        _close(eight[span], one[span])
