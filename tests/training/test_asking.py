"""What is asked is said by the same bits as what is published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.reading import unlabelled
from headrace.stream.rows.rows import Rows, take
from headrace.stream.task import Task, validate
from headrace.stream.training.asking import LINES
from headrace.stream.training.learned import Foreseen
from headrace.stream.training.trainer import Trainer
from tests.support.json_rows import rows_of

NUMBERS = {name: {"kind": "number"} for name in ("x", "z")}
WORDS: dict[str, Any] = {"wind": {"kind": "category"}, "text": {"kind": "text", "max_tokens": 8}}
CLASSES = {"field": "c", "kind": "classify", "classes": ["a", "b", "c"]}
VALUE = {"field": "y", "kind": "regress"}
SUMS: dict[str, Any] = {
    "mean_x": {"kind": "aggregate", "statistic": "mean", "of": "x", "seconds": 60},
    "since": {"kind": "aggregate", "statistic": "since_last"},
}
MORE: dict[str, dict[str, Any]] = {
    "classes": {"target": CLASSES},
    "values": {"target": VALUE},
    "quantiles": {"target": VALUE, "model": {"loss": "pinball"}},
    "classes that come": {"target": {"field": "c", "kind": "classify", "max_classes": 5}},
    "words": {"target": CLASSES, "features": NUMBERS | WORDS},
    "chunks": {"target": CLASSES, "features": NUMBERS | WORDS, "model": {"chunk": 4}},
    "entities": {
        "target": VALUE,
        "input": {"entity": "who", "time": "t"},
        "features": NUMBERS | SUMS,
        "calendar": ["hour"],
    },
    "horizon": {"target": VALUE | {"horizon": 3}, "input": {"entity": "who"}},
    "horizon of chunks": {"target": CLASSES | {"horizon": 2}, "model": {"chunk": 3}},
    "late labels": {"target": CLASSES, "labels": {"topic": "labels"}},
    "balanced": {"target": CLASSES | {"class_weight": "balanced"}},
    "weights": {"target": VALUE, "input": {"weight": "w"}},
    "plain": {
        "target": CLASSES,
        "model": {"network": "linear", "neighbours": 0, "learning_rate": 0.01},
        "lags": {"traces": []},
    },
}


def task(more: dict[str, Any]) -> Task:
    table = {"name": "t", "features": NUMBERS} | more
    return validate(table | {"input": {"topic": "t"} | more.get("input", {})}, "test")


def events(count: int, level: float = 0.0) -> list[dict[str, Any]]:
    rng, found = np.random.default_rng(7), list[dict[str, Any]]()
    for number in range(count):
        x, z = rng.normal(size=2).round(3) + level
        value = x - z + rng.normal() / 4 + level
        found.append(
            {
                "id": number,
                "t": 1_700_000_000 + 20 * number,
                "who": f"w{rng.integers(5)}",
                "x": float(x) if number % 7 else None,
                "z": float(z),
                "wind": "NESW"[rng.integers(4)],
                "text": " ".join(f"word{at}" for at in rng.integers(0, 60, 6)),
                "y": float(value),
                "c": "abc"[int(np.digitize(value - level, [-0.5, 0.5]))],
                "w": float(rng.integers(1, 4)),
            }
        )
    return found


def rows(of: Task, stream: list[dict[str, Any]]) -> Rows:
    """Return rows with just the fields that the task maps."""
    mapped = {"id", of.target.field, of.input.entity, of.input.time, of.input.weight, *of.features}
    found = [{key: event[key] for key in mapped if key in event} for event in stream]
    return rows_of(of, found)


@pytest.mark.parametrize("name", MORE)
def test_the_learner_publishes_what_was_asked_bit_for_bit(name: str) -> None:
    made, count = task(MORE[name]), 300
    trainer, stream = Trainer(made, 64), rows(made, events(count))
    asked = published = 0
    for at in range(count):
        row = take(stream, [at])
        if at % 5 == 0 or at < 20:
            said = trainer.ask(unlabelled(made, row))
            asked += 1
        row, _ = trainer.admit(row, "")
        learned = trainer.collect(trainer.submit(row))
        if at % 5 == 0 or at < 20:
            assert said.published.tobytes() == learned.published.tobytes(), at
            assert said.step.tolist() == learned.step.tolist()
            told, wanted = trainer.predictions(said), trainer.predictions(learned)
            assert told == wanted
            published += told[0].prediction is not None
    assert published > asked / 2


@pytest.mark.parametrize("target", [CLASSES, VALUE], ids=["classes", "values"])
def test_rows_that_move_their_frame_are_asked_in_it(target: dict[str, Any]) -> None:
    made = task({"target": target})
    trainer = Trainer(made, 64)
    low, high = (unlabelled(made, rows(made, events(64, level))) for level in (0.0, 1e9))
    labelled = rows(made, events(64, 0.0))
    moved = 0
    for at in range(40):
        both = take(high, [at]), take(low, [at])
        for row in both:
            foreseen = trainer.foresee(row)
            assert isinstance(foreseen, Foreseen)
            moved += bool((foreseen.frame.origin != trainer._frame.origin).any())
            assert trainer.ask(row).published.tobytes() == foreseen.found.published.tobytes(), at
        trainer.collect(trainer.submit(take(labelled, [at])))
    assert moved > 3


def test_rows_know_nothing_of_each_other_nor_of_how_many_there_are() -> None:
    made = task(MORE["words"])
    trainer, stream = Trainer(made, 64), rows(made, events(2 * LINES + 40))
    for at in range(0, 200, 50):
        trainer.collect(trainer.submit(take(stream, [*range(at, at + 50)])))
    before = trainer.snapshot().tensors()
    asked = unlabelled(made, stream)
    whole = trainer.ask(asked).published
    for at in (0, LINES - 1, LINES, len(stream.id) - 1):
        assert trainer.ask(take(asked, [at])).published.tobytes() == whole[at].tobytes()
    assert trainer.ask(take(asked, [])).published.shape == (0, 3)
    after = trainer.snapshot().tensors()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
