"""Values of events, of whatever make: read as those of a table, or refused by name."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import headrace
from headrace.stream.task import validate
from headrace.stream.training.snapshot import digest
from headrace.tables import encoded, rows_of

BERLIN = ZoneInfo("Europe/Berlin")


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Taste(StrEnum):
    SWEET = "sweet"


class Word(str):
    __slots__ = ()


OF_TABLES = [
    "a",
    Word("a"),
    True,
    3,
    1.5,
    float("nan"),
    None,
    datetime(2026, 1, 1),
    datetime(2026, 1, 1, 12, 30, 0, 123456, UTC),
    datetime(2026, 1, 1, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    date(2026, 1, 1),
    time(1, 2),
    timedelta(days=1, seconds=3),
    pd.Timestamp("2026-01-01 10:00"),
    pd.Timestamp("2026-01-01 10:00:00.123456789"),
    pd.Timestamp("2026-01-01", tz="Europe/Berlin"),
    pd.Timestamp("2026-10-25 00:30", tz="UTC").tz_convert("Europe/Berlin"),
    pd.Timedelta("1D 3us"),
    np.datetime64("2026-01-01T10:00:00.123456789"),
    np.datetime64("2026-01-01T10", "s"),
    np.timedelta64(5000, "ns"),
    np.timedelta64(3, "s"),
    np.float64(1.5),
    np.float64("nan"),
    np.float32(0.1),
    np.float16(0.1),
    np.int8(3),
    np.uint64(2**63 + 1),
    np.bool_(True),
    np.str_("a"),
    np.bytes_(b"a"),
    Decimal("1.50"),
    Decimal("12345678901234567890"),
    uuid.UUID(int=7),
    b"abc",
    bytearray(b"abc"),
    np.array([1, 2]),
    np.array(["a", "b"]),
    ["a", None],
    (1, 2),
    {"inner": 1.5},
]


@pytest.mark.parametrize("value", OF_TABLES, ids=repr)
def test_a_value_is_read_as_a_table_reads_it(value: Any) -> None:
    (row,) = rows_of({"key": [value]}, 10)
    assert encoded({"key": value}) == row


@pytest.mark.parametrize(
    "value",
    [pd.NaT, pd.NA, None, "a", pd.Timestamp("1931-01-01 10:00:00.123456789"), pd.Timedelta("1D")],
    ids=repr,
)
def test_a_value_is_read_as_one_of_a_data_frame(value: Any) -> None:
    (row,) = rows_of(pd.DataFrame({"key": [value]}), 10)
    assert encoded({"key": value}) == row


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (np.datetime64("NaT"), None),
        (np.timedelta64("NaT", "ns"), None),
        (np.datetime64("2026-01-01"), date(2026, 1, 1)),
        (np.array(["2026-01-01T10:00"], "M8[ns]"), [datetime(2026, 1, 1, 10)]),
        (np.array("2026-01-01T10:00", "M8[ns]"), datetime(2026, 1, 1, 10)),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        (np.array([Decimal(1), "a"], object), [1, "a"]),
        (np.array(3), 3),
        (np.ma.masked, None),
        (Decimal("NaN"), None),
        (Decimal("Infinity"), float("inf")),
        (pa.scalar(3), 3),
        (pa.scalar(datetime(2026, 1, 1)), datetime(2026, 1, 1)),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Categorical(["a"]), ["a"]),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (Taste.SWEET, "sweet"),
        ({"a"}, ["a"]),
        (np.uint64(2**63 + 1), 2**63 + 1),
    ],
    ids=repr,
)
def test_a_value_that_no_table_holds_means_what_is_plain(value: Any, same: Any) -> None:
    assert encoded({"key": value}) == encoded({"key": same})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (object(), "object"),
        (pd.Period("2026-01"), "Period"),
        (pd.Interval(0, 1), "Interval"),
        (time(1, 2, tzinfo=UTC), "time"),
        (np.complex128(1), "complex128"),
        (np.longdouble(1.5), "longdouble"),
        (np.timedelta64(3, "ns"), "timedelta64"),
        (pd.Timedelta("3ns"), "Timedelta"),
        (range(3), "range"),
        (np.array([object()]), "ndarray"),
        ([1, [object()]], "list"),
        (datetime(1, 1, 1, tzinfo=BERLIN), "datetime"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_value_without_a_meaning_is_refused_by_key_and_type(value: Any, kind: str) -> None:
    for event, key in (({"a": 1, "key": value}, "key"), ({"in": {"key": value}}, "in/key")):
        with pytest.raises(headrace.EventError, match=rf"{key}: a value of type {kind}, ") as error:
            encoded(event)
        assert error.value.code == "schema"


@pytest.mark.parametrize("table", [{"key": [2**64]}, {"key": [np.complex128(1)]}])
def test_a_column_that_arrow_has_not_is_told(table: Any) -> None:
    with pytest.raises(headrace.HeadraceError):
        [*rows_of(table, 10)]
    with pytest.raises(headrace.HeadraceError):
        [*rows_of(pd.DataFrame(table), 10)]


class Given(Mapping[str, Any]):
    """Hold an event that is no dictionary, and may not be had."""

    def __init__(self, fields: dict[str, Any] | None) -> None:
        self._fields = fields

    def __getitem__(self, key: str) -> Any:
        if self._fields is None:
            raise OSError("gone")
        return self._fields[key]

    def __iter__(self) -> Any:
        return iter(self._fields or {"x": 1})

    def __len__(self) -> int:
        return 1


def test_learners_hear_the_same_of_events_and_tables() -> None:
    """In a time, an entity, a category, a number and a label, to the bit."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2026-01-01", periods=60, freq="h", tz="Europe/Berlin"),
            "day": pd.date_range("2026-01-01", periods=60, freq="h"),
            "x": rng.normal(size=60).astype(np.float32),
            "n": pd.array(rng.integers(0, 3, 60), "Int64"),
            "y": rng.normal(size=60),
        }
    )
    frame.loc[7, ["day", "n"]] = None
    features = {"x": {"kind": "number"}, "day": {"kind": "category"}, "n": {"kind": "number"}}
    table = {
        "name": "t",
        "input": {"topic": "t", "time": "time", "id": "time"},
        "calendar": ["hour"],
        "target": {"field": "y", "kind": "regress"},
        "features": features,
        "model": {"hidden": [4], "neighbours": 20},
    }
    ours, plain = (headrace.Learner(validate(table, "t")) for _ in range(2))
    plain.predict_then_learn(frame)
    for event in frame.iloc[:30].to_dict("records"):
        ours.learn_one(Given(event))
    ours.predict_then_learn(Given(event) for event in frame.iloc[30:].to_dict("records"))
    assert plain.metrics["all"]["mae"] is not None
    assert ours.metrics == plain.metrics
    tensors = (each._trainer.snapshot().tensors() for each in (ours, plain))
    assert len({digest(each) for each in tensors}) == 1
    with pytest.raises(OSError, match="gone"):
        ours.learn_one(Given(None))
