"""Events without their labels, and the labels when `evaluate --label-delay` has them come."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.producers import late_labels
from headrace.producers.late_labels import LateLabels
from headrace.producers.sources import Event, as_cloudevents, file
from headrace.stream.errors import UsageError
from headrace.stream.events import Records
from headrace.stream.rows.label_delay import DelayedLabels, parse
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import labels_of, placed
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.task import parse as task_of
from tests.support.events import POISON

START_MS = 1_714_564_800_000
ROWS = 700
DELAYS = ["0", "1", "7", "500", "10000", "exp(20)", "0s", "10m", "exp(5m)", "exp(3)"]


def task(labels: str = "", target: str = "", field: str = "y", **source: str) -> Task:
    more = "\n".join(f'{key} = "{value}"' for key, value in source.items())
    return task_of(
        f"""
name = "t"
[input]
topic = "t.events"
{more}
[features]
x = {{ kind = "number" }}
[target]
field = "{field}"
kind = "regress"
{target}
[labels]
topic = "t.labels"
{labels}
""",
        "t",
    )


def stream() -> Iterator[Event]:
    """Yield events some of which have no label, or are none; their times go up and down."""
    rng = random.Random(4)
    time_ms = START_MS
    for number in range(ROWS):
        time_ms += rng.choice((0, 1_000, 60_000, 60_000, 600_000, -30_000))
        known: dict[str, Any] = {} if number % 11 == 3 else {"y": number % 17}
        row = {"id": number, "t": time_ms, "x": 1} | known
        value = b"none" if number % 50 == 9 else msgspec.json.encode(row)
        yield Event(str(number), b"k", None if value == b"none" else time_ms, value)


def id_of(event: Event) -> Any:
    return msgspec.json.decode(event.value)["id"]


def come_naively(delay: str) -> list[tuple[int, int]]:
    """Return each label with how many events come before it, by looking at all that wait."""
    parsed = parse(delay)
    waiting: list[tuple[float, int]] = []
    found: list[tuple[int, int]] = []
    now = 0.0

    def release(before: int) -> None:
        due = sorted(each for each in waiting if each[0] <= now)
        found.extend((before, number) for _, number in due)
        waiting[:] = [each for each in waiting if each[0] > now]

    for number, event in enumerate(stream()):
        if event.time_ms is not None or not parsed.timed:
            now = float(event.time_ms or 0) if parsed.timed else number
        release(number)
        if b'"y"' in event.value:
            waiting.append((now + float(parsed.of([number])[0]), number))
            release(number + 1)
    now = math.inf
    release(ROWS)
    return found


@pytest.mark.parametrize("delay", DELAYS)
def test_labels_come_when_evaluate_has_them_come(delay: str) -> None:
    late = LateLabels(task(time="t"), parse(delay))
    events, labels = list[Event](), list[tuple[int, Event]]()
    for event in stream():
        before, bare, behind = late.split(event)
        labels += [(len(events), each) for each in before]
        events.append(bare)
        labels += [(len(events), each) for each in behind]
    labels += [(len(events), each) for each in late.rest()]
    expected = come_naively(delay)
    assert [(before, id_of(each)) for before, each in labels] == expected
    assert late.rest() == []
    # Kafka's timestamps say the same, whatever the topics' order of arrival.
    stamps = [each.stamp_ms or 0 for each in events]
    assert all(one < other for one, other in itertools.pairwise(stamps))
    for place, label in labels:
        assert label.stamp_ms == stamps[place - 1]
    # And so does what evaluate goes by, batch by batch.
    delayed, found = DelayedLabels[int](parse(delay)), list[tuple[int, int]]()
    good = [(n, e.time_ms or 0, b'"y"' in e.value) for n, e in enumerate(stream()) if e.time_ms]
    for start in range(0, len(good), 64):
        part = good[start : start + 64]
        numbers, times, known = zip(*part, strict=True)
        has = [
            number if is_known else None for number, is_known in zip(numbers, known, strict=True)
        ]
        found += [(start + at, number) for at, number in delayed.pass_by(has, numbers, times)]
    found += [(len(good), number) for _, number in delayed.rest()]
    skipped = [number for number, event in enumerate(stream()) if event.time_ms is None]
    assert [(at, number) for at, number in found] == [
        (at - sum(number < at for number in skipped), number) for at, number in expected
    ]


def test_a_service_puts_them_where_evaluate_does() -> None:
    """From the bytes and timestamps alone; both topics in one micro-batch."""
    of = task(time="t")
    late, events, labels = LateLabels(of, parse("exp(20)")), list[Event](), list[Event]()
    for event in stream():
        before, bare, behind = late.split(event)
        labels += [*before, *behind]
        events.append(bare)
    labels += late.rest()
    rows, letters = Normalizer(of).normalize(records(events))
    read = LabelReader(of).read(records(labels))
    assert len(letters) == sum(event.value == b"none" for event in stream())
    assert not read.letters
    assert not any(labels_of(rows))
    told = {at: number for at, number in enumerate(rows.id)}
    between = placed(rows, read.labels, read.arrived_ms)
    good = [number for number, event in enumerate(stream()) if event.time_ms is not None]
    assert [*told.values()] == good
    expected = [(sum(n < at for n in good), number) for at, number in come_naively("exp(20)")]
    assert [(at, label.id) for at, label in between] == expected
    assert all(label.label == float(str(label.id)) % 17 for _, label in between)


def records(events: list[Event]) -> Records:
    count = len(events)
    stamps = [event.stamp_ms or 0 for event in events]
    values: list[bytes | None] = [event.value for event in events]
    keys = [event.key for event in events]
    return Records("t", values, keys, [0] * count, [*range(count)], stamps)


def split(of: Task, value: bytes, time_ms: int | None = START_MS) -> tuple[bytes, bytes | None]:
    """Return an event without its label, and the label's record."""
    late = LateLabels(of, parse("0"))
    before, event, behind = late.split(Event("e", b"key", time_ms, value))
    assert not before
    assert event.key == b"key"
    assert all((each.key, each.id) == (b"key", "e") for each in behind)
    return event.value, behind[0].value if behind else None


