"""What is told of refusals: how many events, of all that came."""

from __future__ import annotations

import pytest

from headrace.stream.events import Reject, dead_letter
from headrace.stream.rows.refusals import Refusals
from headrace.stream.task import parse

TASK = parse(
    """
name = "t"
[input]
topic = "t.events"
[target]
field = "y"
kind = "regress"
[features]
x = { kind = "number" }
[labels]
topic = "t.labels"
""",
    "t.toml",
)


@pytest.mark.parametrize(
    ("events", "labels", "told"),
    [
        (30, 400, ["30 of 1,000 events (3.0 %) are refused: the scores are those of the others"]),
        (5, 995, []),
    ],
)
def test_refused_labels_are_no_refused_events(events: int, labels: int, told: list[str]) -> None:
    refusals = Refusals(TASK, topic=True)
    for topic, count in (("t.events", events), ("t.labels", labels)):
        reject = Reject("schema", "x: text, expected a number")
        refusals.add(dead_letter(reject, topic, 0, at, None, None) for at in range(count))
    assert refusals.total == events + labels
    assert refusals.warnings(1000) == told
