"""The streams: what is predicted from what, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.learning import shared

Row = dict[str, Any]
Group = Literal["classes", "text", "numbers"]
LONGEST = 100_000


@dataclass(frozen=True)
class Drawn:
    """Say what the peers' environment has to write: a bundled data set, or a generator's rows."""

    kind: Literal["bundled", "drift", "digits"]
    name: str
    seed: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Stream:
    """Describe a stream. Columns are numbers unless they are named; "target" holds the label."""

    name: str
    source: Drawn | Callable[[Path], Iterator[Row]]
    file: str = ""  # in the folder of shared data
    group: Group = "classes"
    metric: Literal["accuracy", "f1", "mae"] = "accuracy"
    classes: tuple[str, ...] = ()  # as they come, if none are named; for F1 the last one counts
    categories: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    horizon: int = 0
    rows: int | None = None  # the first so many only
    held_out: bool = False
    series: bool = False  # the next value of one series: for forecasters
    image: tuple[int, int] | None = None  # height and width of what the columns are pixels of
    note: str = ""


_HOUR_WEEK = ("hour", "weekday")
_NAB = (
    "realKnownCause/nyc_taxi",
    "realKnownCause/machine_temperature_system_failure",
    "realAWSCloudwatch/ec2_cpu_utilization_5f5533",
    "realTraffic/speed_7578",
    "realTweets/Twitter_volume_AAPL",
    "realAdExchange/exchange-2_cpc_results",
)

_SHARED = (
    Stream(
        "electricity",
        partial(shared.table, target="class"),
        "electricity.csv.gz",
        note="all 8 features",
    ),
    Stream(
        "electricity-6",
        partial(shared.table, target="class", drop=("date", "day")),
        "electricity.csv.gz",
        note="without date and day, as in CapyMOA",
    ),
    Stream(
        "covtype",
        partial(shared.table, target="Cover_Type"),
        "covtype.csv.gz",
        rows=LONGEST,
        note="the first 100,000 rows",
    ),
    Stream("weather", partial(shared.table, target="target"), "weather_noaa.csv.gz"),
    Stream(
        "airlines",
        partial(shared.table, target="Delay", drop=("EventMinute",)),
        "airlines_reconstructed.csv.gz",
        categories=("Airline", "AirportFrom", "AirportTo", "DayOfWeek"),
        note="order reconstructed from day and time",
    ),
    Stream(
        "occupancy",
        partial(shared.table, target="occupancy", drop=("date",)),
        "occupancy.csv.gz",
    ),
    Stream("smtp", shared.smtp, "smtp.npz", metric="f1", classes=("0", "1")),
    Stream(
        "flights",
        shared.flights,
        "flights_2001q1.parquet",
        classes=("in time", "late"),
        categories=("origin", "destination"),
        calendar=_HOUR_WEEK,
        rows=LONGEST,
        note="delay > 15 min, the first 100,000 rows",
    ),
    Stream(
        "tweets",
        shared.tweets,
        "tweets_airline.csv.gz",
        group="text",
        categories=("airline",),
        texts=("text",),
    ),
    Stream("sms", shared.sms, "sms_spam.tsv.gz", group="text", texts=("text",)),
    Stream(
        "youtube",
        shared.youtube,
        "youtube_comments.csv.gz",
        group="text",
        categories=("author",),
        texts=("content",),
    ),
    Stream(
        "hacker-news",
        shared.hacker_news,
        "hacker_news.csv.gz",
        group="text",
        classes=("false", "true"),
        categories=("domain", "author"),
        texts=("title",),
        calendar=_HOUR_WEEK,
        note="10 points or more",
    ),
    Stream(
        "pm25",
        shared.pm25,
        "beijing_pm25.csv.gz",
        group="numbers",
        metric="mae",
        categories=("wind_direction",),
        calendar=(*_HOUR_WEEK, "year"),
        horizon=1,
        series=True,
        note="the next hour",
    ),
    *(
        Stream(
            f"nab-{name.rpartition('/')[2].lower().replace('_', '-')}",
            partial(shared.nab, name=name),
            "nab.tar.gz",
            group="numbers",
            metric="mae",
            calendar=_HOUR_WEEK,
            horizon=1,
            series=True,
            note="the next value",
        )
        for name in _NAB
    ),
)


def _bundled() -> Iterator[Stream]:
    """List River's data sets by alphabet; every third from the first is held out."""
    numbers: dict[str, Any] = {"group": "numbers", "metric": "mae"}
    next_value: dict[str, Any] = {**numbers, "horizon": 1, "series": True, "note": "the next value"}
    options: dict[str, dict[str, Any]] = {
        "AirlinePassengers": {**next_value, "calendar": ("year",)},
        "Bananas": {},
        "ChickWeights": {**numbers, "categories": ("chick", "diet")},
        "ImageSegments": {},
        "Phishing": {},
        "Shuttle": {"metric": "f1", "classes": ("0", "1")},
        "TrumpApproval": numbers,
        "WaterFlow": {**next_value, "calendar": _HOUR_WEEK},
    }
    for at, (name, chosen) in enumerate(options.items()):
        yield Stream(
            f"river-{name.lower()}", Drawn("bundled", name), held_out=at % 3 == 0, **chosen
        )
    yield Stream("river-insects", Drawn("bundled", "Insects"))


def _drawn() -> Iterator[Stream]:
    """List drifting streams of three seeds each; the third is held out."""
    quarters = "changes at rows 5,000, 10,000 and 15,000"
    gradual = "changes all the time"
    agrawal: dict[str, Any] = {"categories": ("elevel", "car", "zipcode"), "note": quarters}
    numbers: dict[str, Any] = {"group": "numbers", "metric": "mae", "note": quarters}
    options: dict[str, dict[str, Any]] = {
        "sea": {"note": quarters},
        "rbf": {"note": gradual},
        "led": {"note": quarters},
        "agrawal": agrawal,
        "hyperplane": {"note": gradual},
        "friedman": numbers,
    }
    for name, chosen in options.items():
        for seed in (1, 2, 3):
            yield Stream(
                f"{name}-{seed}",
                Drawn("drift", name, seed, 20_000),
                held_out=seed == 3,
                **chosen | {"note": f"{chosen['note']}, seed {seed}"},
            )
    for seed in (1, 2, 3):
        note = f"10 shuffled passes, the labels renamed at row 8,985, seed {seed}"
        drawn = Drawn("digits", "digits", seed)
        yield Stream(f"digits-{seed}", drawn, held_out=seed == 3, image=(8, 8), note=note)


STREAMS = {stream.name: stream for stream in (*_SHARED, *_bundled(), *_drawn())}