NUMBERS = ["1.0", "1e400", "12345678901234567890", "-0.0", "1E-7", '"\\u00e9"', '"é"', "true"]


@pytest.mark.parametrize("text", [*NUMBERS, "[1.0, 2]", '{"a": 1e400}', '"a\\"b"'])
def test_what_stands_in_an_event_is_not_changed(text: str) -> None:
    raw = text.encode()
    value = b'{"id": %s, "x": %s, "\xc3\xa9": [%s], "y": %s}' % (raw, raw, raw, raw)
    bare, label = split(task(), value)
    assert bare == b'{"id":%s,"x":%s,"\xc3\xa9":[%s]}' % (raw, raw, raw)
    assert label == b'{"y":%s,"id":%s}'.replace(b"y", b"label") % (raw, raw)


def test_fields_may_stand_anywhere() -> None:
    of = task('id = "/ref/id"\nlabel = "/ref/out~1come"', field="/a/b~0c", id="/meta/id")
    value = b'{"meta":{"id":1.50,"a":2},"a":{"b~c":1e400,"d":{}},"b~c":3}'
    bare, label = split(of, value)
    assert bare == b'{"meta":{"id":1.50,"a":2},"a":{"d":{}},"b~c":3}'
    assert label == b'{"ref":{"out/come":1e400,"id":1.50}}'


def test_a_label_may_say_when_it_was_known() -> None:
    of = task('time = "known"', time="t")
    late = LateLabels(of, parse("10m"))
    assert late.split(Event("1", None, START_MS, b'{"id":1,"y":5}'))[0] == []
    (label,), _, _ = late.split(Event("2", None, START_MS + 700_001, b'{"id":2,"y":6}'))
    read = LabelReader(of).read(records([label]))
    assert [(each.id, each.time_ms) for each in read.labels] == [(1, START_MS + 700_001)]
    # Those that are left at the end are known then, in the stream's time.
    read = LabelReader(of).read(records(late.rest()))
    assert [(each.id, each.time_ms) for each in read.labels] == [(2, START_MS + 700_001)]


@pytest.mark.parametrize(
    ("labels", "source", "data"),
    [
        ("", {}, b'{"y":1e300,"x":2}'),
        ('time = "time"', {"time": "time"}, b'{"y":1e300,"x":2}'),
        ('label = "/of/label"\ntime = "/data/known"', {}, b'{"y":1e300,"x":2}'),
        ('id = "eventid"', {}, b'{"y":1e300,"x":2}'),
        ('id = "/data/nr"', {"id": "/data/nr"}, b'{"nr":"a/b","y":1e300,"x":2}'),
    ],
)
def test_cloudevents_are_read_again(labels: str, source: dict[str, str], data: bytes) -> None:
    of = task(labels, format="cloudevents", **source)
    (event,) = as_cloudevents([Event("a/b", None, START_MS, data)], "test")
    _, bare, (label,) = LateLabels(of, parse("0")).split(event)
    assert bare.value == event.value.replace(b'"y":1e300,', b"")
    read = LabelReader(of).read(records([label._replace(stamp_ms=START_MS)]))
    assert [(each.id, each.label, each.time_ms) for each in read.labels] == [
        ("a/b", 1e300, START_MS)
    ]
    told = msgspec.json.decode(label.value)
    required = {name: told[name] for name in ("specversion", "id", "type", "source")}
    assert required == {
        "specversion": "1.0",
        "id": "a/b",
        "type": "headrace.label",
        "source": "/headrace/label",
    }


