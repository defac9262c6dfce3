from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from headrace.stream.errors import TaskError
from headrace.stream.events import Records
from headrace.stream.formats.times import time_ms
from headrace.stream.kafka.tail import decode
from headrace.stream.rows.calendar import calendar
from headrace.stream.rows.classes import ClassIndex
from headrace.stream.rows.hashing import Hasher, clean
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.rows import rows_of
from headrace.stream.task import parse
from tests.support.events import IMAGE_TASK, TASK, good, picture

task = parse(TASK, "test")


def records(values: Sequence[bytes | None]) -> Records:
    n = len(values)
    keys: list[bytes | None] = [b"k%d" % i for i in range(n)]
    return Records("events.poisoned", [*values], keys, [0] * n, list(range(n)), [])


def test_missing_and_impossible_readings_become_nan() -> None:
    raws = [good(0, x=None), good(1, x=250), good(2, x=-250), good(3, x=99)]
    rows, dead = Normalizer(task).normalize(records(list(raws)))
    assert not dead
    assert np.isnan(rows.numeric[:3, 0]).all()
    assert rows.numeric[3, 0] == 99


def test_sentinels_and_units() -> None:
    text = TASK.replace(
        'y = { kind = "number" }',
        'y = { kind = "number", unit = "degF", to = "degC", missing = [-999] }',
    )
    rows, _ = Normalizer(parse(text, "t")).normalize(
        records([good(0, y=212), good(1, y=-999), good(2, y=-40)])
    )
    assert rows.numeric[0, 1] == pytest.approx(100)
    assert math.isnan(rows.numeric[1, 1])
    assert rows.numeric[2, 1] == pytest.approx(-40)


def test_a_unit_that_does_not_fit_is_explained() -> None:
    text = TASK.replace('y = { kind = "number"', 'y = { unit = "km", to = "degC", kind = "number"')
    with pytest.raises(TaskError, match=r"features\.y\.unit = 'km' to 'degC'"):
        Normalizer(parse(text, "t"))


@pytest.mark.parametrize("unit", ["(", "1/0", "[/red]", "'", "m**m", "9" * 5000, "m**'x'", "\x1b"])
def test_a_unit_that_cannot_be_read_is_explained(unit: str) -> None:
    part = json.dumps(unit)
    text = TASK.replace('y = { kind = "number"', f'y = {{ unit = {part}, to = "m", kind = "number"')
    with pytest.raises(TaskError, match=r"features\.y\.unit = "):
        Normalizer(parse(text, "t"))


def test_a_network_that_reads_words_gets_them_in_their_order() -> None:
    two = TASK.replace('color = { kind = "category" }', 'color = { kind = "text", max_tokens = 4 }')
    text = "Not good, is not bad"
    raws = [good(0, text=text), good(1, text="word " * 99), good(2, text=None)]
    rows, _ = Normalizer(parse(f'{two}[model]\nnetwork = "textcnn"\n', "t")).normalize(
        records(raws)
    )
    plain, _ = Normalizer(parse(two, "t")).normalize(records(raws))
    assert rows.ids.shape == (3, 2 * (4 + 16))
    assert rows.ids[:, :20].tolist() == plain.ids.tolist()
    color, spoken = np.split(rows.ids[:, 20:], [4], axis=1)
    red, (is_not, good_, comma, is_, bad) = plain.ids[0, 0], plain.ids[0, 4:9].tolist()
    assert color[0].tolist() == [red, 0, 0, 0]
    assert spoken[0, :6].tolist() == [is_not, good_, comma, is_, is_not, bad]  # "not" comes twice
    assert not spoken[0, 6:].any()
    assert (spoken[1] == spoken[1, 0]).all()
    assert not rows.ids[2, 4:20].any()
    assert not spoken[2].any()


def test_labels_are_class_indices_and_null_is_unknown() -> None:
    raws = [good(0, label="no"), good(1, label="yes"), good(2, label=None)]
    rows, dead = Normalizer(task).normalize(records(list(raws)))
    assert rows.label[:2].tolist() == [0.0, 1.0]
    assert math.isnan(rows.label[2])
    assert not dead


