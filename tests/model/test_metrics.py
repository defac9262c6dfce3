from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from river import metrics

from headrace.model import sums, xla
from headrace.model.metrics import (
    ScoredClass,
    classification_report,
    make_classification_metrics,
    make_regression_metrics,
    regression_report,
)
from tests.support.folds import run
from tests.support.scored_streams import blocks, classes, counting, numbers

WINDOW = 200
KEYS = ("precision", "recall", "f1", "support")


class Weighted(Protocol):
    """Be a metric of River's that takes weights, of which its base class does not know."""

    def update(self, y_true: float, y_pred: float, w: float) -> None: ...

    def get(self) -> float: ...


def _close(ours: dict[str, Any], theirs: dict[str, float]) -> None:
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=2e-5, abs=2e-6), name


def _river_classes(pairs: list[tuple[int, int]], fade: float) -> dict[str, float]:
    scores = {
        "accuracy": metrics.Accuracy(),
        "macro_f1": metrics.MacroF1(),
        "kappa": metrics.CohenKappa(),
    }
    for age, (label, predicted) in zip(range(len(pairs))[::-1], pairs, strict=True):
        for metric in scores.values():
            metric.update(label, predicted, w=fade**age)
    return {name: metric.get() for name, metric in scores.items()}


def _majorities(labels: list[int]) -> list[int]:
    counts: Counter[int] = Counter()
    predicted = []
    for label in labels:
        predicted.append(min(counts, key=lambda c: (-counts[c], c), default=0))
        counts[label] += 1
    return predicted


@pytest.mark.parametrize("n_classes", [2, 3, 5, 30])
@pytest.mark.parametrize("seed", range(2))
def test_classification_is_rivers(n_classes: int, seed: int) -> None:
    events = classes(seed, 3000, max(n_classes, 3))
    if n_classes == 2:
        pair = np.asarray(events.probabilities)[:, :2]
        pair = pair / pair.sum(axis=1, keepdims=True)
        events = events._replace(probabilities=jnp.asarray(pair))
    state, _ = run(make_classification_metrics(n_classes, WINDOW), blocks(events))
    report = classification_report(state)
    assert json.loads(json.dumps(report)) == report

    rows = counting(events)
    labels = [int(row[0]) for row in rows]
    predictions = {
        "model": [int(np.argmax(row[1])) for row in rows],
        "no_change": [max(int(row[2]), 0) for row in rows],
        "majority": _majorities(labels),
    }
    losses = [-math.log(max(float(row[1][row[0]]), 1e-7)) for row in rows]
    for span, fade in (("all", 1.0), ("window", 1 - 1 / WINDOW)):
        weights = fade ** np.arange(len(rows))[::-1]
        for name, predicted in predictions.items():
            ours = report if name == "model" else report["baselines"][name]
            _close(ours[span], _river_classes(list(zip(labels, predicted, strict=True)), fade))
        _close(report[span], {"log_loss": np.average(losses, weights=weights)})
        _close(report[span], {"events": weights.sum()})
    assert isinstance(report["all"]["events"], int)


def test_binary_log_loss_is_rivers() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(1e-6, 1 - 1e-6, 500).astype(np.float32)
    labels = rng.random(500) < p
    events = ScoredClass(
        jnp.asarray(labels, jnp.int32),
        jnp.stack([1 - p, p], axis=1),
        jnp.zeros(500, jnp.int32),
        jnp.ones(500),
    )
    oracle = metrics.LogLoss()
    for label, one in zip(labels, p.tolist(), strict=True):
        oracle.update(bool(label), one)
    report = classification_report(run(make_classification_metrics(2), blocks(events))[0])
    assert report["all"]["log_loss"] == pytest.approx(oracle.get(), rel=1e-5)


