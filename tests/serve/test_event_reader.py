"""Events without an id are read as the others are."""

from __future__ import annotations

from headrace.stream.serve.event_reader import EventReader
from headrace.stream.task import parse
from tests.support.events import task_text
from tests.support.serving import SMALL


def test_an_event_with_a_number_that_is_none_needs_no_id_where_the_task_takes_such() -> None:
    text = task_text("poisoned") + SMALL
    event = b'{"entity": "a", "time": "2024-05-01T12:00:00Z", "x": NaN, "y": 1}'
    taking = parse(text.replace("[target]", 'non_finite = "missing"\n[target]'), "test")
    found = EventReader(taking).read([event])
    assert (len(found.rows.id), found.refused, found.nameless) == (1, {}, {0})
    (refused,) = EventReader(parse(text, "test")).read([event]).refused.values()
    assert refused.code == "json"
