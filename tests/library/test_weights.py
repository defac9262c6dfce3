"""Weights of a network, out and in: what it says by them, and how a learner goes on from them.

What PyTorch itself makes of them is in `tests/examples/test_frameworks.py`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace
from headrace import weights
from headrace.stream.errors import UsageError
from headrace.stream.task import Task, parse
from tests.support.core import in_the_core
from tests.support.events import good, task_text

REGRESSION = ('classes = ["no", "yes"]', ""), ('kind = "classify"', 'kind = "regress"')
MODEL = '\n[model]\nhidden = {hidden}\nneighbours = 5\nactivation = "{bend}"\n'
KINDS = {
    "two layers": ("[8, 5]", "relu", ""),
    "gelu": ("[6]", "gelu", ""),
    "sigmoid in chunks": ("[7]", "sigmoid", "chunk = 4\n"),
    "no layer": ("[]", "tanh", ""),
    "linear": ("[4]", "relu", 'network = "linear"\n'),
    "regression": ("[8]", "tanh", ""),
}


def task_of(kind: str) -> Task:
    hidden, bend, more = KINDS[kind]
    text = task_text("weights") + MODEL.format(hidden=hidden, bend=bend) + more
    for old, new in REGRESSION if kind == "regression" else ():
        text = text.replace(old, new)
    return parse(text, "t")


def events(kind: str, first: int, last: int) -> list[dict[str, Any]]:
    found = [json.loads(good(number)) for number in range(first, last)]
    for event in found:
        if kind == "regression":
            event["label"] = 3.0 * event["y"] - event["x"]
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def learner(kind: str) -> headrace.Learner:
    made = headrace.Learner(task_of(kind))
    made.predict_then_learn(events(kind, 0, 301))
    return made


def said(
    shape: weights.Shape, known: weights.Arrays, inputs: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Do with numpy, in float64, what a network of these weights says."""
    bends: dict[str, Callable[[Any], Any]] = {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "gelu": lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    }
    bend = bends[shape.activation]
    rows = deep = inputs.astype(np.float64)
    for layer in range(len(shape.hidden)):
        deep = bend(deep @ known[f"hidden.{layer}.weight"].T + known[f"hidden.{layer}.bias"])
    seen = np.column_stack([deep, rows]) if shape.hidden else rows
    answers: NDArray[np.float64] = seen @ known["output.weight"].T + known["output.bias"]
    return answers


def test_what_comes_out_says_what_the_network_does(learner: headrace.Learner, kind: str) -> None:
    table, shape = events(kind, 301, 309), weights.shape_of(learner)
    truth = in_the_core(learner, table)
    for network in range(learner.task.spec.networks):
        given = weights.examples(learner, table, network)
        found = said(shape, weights.read(learner, network), given.inputs) + given.added
        assert np.abs(found - truth[network]).max() < 1e-6 * max(1.0, np.abs(truth).max())
    assert np.abs(truth[0] - truth[1]).max() > 1e-3  # they are not all the same


def test_what_goes_in_comes_out_and_is_spoken(learner: headrace.Learner, kind: str) -> None:
    table, names = events(kind, 301, 306), [*learner.metrics["members"]]
    chosen = np.random.default_rng(4)
    other = {
        name: chosen.normal(0, 0.3, array.shape).astype(np.float32)
        for name, array in weights.read(learner, 0).items()
    }
    others = in_the_core(learner, table)
    before = learner.predict_one(table[0])
    weights.write(learner, names[1], other)
    assert all(np.array_equal(a, other[n]) for n, a in weights.read(learner, 1).items())
    given = weights.examples(learner, table, 1)
    truth = in_the_core(learner, table)
    found = said(weights.shape_of(learner), other, given.inputs) + given.added
    assert np.abs(found - truth[1]).max() < 1e-5
    assert np.array_equal(np.delete(truth, 1, 0), np.delete(others, 1, 0))
    assert learner.predict_one(table[0]) != before


def test_the_same_weights_change_no_prediction_but_what_is_forgotten(kind: str) -> None:
    """Of a learner that has learned nothing, nothing is: it goes on to the bit."""
    plain, touched = (headrace.Learner(task_of(kind)) for _ in range(2))
    for network in range(plain.task.spec.networks):
        weights.write(touched, network, weights.read(touched, network))
    table = events(kind, 0, 60)
    assert touched.predict_then_learn(table) == plain.predict_then_learn(table)


def test_it_is_saved_and_goes_on(learner: headrace.Learner, kind: str, tmp_path: Path) -> None:
    weights.write(learner, 0, {n: a * 0.5 for n, a in weights.read(learner, 0).items()})
    learner.save(tmp_path / "w.hr")
    again, table = headrace.Learner.load(tmp_path / "w.hr"), events(kind, 301, 340)
    assert again.predict_then_learn(table) == learner.predict_then_learn(table)


def test_goals_are_what_the_labels_ask_of_a_network() -> None:
    learner = headrace.Learner(task_of("two layers"))
    table = events("", 0, 40)
    given = weights.examples(learner, table, 0)
    assert given.goals.tolist() == [float(event["label"] == "yes") for event in table]
    assert np.isnan(weights.examples(learner, [table[0] | {"label": None}], 0).goals).all()
    numbers = headrace.Learner(task_of("regression"))
    numbers.predict_then_learn(events("regression", 0, 400))
    table = events("regression", 400, 440)
    goals = weights.examples(numbers, table, 0).goals
    labels = np.array([event["label"] for event in table])
    assert np.corrcoef(goals, labels)[0, 1] > 0.9 and np.abs(goals).max() < 10
    assert weights.examples(numbers, [], 0).inputs.shape == (0, weights.shape_of(numbers).inputs)


def test_wrong_weights_change_nothing() -> None:
    learner = headrace.Learner(task_of("two layers"))
    learner.predict_then_learn(events("", 0, 50))
    good, before = weights.read(learner, 0), learner._packed()
    nan = {**good, "output.bias": good["output.bias"] * np.nan}
    for wrong, told in (
        ({}, r"hidden\.0\.weight: missing; expected hidden\.0\.weight, "),
        ({**good, "x": good["output.bias"]}, "x: unknown; expected hidden"),
        ({**good, "output.bias": np.zeros(3, np.float32)}, r"shape \[3\], expected \[2\]"),
        (nan, "output.bias: holds what is not finite"),
    ):
        with pytest.raises(UsageError, match=told):
            weights.write(learner, 0, wrong)
    for network in (4, -1, "row, rate 9", True):
        with pytest.raises(
            UsageError, match=r"network = .*: expected one of 0 \(row, rate 0\.001\)"
        ):
            weights.write(learner, network, good)
    with pytest.raises(headrace.EventError, match="schema"):
        weights.examples(learner, [{"id": 1}], 0)
    assert learner._packed() == before


def test_other_networks_are_refused() -> None:
    text = task_text("w") + '[lags]\nrows = 4\n[model]\nnetwork = "gru"\n'
    learner = headrace.Learner(parse(text, "t"))
    with pytest.raises(UsageError, match=r"model\.network = 'gru': expected 'linear' or 'mlp'"):
        weights.read(learner, 0)


def test_it_needs_no_framework() -> None:
    told = "import sys, headrace.weights; print({'torch', 'tensorflow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-P", "-c", told], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
