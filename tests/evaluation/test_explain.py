"""What `check` says of late labels."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.stream.evaluation.explain import explain
from headrace.stream.task import validate


def said(entities: int = 5, horizon: int = 0, **labels: Any) -> str:
    told = {
        "name": "t",
        "input": {"topic": "events.t", "entity": "who"},
        "target": {
            "field": "y",
            "kind": "classify",
            "classes": ["no", "yes"],
            "horizon": horizon,
        },
        "features": {"x": {"kind": "number"}},
        "labels": {"topic": "labels.t", "max_pending": 1000} | labels,
        "lags": {"entities": entities},
    }
    return "\n".join(explain(validate(told, "t")))


def test_small_shares_are_told() -> None:
    told = said(on_expiry="no", sample_negatives=0.0025, holdout=0.002)
    assert " 0.25 % of the events with this label are learned" in told
    assert " 0.2 % of the events are marked as held out" in told


def test_rows_that_wait_outside_of_memory_are_told() -> None:
    told = said(max_pending=1_000_000, in_memory=50_000)
    assert "with the rows of the newest 50,000; those of others are in temporary\n" in told
    (files,) = (line for line in told.splitlines() if "files then, about" in line)
    assert 40 < float(files.split()[-2]) < 200
    assert "temporary" not in said(max_pending=1_000, in_memory=1_000)


@pytest.mark.parametrize(("horizon", "least", "most"), [(0, 0, 1), (24, 350, 400)])
def test_what_labels_may_answer_takes_memory(horizon: int, least: int, most: int) -> None:
    """24 rows of each of 100,000 entities take 373 MB, as was measured."""
    (line,) = (line for line in said(100_000, horizon).splitlines() if "MB of memory" in line)
    megabytes = float(line.split(" MB of")[0].split()[-1].replace(",", ""))
    assert least < megabytes < most