def test_classes_are_known_however_they_are_written() -> None:
    index = ClassIndex(["false", "true", "2"])
    assert index.find_all([False, "true", 2, 2.0, "2"]) == [0, 1, 2, 2, 2]
    assert ClassIndex(["0", "1"]).find_all([1, 0.0, -0.0, True, "1.0"]) == [1, 0, 0, -1, -1]
    assert ClassIndex(["1", "true"]).find_all([1, True, 1.0, "true"]) == [0, 1, 0, 1]
    assert ClassIndex(["1.0", "2.50"]).find_all([1, 2.5, "1.0", "1"]) == [0, 1, 0, -1]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("2024-05-01T12:00:00Z", datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp() * 1000),
        ("2024-05-01T14:00:00+02:00", datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp() * 1000),
        ("2024-05-01 12:00:00", datetime(2024, 5, 1, 12, tzinfo=UTC).timestamp() * 1000),
        (1714564800, 1714564800000),
        (1714564800.25, 1714564800250),
        (1714564800250, 1714564800250),
    ],
)
def test_times_are_utc_milliseconds(value: object, wanted: float) -> None:
    assert time_ms(value) == wanted
    for others in ([], [1714564800.0]):  # columns of numbers alone take a short cut
        raws = [good(n, time=time) for n, time in enumerate([value, *others])]
        rows, _ = Normalizer(task).normalize(records([*raws]))
        assert rows.time_ms[0] == wanted


def test_times_of_one_usual_form_are_read_as_each_alone() -> None:
    """All of 20 characters ending in Z: together they take a short cut, where they are plain."""
    usual = "2024-05-01T12:30:00Z"
    odd = ["2024-05-01T24:00:00Z", "2023-12-31T23:59:60Z", "2024-02-29T00:00:00Z"]
    odd += ["2023-02-29T00:00:00Z", "2024-05-0-T12:30:00Z", "03/04/2024T12:30:00Z"]
    for dayfirst in (None, True):
        reads = task.model_copy(
            update={"input": task.input.model_copy(update={"dayfirst": dayfirst})}
        )
        for time in (usual, *odd):
            events = [good(0, time=usual), good(1, time=time)]
            rows, refused = Normalizer(reads).normalize(records(events))
            alone = time_ms(time, dayfirst)
            assert len(refused) == (alone != alone)
            assert rows.time_ms.tolist() == [1714566600000, alone][: 2 - len(refused)]


def test_calendar_is_cyclic_and_right() -> None:
    times = [datetime(2024, 5, 6, hour, tzinfo=UTC) for hour in (0, 6, 12, 18)]  # a Monday
    cycles = calendar(("hour", "weekday"), np.array([t.timestamp() * 1000 for t in times], int))
    assert np.allclose(cycles[:, 0], [0, 1, 0, -1], atol=1e-6)
    assert np.allclose(cycles[:, 1], [1, 0, -1, 0], atol=1e-6)
    assert np.allclose(cycles[:, 2:], [[0, 1]] * 4, atol=1e-6)
    before_1970 = np.array([datetime(1949, 1, 1, 6, tzinfo=UTC).timestamp() * 1000], int)
    assert np.allclose(calendar(("hour",), before_1970), [[1, 0]], atol=1e-6)


def test_text_is_composed_folded_and_stripped_of_what_hides() -> None:
    assert clean("Cafe\u0301 GRO\u00df") == "caf\u00e9 gross"
    assert clean("pay\u202epal\u200b\x07") == "paypal"
    assert clean("a\tb\nc") == "a\tb\nc"


def test_tokens_are_keyed_and_words_come_first() -> None:
    one, other = Hasher(b"one"), Hasher(b"other")
    tokens = one.tokens("Free free entry", (3, 4), 100)
    assert tokens[:2] == one.tokens("FREE entry", (9, 10), 2)
    assert len(tokens) == len(set(tokens)) > 10
    assert 0 not in tokens
    assert set(tokens).isdisjoint(other.tokens("Free free entry", (3, 4), 100))