def test_a_sure_error_costs_a_finite_loss() -> None:
    events = ScoredClass(
        jnp.zeros(1, jnp.int32), jnp.float32([[0, 1]]), jnp.int32([-1]), jnp.ones(1)
    )
    for probabilities in ([[0.0, 1.0]], [[np.nan, np.nan]]):
        events = events._replace(probabilities=jnp.float32(probabilities))
        report = classification_report(run(make_classification_metrics(2), blocks(events))[0])
        assert report["all"]["log_loss"] == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_baselines_predict_class_0_before_there_is_a_label() -> None:
    events = ScoredClass(
        jnp.int32([0]), jnp.float32([[0, 0, 1]]), jnp.int32([-1]), jnp.ones(1, bool)
    )
    report = classification_report(run(make_classification_metrics(3), blocks(events))[0])
    assert report["all"]["accuracy"] == 0.0
    assert report["baselines"]["no_change"]["all"]["accuracy"] == 1.0
    assert report["baselines"]["majority"]["all"]["accuracy"] == 1.0
    assert report["all"]["kappa"] == 0.0


def test_what_is_undefined_is_none() -> None:
    empty = classification_report(make_classification_metrics(3).init())
    for span in ("all", "window"):
        assert set(empty[span].values()) == {None, 0}
        assert empty[span]["events"] == 0
        assert empty["per_class"][span] == [dict.fromkeys(KEYS, 0.0) | {"pr_auc": None}] * 3
    events = ScoredClass(
        jnp.zeros(50, jnp.int32),
        jnp.tile(jnp.float32([0.9, 0.1]), (50, 1)),
        jnp.zeros(50, jnp.int32),
        jnp.ones(50),
    )
    one_class = classification_report(run(make_classification_metrics(2), blocks(events))[0])
    assert one_class["all"]["accuracy"] == one_class["all"]["macro_f1"] == 1.0
    assert one_class["all"]["balanced_accuracy"] == one_class["window"]["macro_recall"] == 1.0
    for span in ("all", "window"):
        for name in ("kappa", "kappa_m", "kappa_t"):
            assert one_class[span][name] is None
    assert one_class["window"]["roc_auc"] is None

    fold = make_regression_metrics()
    for span in ("all", "window"):
        empty = regression_report(fold.init())[span]
        assert {name for name, value in empty.items() if value is not None} == {
            "events",
            "mape_events",
        }
    same = numbers(0, 10)._replace(label=jnp.full(10, 2.5), weight=jnp.ones(10))
    for n in (1, 10):
        report = regression_report(run(fold, blocks(same), stop=n)[0])
        assert report["all"]["r2"] is report["window"]["r2"] is None


def test_window_forgets_what_is_long_gone() -> None:
    labels = np.repeat([0, 1, 2], [1000, 1000, 6000])[:8000]
    events = classes(0, 8000, 4, labels)._replace(weight=jnp.ones(8000))
    report = classification_report(run(make_classification_metrics(4, WINDOW), blocks(events))[0])
    correct = np.argmax(np.asarray(events.probabilities)[-6000:], axis=1) == labels[-6000:]
    assert report["window"]["accuracy"] == pytest.approx(correct[-2000:].mean(), abs=0.05)
    assert report["window"]["events"] == pytest.approx(WINDOW, rel=1e-3)
    assert report["baselines"]["no_change"]["window"]["accuracy"] == pytest.approx(1, abs=1e-3)
    assert report["baselines"]["majority"]["window"]["accuracy"] > 0.99  # since event 3000


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("seed", range(2))
def test_regression_is_rivers(seed: int, offset: float) -> None:
    events = numbers(seed, 3000, offset)
    state, _ = run(make_regression_metrics(WINDOW), blocks(events))
    report = regression_report(state)
    assert json.loads(json.dumps(report)) == report

    rows = [tuple(map(float, row)) for row in counting(events)]
    labels = [row[0] for row in rows]
    means = [0.0, *(np.cumsum(labels)[:-1] / np.arange(1, len(labels)))]
    predictions = {
        "model": [row[1] for row in rows],
        "no_change": [
            m if math.isnan(row[4]) else row[4] for row, m in zip(rows, means, strict=True)
        ],
        "mean": means,
        "median": [m if math.isnan(row[5]) else row[5] for row, m in zip(rows, means, strict=True)],
    }
    inside = [row[2] <= row[0] <= row[3] for row in rows]
    for span, fade in (("all", 1.0), ("window", 1 - 1 / WINDOW)):
        weights = fade ** np.arange(len(rows))[::-1]
        for name, predicted in predictions.items():
            oracle: dict[str, Weighted]
            oracle = {"mae": metrics.MAE(), "rmse": metrics.RMSE(), "r2": metrics.R2()}
            for w, label, p in zip(weights.tolist(), labels, predicted, strict=True):
                for metric in oracle.values():
                    metric.update(label, p, w=w)
            ours = report if name == "model" else report["baselines"][name]
            for key, metric in oracle.items():
                assert ours[span][key] == pytest.approx(metric.get(), rel=1e-4, abs=1e-4), key
        _close(report[span], {"coverage": np.average(inside, weights=weights)})
        _close(report[span], {"events": weights.sum()})


