"""Scores of late labels by event time and of events held out: against sums over all of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from headrace.model import late_scores
from headrace.model.late_scores import AGAIN, HELD_OUT, LABEL, Late
from headrace.model.spec import Spec

WINDOW, EVENTS = 20, 300
SPECS = {
    "classes": Spec(numeric=1, classes=3, waiting=8, window=WINDOW),
    "numbers": Spec(numeric=1, waiting=8, window=WINDOW),
    "one event": Spec(numeric=1, classes=3, waiting=8, window=1),
}


def drawn(spec: Spec, seed: int) -> list[dict[str, Any]]:
    """Draw labels as they come: late by very different times, some twice, some never."""
    rng = np.random.default_rng(seed)
    label, said, last = rng.integers(0, 3, (3, EVENTS)).astype(np.float32)
    said[rng.random(EVENTS) < 0.1] = np.nan
    last[rng.random(EVENTS) < 0.1] = np.nan
    comes = np.arange(EVENTS) + rng.exponential(30.0, EVENTS)
    order = np.argsort(comes)[: EVENTS * 4 // 5]
    found: list[dict[str, Any]] = []
    for at in order:
        kind = LABEL + HELD_OUT * int(at % 5 == 0)
        now = {"label": label[at], "said": said[at], "no_change": last[at], "number": at}
        found.append(now | {"kind": kind})
        if at % 7 == 0:
            found.append(now | {"kind": kind + AGAIN, "label": label[at] + 1})
    return found


def expected(spec: Spec, weights: np.ndarray[Any, Any], lines: list[dict[str, Any]]) -> Any:
    """Return accuracy or mae of what was said, and of the last labels, by weights."""

    def mean(name: str) -> float | None:
        label, said = (np.array([line[key] for line in lines], float) for key in ("label", name))
        known = ~np.isnan(said)
        good = (label == said) if spec.classes else np.abs(label - said)
        total = weights[known].sum()
        return float((weights * good)[known].sum() / total) if total else None

    return mean("said"), mean("no_change")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 2, 50, 240])
def test_scores_are_those_of_all_labels_by_age(name: str, count: int) -> None:
    spec = SPECS[name]
    lines = drawn(spec, 3)[:count]
    step = jax.jit(lambda scores, late: late_scores.score(spec, scores, late))
    scores = late_scores.init(spec)
    for _ in range(EVENTS):
        scores = late_scores.count(scores)
    for line in lines:
        typed = {"number": np.uint32(line["number"]), "kind": np.int32(line["kind"])}
        scores = step(scores, Late(**(line | typed)))
    report = late_scores.report(spec, jax.device_get(scores), unit=1.0)
    first = [line for line in lines if not line["kind"] & AGAIN]
    numbers, fade = np.array([line["number"] for line in first]), 1 - 1 / spec.window
    newest = numbers.max()
    weights = np.power(fade, newest - numbers)
    metric, found = "accuracy" if spec.classes else "mae", report["event_time"]
    assert (found[metric], found["no_change"]) == pytest.approx(expected(spec, weights, first))
    every = np.power(fade, newest - np.arange(newest + 1)).sum()
    assert found["labelled"] == pytest.approx(weights.sum() / every)
    assert found["behind"] == EVENTS - 1 - newest
    held = [line for line in first if line["kind"] & HELD_OUT]
    weights = np.power(fade, np.arange(len(held))[::-1])
    found = report["held_out"]
    assert (found[metric], found["no_change"]) == pytest.approx(expected(spec, weights, held))


def test_before_the_first_label_there_is_nothing_to_tell() -> None:
    scores = late_scores.count(late_scores.init(SPECS["classes"]))
    none = {"accuracy": None, "no_change": None, "events": 0.0}
    assert late_scores.report(SPECS["classes"], scores) == {
        "event_time": none | {"labelled": 0.0, "behind": 1},
        "held_out": none,
    }
