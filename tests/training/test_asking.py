"""What is asked is said by the same bits as what is published."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.reading import unlabelled
from headrace.stream.rows.rows import take
from headrace.stream.training.asking import LINES
from headrace.stream.training.learned import Foreseen
from headrace.stream.training.trainer import Trainer
from tests.support.kinds_of_tasks import CLASSES, MORE, VALUE, events, rows, task


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