def test_regression_says_so_when_the_model_predicts_nonsense() -> None:
    events = numbers(0, 100)._replace(prediction=jnp.full(100, jnp.inf), weight=jnp.ones(100))
    report = regression_report(run(make_regression_metrics(), blocks(events))[0])
    assert report["all"]["mae"] == pytest.approx(1e15)
    assert report["baselines"]["mean"]["all"]["mae"] < 100


def test_what_nothing_was_said_about_is_no_score_but_a_label() -> None:
    events = numbers(0, 100)._replace(weight=jnp.ones(100))
    silent = events._replace(prediction=events.prediction.at[:50].set(jnp.nan))
    report = regression_report(run(make_regression_metrics(), blocks(silent))[0])
    labels = np.asarray(events.label, np.float64)
    means = [labels[:at].mean() for at in range(50, 100)]
    assert report["all"]["events"] == report["all"]["mape_events"] == 50
    misses = np.abs(labels - np.asarray(events.prediction, np.float64))
    assert report["all"]["mae"] == pytest.approx(misses[50:].mean(), rel=1e-4)
    mean = report["baselines"]["mean"]["all"]["mae"]
    assert mean == pytest.approx(np.abs(labels[50:] - means).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_classification_metrics(1), "n_classes is 1: expected at least 2"),
        (lambda: make_classification_metrics(2, 0), "window is 0 events: expected at least 1"),
        (lambda: make_regression_metrics(-5), "window is -5 events: expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sums_of_millions_of_small_values_are_exact_to_float32() -> None:
    values = (np.random.default_rng(0).random(3_000_000) * 1e-3).astype(np.float32)

    @jax.jit
    def total(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def body(i: jax.Array, carry: Any) -> Any:
            total, lost, plain = carry
            return *sums.add(total, lost, values[i]), plain + values[i]

        first = (jnp.float32(1e4), jnp.zeros(()), 1e4)
        total, lost, plain = lax.fori_loop(0, len(values), body, first)
        return total, lost, plain

    high, low, plain = (float(x) for x in total(jnp.asarray(values)))
    exact = 1e4 + math.fsum(values.tolist())
    assert high + low == pytest.approx(exact, rel=1e-11)
    assert abs(plain - exact) > 0.1  # what it is for


def test_counts_go_on_after_billions_of_events() -> None:
    """Beyond 2^32 events one more still counts as one, and the majority follows by one."""
    fold = make_classification_metrics(2)
    state = fold.init()
    billions = 5_000_000_001
    table = state.sums
    for label, count in ((0, billions), (1, billions - 1)):
        high = np.float32(count)
        for cell in (label, 2 + label):
            table = table.at[:2, cell].set(jnp.float32([high, count - int(high)]))
    state = state._replace(sums=table)
    events = ScoredClass(
        jnp.ones(1000, jnp.int32),
        jnp.tile(jnp.float32([0.2, 0.8]), (1000, 1)),
        jnp.ones(1000, jnp.int32),
        jnp.ones(1000),
    )
    state, _ = run(fold, blocks(events), stop=1, state=state)
    assert int(state.places[0]) == 0  # equals: the lowest
    state, _ = run(fold, blocks(events), start=1, stop=2, state=state)
    assert int(state.places[0]) == 1
    state, _ = run(fold, blocks(events), start=2, state=state)
    assert classification_report(state)["all"]["events"] == 2 * billions - 1 + 1000


def test_stacking_by_selection_is_stacking() -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (4,), (2, 3)):
        arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(5)]
        np.testing.assert_array_equal(xla.pack(*arrays), jnp.stack(arrays))
