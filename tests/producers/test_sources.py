from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace import producers
from headrace.producers import sources
from headrace.producers.sources import Event, file, parse_time_ms, sensor, social, text
from headrace.stream.errors import UsageError

DATA = Path(producers.__file__).parent / "data"
ROWS = {"sensor": 43_824, "social": 20_100, "text": 5_574}


def bundled(name: str) -> list[dict[str, str]]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def body(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.value)
    return found


@pytest.mark.parametrize("source", [sensor, social, text])
def test_a_bundled_stream_says_what_its_file_says(source: Callable[[], Iterator[Event]]) -> None:
    name = source.__name__
    rows, events = bundled(name), list(source())
    assert len(rows) == len(events) == len({event.id for event in events}) == ROWS[name]
    for row, event in zip(rows, events, strict=True):
        found = body(event)
        assert found.pop("id") == event.id == row.pop("id", event.id)
        assert found.keys() == row.keys()
        for column, cell in row.items():
            value = found[column]
            if isinstance(value, int | float):
                assert value == float(cell)
            else:
                assert value == (cell or None)


def test_bundled_streams_are_small_and_credited() -> None:
    files = sorted(DATA.glob("*.gz"))
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    credits = (DATA / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in credits for path in files)


def test_sensor_events_have_the_documented_shape() -> None:
    first, *_, last = sensor()
    assert first.id == "pm25-1"
    assert first.key == b"beijing-us-embassy"
    assert body(first) == {
        "id": "pm25-1",
        "station": "beijing-us-embassy",
        "time": "2010-01-01T00:00:00+08:00",
        "pm25": None,
        "dew_point": -21,
        "temperature": -11,
        "pressure": 1021,
        "wind_direction": "NW",
        "wind_speed": 1.79,
        "snow_hours": 0,
        "rain_hours": 0,
    }
    assert first.time_ms == datetime.fromisoformat("2009-12-31T16:00:00Z").timestamp() * 1000
    assert last.time_ms == datetime.fromisoformat("2014-12-31T15:00:00Z").timestamp() * 1000


def test_social_and_text_events_have_the_documented_shape() -> None:
    post, message = next(social()), next(text())
    assert (post.id, post.key) == ("hn-10176908", b"mycodebreaks")
    assert body(post)["time"] == "2015-09-06T05:56:00Z"
    assert body(post)["domain"] == "dangerousminds.net"
    assert (message.id, message.key, message.time_ms) == ("sms-1", None, None)
    assert set(body(message)) == {"id", "text", "label"}


@pytest.mark.parametrize("source", [sensor, social])
def test_event_times_never_go_back(source: Callable[[], Iterator[Event]]) -> None:
    times = [event.time_ms for event in source()]
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(times))


def test_a_second_pass_goes_on_where_the_first_ended() -> None:
    n = ROWS["sensor"]
    first, second = list(islice(sensor(), n)), list(islice(sensor(loop=True), n, 2 * n))
    step_ms = n * 3_600_000
    for before, after in zip(first, second, strict=True):
        assert after.id == f"{before.id}-2"
        assert before.time_ms is not None
        assert after.time_ms == before.time_ms + step_ms
    earlier, later = body(first[7]), body(second[7])
    moved = datetime.fromisoformat(earlier["time"]) + timedelta(hours=n)
    assert later == {**earlier, "id": "pm25-8-2", "time": moved.isoformat()}
    assert later["time"] == "2015-01-01T07:00:00+08:00"


def test_ids_stay_unique_over_passes_of_a_stream_without_time() -> None:
    events = list(islice(text(loop=True), 3 * ROWS["text"]))
    assert len({event.id for event in events}) == len(events)
    assert events[-1].id == "sms-5574-3"
    assert all(body(event)["id"] == event.id for event in events)


def test_cloudevents_carry_id_time_and_the_same_data() -> None:
    for source in (sensor, social, text):
        for plain, wrapped in islice(zip(source(), source(cloudevents=True), strict=True), 20):
            envelope = body(wrapped)
            assert envelope.pop("data") == body(plain)
            time = envelope.pop("time", None)
            assert (None if time is None else parse_time_ms(time)) == plain.time_ms
            assert envelope == {
                "specversion": "1.0",
                "id": plain.id,
                "type": f"headrace.{source.__name__}",
                "source": f"/headrace/{source.__name__}",
                "datacontenttype": "application/json",
            }


def test_file_adds_ids_and_reads_key_and_time(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("when,house,kw\n2024-01-01 00:00:00,7,1.5\n,,\n")
    first, second = file(path, key="house", time="when")
    assert first == Event(
        "meter-1",
        b"7",
        1_704_067_200_000,
        b'{"id":"meter-1","when":"2024-01-01 00:00:00","house":7,"kw":1.5}',
    )
    assert second == Event(
        "meter-2", None, None, b'{"id":"meter-2","when":null,"house":null,"kw":null}'
    )


def test_file_takes_ids_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    lines = ['{"id": "a", "n": 1}', '{"id":7,"order":"x"}']
    path.write_text("\n".join(lines))
    assert [(e.id, e.value.decode()) for e in file(path)] == list(
        zip(("a", "7"), lines, strict=True)
    )
    assert [event.id for event in file(path, id="order")] == ["orders-1", "x"]


def test_file_passes_on_a_row_that_is_no_json_object(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = [f'{{"n":{i}}}' for i in range(200)]
    path.write_text("\n".join(['{"n":', "[1]", *good, "{}"]))
    broken, array, *_, empty = file(path, key="n")
    assert broken == Event("log-1", None, None, b'{"n":')
    assert array == Event("log-2", None, None, b"[1]")
    assert empty.value == b'{"id":"log-203"}'


def test_file_loops_with_numeric_times(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t,x\n1700000000,1\n1700000010,2\n1700000020,3\n")
    events = list(islice(file(path, time="t", loop=True), 7))
    assert [event.time_ms for event in events] == [1_700_000_000_000 + 10_000 * i for i in range(7)]
    assert body(events[6]) == {"id": "t-1-3", "t": 1_700_000_060, "x": 1}


@pytest.mark.parametrize("option", ["key", "time", "id"])
def test_file_names_a_column_that_is_missing(tmp_path: Path, option: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n")
    columns: dict[str, Any] = {option: "z"}
    with pytest.raises(UsageError, match=rf"no column 'z' for {option}; the file has x, y"):
        file(path, **columns)


@pytest.mark.parametrize(
    ("value", "time_ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:00.5+01:00", 500),
        ("1970-01-02", 86_400_000),
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_123, 1_700_000_000_123),
        (1.5, 1_500),
        ("yesterday", None),
        (None, None),
        (True, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_parse_time_reads_texts_and_epochs(value: object, time_ms: int | None) -> None:
    assert parse_time_ms(value) == time_ms


def test_as_cloudevents_escapes_ids() -> None:
    [event] = sources.as_cloudevents([Event('a"b', None, None, b"{}")], "x")
    assert body(event)["id"] == 'a"b'
