"""Whether a task's fields are there is watched of each kind of feature."""

from __future__ import annotations

from headrace.stream.events import Records
from headrace.stream.rows.absent import Absent
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import validate

TASK = validate(
    {
        "name": "t",
        "input": {"topic": "events.t", "time": "at", "entity": "who"},
        "target": {"field": "y", "kind": "regress"},
        "features": {
            "x": {"kind": "number"},
            "missing": {"kind": "number"},
            "calls": {"kind": "aggregate", "statistic": "count", "seconds": 60},
            "highest": {"kind": "aggregate", "statistic": "max", "of": "x", "seconds": 60},
            "word": {"kind": "text"},
            "color": {"kind": "category"},
        },
    },
    "test",
)


def test_what_no_event_has_is_named_and_what_is_made_of_others_is_not() -> None:
    watched = Absent(TASK)
    values: list[bytes | None] = [
        b'{"id":%d,"at":"2026-01-01","who":"a","y":1,"x":2,"word":"hm"}' % n for n in range(3)
    ]
    records = Records("events.t", values, [None] * 3, [0] * 3, [0, 1, 2], [])
    watched.add(Normalizer(TASK).normalize(records)[0])
    told = " ".join(watched.lines())
    assert "missing" in told
    assert "color" in told
    assert "calls" not in told
    assert "highest" not in told