def test_categories_ignore_case_and_keep_columns_apart() -> None:
    hasher = Hasher(b"key")
    assert hasher.category("color", "Red ") == hasher.category("color", "red")
    assert hasher.category("color", "red") != hasher.category("shape", "red")


def test_rows_do_not_depend_on_how_events_are_batched() -> None:
    task = parse(IMAGE_TASK, "test")
    raws: list[bytes | None] = [picture(n) for n in range(40)]
    whole, _ = Normalizer(task).normalize(records(raws))
    for name in ("numeric", "ids", "entity", "label", "time_ms", "image"):
        parts = [
            getattr(Normalizer(task).normalize(records(raws[a:b]))[0], name)
            for a, b in ((0, 1), (1, 17), (17, 40))
        ]
        assert np.concatenate(parts).tobytes() == getattr(whole, name).tobytes()


@pytest.mark.parametrize(
    ("chance", "weight"), [(1, 1.0), (0.5, 2.0), (0.05, 20.0), (1e-9, 20.0), (None, 1.0)]
)
def test_an_event_teaches_by_the_inverse_of_its_propensity(
    chance: float | None, weight: float
) -> None:
    told = '[input]\nweight = "w"\npropensity = "p"'
    normalizer = Normalizer(parse(TASK.replace("[input]", told), "t.toml"))
    for own in (1.0, 3.0):
        rows, refused = normalizer.normalize(records([good(0, p=chance, w=own)]))
        assert not refused
        assert rows.weight.tolist() == [[own * weight]]


@pytest.mark.parametrize("chance", [0, -0.5, 1.01, 1e308])
def test_a_propensity_out_of_range_is_refused(chance: float) -> None:
    normalizer = Normalizer(parse(TASK.replace("[input]", '[input]\npropensity = "p"'), "t.toml"))
    rows, (letter,) = normalizer.normalize(records([good(0, p=chance), good(1)]))
    assert letter.code == "number"
    assert letter.detail == f"propensity {float(chance)!r}: expected a number above 0, 1 at most"
    assert rows.weight.tolist() == [[1.0]]


WEIGHED = TASK.replace("[input]", '[input]\nweight = "w"')


@pytest.mark.parametrize(("text", "good"), [(TASK, good), (IMAGE_TASK, picture), (WEIGHED, good)])
def test_features_records_give_back_the_same_rows(text: str, good: Callable[..., bytes]) -> None:
    task = parse(text, "test")
    normalizer = Normalizer(task)
    raws = records([good(0), b"broken", good(2, w=0.25), good(3, x=None, w=None)])
    rows, dead = normalizer.normalize(raws)
    features, dead_again = normalizer.features(raws)
    assert [f.offset for f in features] == [0, 1, 2, 3]
    assert [f.reject for f in features] == [None, "json", None, None]
    assert dead == dead_again
    rebuilt = rows_of(task, features, raws.keys)
    for name, column in rows._asdict().items():
        again = getattr(rebuilt, name)
        same = column == again if isinstance(column, list) else column.tobytes() == again.tobytes()
        assert same, name
    assert rebuilt.weight.tolist() == ([[1.0], [0.25], [1.0]] if text == WEIGHED else [[]] * 3)
    shown = decode("t.features", msgspec.msgpack.encode(features[2]))
    assert base64.b64decode(json.loads(json.dumps(shown))["image"]) == rows.image[1].tobytes()


def test_without_event_time_the_record_timestamp_counts() -> None:
    timeless = parse(TASK.replace('time = "time"\n', ""), "t")
    normalizer = Normalizer(timeless)
    assert normalizer.needs_timestamps
    stamped = records([good(0)])._replace(timestamps_ms=[1714564800123])
    assert normalizer.normalize(stamped)[0].time_ms.tolist() == [1714564800123]
    year_10000 = stamped._replace(timestamps_ms=[253402300800000])  # never read as seconds
    assert [letter.code for letter in normalizer.normalize(year_10000)[1]] == ["time"]
