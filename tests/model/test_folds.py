"""Run the common checks over every fold that measures."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headrace.model.drift import (
    make_adwin,
    make_ddm,
    make_eddm,
    make_hddm_a,
    make_hddm_w,
    make_kswin,
    make_page_hinkley,
)
from headrace.model.metrics import (
    ScoredClass,
    ScoredNumber,
    make_classification_metrics,
    make_regression_metrics,
)
from tests.support import folds
from tests.support.folds import AnyFold
from tests.support.scored_streams import blocks

N = 700


class Case(NamedTuple):
    fold: AnyFold
    events: Any
    ignored: Any


def _observed(values: np.ndarray) -> Any:
    return jnp.asarray(values, jnp.float32), jnp.ones(len(values), bool)


def _detector(fold: AnyFold) -> Case:
    rng = np.random.default_rng(1)
    events = _observed(np.where(np.arange(N) < N // 2, 0.0, 3.0) + rng.random(N))
    unknown = (events[0], jnp.zeros(N, bool))
    broken = _observed(rng.choice([np.nan, np.inf, -np.inf], N))
    return Case(fold, events, jax.tree.map(lambda *x: jnp.concatenate(x), unknown, broken))


def _classification(n_classes: int, k: int) -> Case:
    rng = np.random.default_rng(2)
    events = ScoredClass(
        label=jnp.asarray(rng.integers(0, n_classes, N), jnp.int32),
        probabilities=jnp.asarray(rng.dirichlet(np.ones(n_classes), N), jnp.float32),
        no_change=jnp.asarray(rng.integers(-1, n_classes, N), jnp.int32),
        weight=jnp.ones(N, jnp.float32),
    )
    weightless = events._replace(weight=jnp.zeros(N, jnp.float32))
    foreign = events._replace(label=jnp.asarray(rng.choice([-1, n_classes, 2**30], N), jnp.int32))
    ignored = jax.tree.map(lambda *x: jnp.concatenate(x), weightless, foreign)
    return Case(make_classification_metrics(n_classes), blocks(events, k), blocks(ignored, k))


def _regression(k: int) -> Case:
    rng = np.random.default_rng(3)
    y = rng.normal(size=N)
    low, high, size = y - 1, y + rng.random(N), abs(y)
    prediction, last, median = y + rng.normal(size=N), np.roll(y, 1), np.roll(y, 2)
    columns = (y, prediction, low, high, last, median, size, np.ones(N))
    events = ScoredNumber(*(jnp.asarray(x, jnp.float32) for x in columns))
    weightless = events._replace(weight=jnp.zeros(N, jnp.float32))
    broken = events._replace(label=jnp.asarray(rng.choice([np.nan, np.inf], N), jnp.float32))
    ignored = jax.tree.map(lambda *x: jnp.concatenate(x), weightless, broken)
    return Case(make_regression_metrics(), blocks(events, k), blocks(ignored, k))


CASES = {
    "adwin": _detector(make_adwin()),
    "page_hinkley": _detector(make_page_hinkley()),
    "ddm": _detector(make_ddm()),
    "eddm": _detector(make_eddm()),
    "hddm_a": _detector(make_hddm_a(two_sided=True)),
    "hddm_w": _detector(make_hddm_w(two_sided=True)),
    "kswin": _detector(make_kswin()),
    "classification of 2": _classification(2, 1),
    "classification of 2 in blocks": _classification(2, 8),
    "classification of 32 in blocks": _classification(32, 8),
    "classification of 100": _classification(100, 1),
    "regression": _regression(1),
    "regression in blocks": _regression(8),
}


@pytest.mark.parametrize("check", folds.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CASES)
def test_every_fold(name: str, check: Any) -> None:
    check(CASES[name].fold, CASES[name].events)


@pytest.mark.parametrize("name", CASES)
def test_ignored_events_leave_no_trace(name: str) -> None:
    folds.check_ignored_events_leave_no_trace(*CASES[name])
