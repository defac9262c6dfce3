"""Answers with what drove them: by HTTP, by a client, and by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import headrace
from headrace.stream.errors import ServiceError
from headrace.stream.rows.inputs import inputs_of
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.training.trainer import Trainer
from tests.support.events import good
from tests.support.json_rows import records_of
from tests.support.serving import Ask, serving, small_task, trained

PLAIN = small_task()
MODEL = PLAIN.model.model_copy(update={"explain": 0.0})
TASK: Task = PLAIN.model_copy(update={"model": MODEL})
EXPLAIN = "/v1/tasks/poisoned/explain"


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trained(TASK)


@pytest.fixture
def ask(trainer: Trainer) -> Iterator[Ask]:
    with serving(TASK, trainer) as ask:
        yield ask


def wanted(trainer: Trainer, raw: bytes) -> dict[str, Any]:
    rows, _ = Normalizer(TASK).normalize(records_of([raw]))
    (line,) = trainer.predictions(trainer.explain(rows))
    assert line.explanation
    why: dict[str, Any] = {"base": line.explanation.base, "inputs": line.explanation.inputs}
    return why | {"of": line.explanation.of}


def test_an_answer_is_explained_as_the_learner_would(ask: Ask, trainer: Trainer) -> None:
    for number in range(60, 70):
        raw = good(number, label=None)
        said = ask("POST", EXPLAIN, raw)
        assert said.status == 200
        why = said.body["explanation"]
        assert why == wanted(trainer, raw)
        at = [*trainer.classes].index(why["of"])
        assert why["of"] == said.body["prediction"]
        total = why["base"] + sum(why["inputs"].values())
        assert total == pytest.approx(said.body["probabilities"][at], abs=1e-12)
        plain = ask("POST", "/v1/tasks/poisoned/predict", raw).body
        assert plain == {name: said.body[name] for name in said.body if name != "explanation"}


def test_many_are_explained_in_their_place_and_not_too_many(ask: Ask) -> None:
    events = [json.loads(good(number, label=None)) for number in range(60, 64)]
    events[1]["x"] = "much"
    said = ask("POST", EXPLAIN, events)
    assert ["explanation" in each for each in said.body] == [True, False, True, True]
    assert said.body[1]["code"] == "schema"
    assert said.body[0] == ask("POST", EXPLAIN, events[0]).body
    assert ask("POST", EXPLAIN, events[:1] * 257).status == 413


def test_a_task_that_explains_nothing_says_what_to_do() -> None:
    with serving(PLAIN, trained(PLAIN)) as ask:
        said = ask("POST", EXPLAIN, good(60))
        assert said.status == 409
        assert "model.explain" in said.body["detail"]
        with headrace.Client(ask.url) as client, pytest.raises(ServiceError, match="explain"):
            client.explain("poisoned", json.loads(good(60)))


def test_the_command_draws_what_drove_it_the_most_first(ask: Ask, run: Any) -> None:
    event = good(60, label=None).decode()
    told = run("ask", "poisoned", event, "--explain", "--url", ask.url)
    first, base, *lines = told.out.splitlines()
    assert "by step" in first
    assert base.split()[0] == "usually"
    sizes = [abs(float(line.split()[1])) for line in lines]
    assert len(sizes) == len(inputs_of(TASK))
    assert sizes == sorted(sizes, reverse=True)
    assert max(map(len, told.out.splitlines())) <= 80
    asked = run("ask", "poisoned", event, "--explain", "--json", "--url", ask.url)
    answer = json.loads(asked.out)
    with headrace.Client(ask.url) as client:
        assert client.explain("poisoned", json.loads(event)) == answer


def test_a_learner_explains_what_it_would_publish() -> None:
    learner = headrace.Learner(TASK)
    for number in range(40):
        learner.learn_one(json.loads(good(number)))
    said = learner.explain(json.loads(good(60)))
    plain = learner.predict_one(json.loads(good(60)))
    assert said.explanation
    assert (said.label, said.probabilities) == (plain.label, plain.probabilities)
    total = said.explanation.base + sum(said.explanation.inputs.values())
    assert said.label
    assert total == pytest.approx(said.probabilities[said.label])