UNCHANGED = {
    "no object": b"[1]",
    "not JSON": b"none",
    "zero bytes": b"",
    "not UTF-8": b'{"id":1,"x":"\xff","y":1}',
    "an id that is not UTF-8": b'{"id":"\xff","y":1}',
    "a key that is not UTF-8": b'{"id":1,"y":1,"\xff":1}',
    "deep": b'{"id":1,"y":1,"z":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "no id": b'{"x":1,"y":1}',
    "null id": b'{"id":null,"y":1}',
    "no label": b'{"id": 1 , "x":1.0}',
    "null label": b'{"id": 1 , "y": null}',
    "NaN": b'{"id":1,"x":NaN,"y":1}',
    "the label twice": b'{"id":1,"y":1,"y":2}',
    "another key twice": b'{"id":1,"x":1,"x":2,"y":2}',
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_is_no_event_with_a_label_is_passed_on_as_it_is(name: str) -> None:
    assert split(task(), UNCHANGED[name]) == (UNCHANGED[name], None)


def test_so_is_all_that_is_refused_as_no_json() -> None:
    codes = ("json", "encoding", "depth", "duplicate_key")
    of = task(field="label")
    broken = [value for value, code in POISON.values() if value and code in codes]
    assert len(broken) > 10
    for value in broken:
        bare, label = split(of, value)
        event = Event("", None, None, bare, START_MS)
        rows, letters = Normalizer(of).normalize(records([event]))
        assert not rows.id
        assert len(letters) == 1
        if label is None:
            assert bare == value


@pytest.mark.parametrize("path", ["/a/y", "/a/b/y"])
@pytest.mark.parametrize("within", [b"1", b"null", b"[]", b'"a"', b"{}", b'{"b":null}'])
def test_a_path_that_leads_nowhere_has_no_label(path: str, within: bytes) -> None:
    value = b'{"id":1,"a":%s,"y":5}' % within
    assert split(task(field=path), value) == (value, None)


def test_nan_is_null_where_it_is_read_as_missing() -> None:
    bare, label = split(task(non_finite="missing"), b'{"id":1,"x":NaN,"z":"NaN","y":-1.0}')
    assert (bare, label) == (b'{"id":1,"x":null,"z":"NaN"}', b'{"label":-1.0,"id":1}')


def test_a_time_that_is_refused_moves_no_other_label() -> None:
    late = LateLabels(task(time="t"), parse("10m"))
    late.split(Event("1", None, START_MS, b'{"id":1,"y":1}'))
    for time_ms in (10**300, -(10**300), 10**15):
        far = Event("2", None, time_ms, b'{"id":2,"y":2}')
        before, bare, behind = late.split(far)
        assert (before, bare.value, behind) == ([], far.value, [])
    assert [id_of(each) for each in late.rest()] == [1]


def test_a_delay_in_time_needs_times() -> None:
    late = LateLabels(task(), parse("10m"))
    late.split(Event("e-1", None, None, b"none"))  # is refused anyway
    with pytest.raises(
        UsageError, match=r"event e-2 has no time, .* of 600 s needs: name the time"
    ):
        late.split(Event("e-2", None, None, b'{"id":1,"y":2}'))


def test_a_task_has_to_name_a_topic_of_labels() -> None:
    alone = task().model_copy(update={"labels": None})
    with pytest.raises(UsageError, match=r"task t has no \[labels\]: expected the topic"):
        LateLabels(alone, parse("5"))


def test_timestamps_run_ahead_of_the_clock_no_further_than_kafka_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late_labels, "LEAD_MS", 50)
    monkeypatch.setattr(time, "time", lambda: START_MS / 1000)
    late = LateLabels(task(), parse("1"))
    stamps = [
        late.split(Event("", None, None, b'{"id":%d,"y":1}' % at))[1].stamp_ms for at in range(100)
    ]
    assert stamps == [START_MS + min(at, 50) for at in range(100)]


def test_rows_of_a_file_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id":1,"x":1.0,"y":0.10}\n{"id":2,"x":12345678901234567890,"y":2}\nnone\n')
    late = LateLabels(task(), parse("1"))
    went = [late.split(event) for event in file(str(path))]
    assert [bare.value for _, bare, _ in went] == [
        b'{"id":1,"x":1.0}',
        b'{"id":2,"x":12345678901234567890}',
        b"none",
    ]
    assert [[each.value for each in before] for before, _, _ in went] == [
        [],
        [b'{"label":0.10,"id":1}'],
        [b'{"label":2,"id":2}'],
    ]
    assert all(bare.stamp_ms for _, bare, _ in went)
