"""A learner after 10^8 events is as good as after 10^7."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.stream.rows.rows import Rows
from headrace.stream.task import validate
from headrace.stream.training.trainer import Trainer

EVENTS = int(os.environ.get("HEADRACE_LIFE", 100_000_000))
CONCEPT = 50_000  # rows
PART = 5_000  # rows of a micro-batch
CONCEPTS = EVENTS // 10 // CONCEPT  # then they come again: a tenth is like any other
INPUTS, HIDDEN = 6, 8
Floats = NDArray[np.float64]


def concept(number: int, kind: str) -> tuple[Floats, Floats]:
    """Draw inputs and labels: a small network of its own for each of CONCEPTS concepts."""
    world, rng = np.random.default_rng(number % CONCEPTS), np.random.default_rng([number, 1])
    inward = world.normal(size=(INPUTS, HIDDEN))
    outward = world.normal(size=HIDDEN)
    inputs = rng.normal(size=(CONCEPT, INPUTS))
    value = np.tanh(inputs @ inward) @ outward
    if kind == "regress":
        return inputs, value + 0.3 * rng.normal(size=CONCEPT)
    return inputs, np.where(rng.random(CONCEPT) < 0.05, value <= 0.0, value > 0.0).astype(float)


def rows_of(inputs: Floats, label: Floats) -> Rows:
    n = len(label)
    return Rows(
        id=list(range(n)),
        key=[None] * n,
        partition=[0] * n,
        offset=list(range(n)),
        time_ms=np.zeros(n, np.int64),
        numeric=inputs,
        ids=np.zeros((n, 0), np.uint32),
        entity=np.zeros((n, 2), np.uint32),
        label=label,
        new_class=[None] * n,
        image=np.zeros((n, 0, 0, 0), np.uint8),
        weight=np.zeros((n, 0)),
        arrived_ms=np.zeros(n, np.int64),
    )


@pytest.mark.long
@pytest.mark.timeout(6 * 3_600)
@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_the_last_tenth_is_as_good_as_the_second(
    kind: Literal["classify", "regress"], tell: Callable[[str], None]
) -> None:
    """As many as HEADRACE_LIFE says, or 10^8; the same concepts in each tenth, on other rows."""
    classes = {"classes": ["0", "1"]} if kind == "classify" else {}
    task = validate(
        {
            "name": "life",
            "input": {"topic": "life", "id": "id"},
            "target": {"field": "y", "kind": kind} | classes,
            "features": {f"x{at}": {"kind": "number"} for at in range(INPUTS)},
        },
        "long life",
    )
    trainer, missed = Trainer(task, PART), np.zeros(EVENTS // CONCEPT)
    for number in range(len(missed)):
        inputs, label = concept(number, kind)
        pending = [
            trainer.submit(rows_of(inputs[at : at + PART], label[at : at + PART]))
            for at in range(0, CONCEPT, PART)
        ]
        said = np.concatenate([trainer.collect(each).published for each in pending])
        assert np.isfinite(said[2:] if number == 0 else said).all()
        answer = said.argmax(1) if kind == "classify" else said[:, 0]
        errors = np.abs(answer - label)[2:]
        missed[number] = errors.mean()
    tenths = missed[: 10 * CONCEPTS].reshape(10, CONCEPTS)
    report = trainer.report()
    tell(
        f"long life, {kind}: {EVENTS:,} events, errors by tenth "
        f"{[round(mean, 4) for mean in tenths.mean(1).tolist()]}, resets {report['resets']}, "
        f"plasticity {report['plasticity']}"
    )
    worse = tenths[-1] - tenths[1]
    assert worse.mean() < 3.0 * worse.std() / np.sqrt(CONCEPTS)
