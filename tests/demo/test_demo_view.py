from __future__ import annotations

import io
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from rich.console import Console

from headrace.demo.session import _account
from headrace.demo.state import Demo, Stage
from headrace.demo.tally import Latencies, Tally, TaskStatus
from headrace.demo.view import render, sparkline, summarize, summary
from headrace.stream import task as tasks
from headrace.stream.events import DeadLetter, DriftAlarm, Prediction, Records
from headrace.stream.process.terminal import Terminal, visible
from tests.support.hostile import STRINGS, obeyed

EXAMPLES = Path(__file__).parents[2] / "examples"


def records(values: list[Any], first: int = 0, sent_ms: int = 1_000) -> Records:
    count = len(values)
    return Records(
        topic="topic",
        values=[
            value if isinstance(value, bytes) else msgspec.json.encode(value) for value in values
        ],
        keys=[None] * count,
        partitions=[0] * count,
        offsets=list(range(first, first + count)),
        timestamps_ms=[sent_ms] * count,
    )


def prediction(offset: int, said: str | float = "ham") -> Prediction:
    return Prediction(f"sms-{offset}", said, 0, 0, 0, offset, [0.8, 0.2])


def message(offset: int, label: str = "ham") -> dict[str, Any]:
    return {"id": f"sms-{offset}", "label": label, "text": f"message {offset}"}


@pytest.fixture
def spam() -> Tally:
    return Tally("spam", tasks.load(EXAMPLES / "spam.toml"))


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_percentiles_are_right_to_one_percent(percent: int) -> None:
    source = random.Random(percent)
    sample = [math.exp(source.gauss(4, 1)) for _ in range(5_000)]
    latencies = Latencies()
    for ms in sample:
        latencies.add(ms)
    exact = float(np.percentile(sample, percent, method="inverted_cdf"))
    assert latencies.percentile(percent) == pytest.approx(exact, rel=0.012)


def test_there_is_no_percentile_of_nothing_and_a_huge_latency_is_kept() -> None:
    latencies = Latencies()
    assert latencies.percentile(50) is None
    latencies.add(-3.0)
    latencies.add(1e12)
    assert latencies.percentile(1) == pytest.approx(1, abs=0.1)
    assert cast(float, latencies.percentile(100)) > 3_600_000


def test_a_latency_goes_from_the_event_to_its_own_prediction(spam: Tally) -> None:
    spam.sent(records([message(0)], sent_ms=1_000), 0)
    spam.sent(records([message(1)], first=1, sent_ms=5_000), 0)
    spam.predicted(records([prediction(1)]), 5_020)
    status = spam.status()
    assert status.p50_ms == pytest.approx(20, rel=0.02)
    assert (status.events, status.predictions, status.open) == (2, 1, 1)
    assert not spam.settled
    spam.predicted(records([prediction(0)]), 1_400)
    assert spam.status().p99_ms == pytest.approx(400, rel=0.02)
    assert spam.settled


def test_an_answer_may_be_read_before_its_event(spam: Tally) -> None:
    spam.predicted(records([prediction(0)]), 1_050)
    assert not spam.settled
    spam.sent(records([message(0)], sent_ms=1_000), 0)
    assert spam.settled
    assert spam.status().p50_ms == pytest.approx(50, rel=0.02)


def test_a_dead_letter_answers_an_event_and_has_no_latency(spam: Tally) -> None:
    spam.sent(records([b"{", message(1)]), 0)
    spam.refused(records([DeadLetter("json", "broken", "events.text", 0, 0, None, b"{")]), 9_000)
    spam.predicted(records([prediction(1)]), 1_010)
    status = spam.status()
    assert spam.settled
    assert (status.events, status.predictions, status.dead_letters) == (2, 1, 1)
    assert status.p99_ms == pytest.approx(10, rel=0.02)


def test_a_lost_answer_is_not_made_up_for_by_a_doubled_one(spam: Tally) -> None:
    spam.sent(records([message(0), message(1)]), 0)
    spam.predicted(records([prediction(0), prediction(0)]), 1_010)
    assert spam.status().open == 0
    assert not spam.settled


def test_the_truth_of_a_class_stands_in_the_event_itself(spam: Tally) -> None:
    spam.sent(records([message(0, "spam"), message(1)]), 0)
    spam.predicted(records([prediction(0), prediction(1)]), 1_010)
    first, second = spam.status().latest
    assert (first.id, first.text, first.prediction, first.truth) == (
        "sms-0",
        "message 0",
        "ham",
        "spam",
    )
    assert second.truth == "ham"


def test_the_truth_of_a_forecast_comes_with_the_stations_next_event() -> None:
    tally = Tally("pm25", tasks.load(EXAMPLES / "pm25.toml"))
    events = [
        {"id": f"{station}{hour}", "station": station, "time": f"2010-01-01T0{hour}:00:00Z"}
        | {"pm25": value}
        for station, hour, value in (("a", 0, 1.0), ("b", 0, 2.0), ("a", 1, 3.0), ("a", 2, None))
    ]
    tally.sent(records(events), 0)
    tally.predicted(records([prediction(at, 9.5) for at in range(4)]), 1_010)
    latest = tally.status().latest
    assert [line.truth for line in latest] == [3.0, None, None, None]
    assert latest[0].text == "2010-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("example", "metric", "scores", "best"),
    [
        ("spam", "accuracy", {"no_change": 0.7, "majority": 0.8}, ("majority", 0.8)),
        ("pm25", "mae", {"no_change": 7.0, "mean": 8.0}, ("no_change", 7.0)),
        ("pm25", "mae", {"no_change": None, "mean": 8.0}, ("mean", 8.0)),
    ],
)
def test_the_baseline_shown_is_the_best_one(
    example: str, metric: str, scores: dict[str, float | None], best: tuple[str, float]
) -> None:
    tally = Tally(example, tasks.load(EXAMPLES / f"{example}.toml"))
    report = {
        "events": 10,
        "all": {metric: 0.5},
        "baselines": {name: {"all": {metric: score}} for name, score in scores.items()},
    }
    tally.measured(records([report | {"all": {metric: 0.4}}, report]), 0)
    status = tally.status()
    assert (status.metric, status.value) == (metric, 0.5)
    assert (status.baseline_name, status.baseline) == best
    assert status.history == (0.4, 0.5)


def test_alarms_are_counted_and_the_last_is_kept(spam: Tally) -> None:
    alarms = [
        DriftAlarm(name, 1, 2, 3, 0, 5, 0.1, 0.4, 60, 50, 32) for name in ("adwin", "page_hinkley")
    ]
    spam.alarmed(records(alarms), 0)
    status = spam.status()
    assert status.drifts == 2
    assert status.last_drift == alarms[1]


def test_what_is_remembered_stays_bounded(spam: Tally) -> None:
    for first in range(0, 10_000, 1_000):
        offsets = range(first, first + 1_000)
        spam.sent(records([message(at) for at in offsets], first=first), 0)
        spam.predicted(records([prediction(at) for at in offsets]), 1_010)
    assert spam.settled
    sizes = [len(value) for value in vars(spam).values() if hasattr(value, "__len__")]
    assert max(sizes) <= 2_000


def status_of(spam: Tally) -> TaskStatus:
    spam.sent(records([message(0, "spam"), message(1)]), 0)
    spam.predicted(records([prediction(0), prediction(1)]), 1_010)
    return spam.status()


def test_what_does_not_add_up_is_said(spam: Tally) -> None:
    good = status_of(spam)
    assert _account(good, 2) == []
    [lost] = _account(replace(good, predictions=1), 2)
    assert lost == "spam: 1 of 2 events were neither predicted nor put aside in time"
    [doubled] = _account(replace(good, predictions=3), 2)
    assert doubled == "spam: 1 answers more than events"
    [unseen] = _account(good, 5)
    assert unseen == "spam: 5 acknowledged, 2 in the topic"


def drawn(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, height=30, file=io.StringIO())
    console.print(renderable)
    return cast(io.StringIO, console.file).getvalue()


def test_the_summary_has_each_task_with_its_numbers(spam: Tally) -> None:
    text = drawn(summary([status_of(spam)]))
    line = next(line for line in text.splitlines() if "spam" in line)
    assert line.split() == ["spam", "accuracy", "-", "-", "2", "2", "0", "10,", "10", "0"]


@pytest.mark.parametrize(("width", "height"), [(100, 30), (200, 60), (80, 24), (40, 10)])
def test_the_view_fits_its_terminal(spam: Tally, width: int, height: int) -> None:
    demo = Demo(200.0, bootstrap="127.0.0.1:9092", page="http://127.0.0.1:45678")
    demo.stages = [Stage("Kafka", "ready", "here"), Stage("spam", "starts"), Stage("producers")]
    starting = drawn(render(demo, time.monotonic(), height), width)
    assert "✓" in starting
    assert "compiling" in starting
    status = status_of(spam)
    statuses = [replace(status, name=name) for name in ("pm25", "hackernews", "spam")]
    demo.monitor = cast(
        Any, SimpleNamespace(statuses=lambda: statuses, first_prediction_s=demo.started_s + 9)
    )
    running = drawn(render(demo, time.monotonic(), height), width)
    assert all(len(line) <= width for line in running.splitlines())
    if height >= 24:
        assert len(running.splitlines()) <= height
    if width >= 80:
        assert "message 1" in running or height < 24
        assert f"Ctrl-C stops everything  {demo.page}" in running


WIDE = {"over time", "latency"}
SHOWN = {
    50: {"task", "score"},
    80: {"task", "score", "events", "pace", "drift alarms"},
    120: {"task", "score", "events", "pace", "drift alarms", *WIDE},
}


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_name_and_a_score_are_whole_in_any_terminal(spam: Tally, width: int) -> None:
    """What matters least goes first, in whole columns, in the view and in the last table."""
    status = replace(
        status_of(spam),
        events=1_234_567,
        predictions=1_234_560,
        value=0.9375,
        baseline=0.5625,
        baseline_name="no_change",
        p50_ms=1234.0,
        p99_ms=12_345.0,
        history=(0.1, 0.9),
    )
    statuses = [replace(status, name=name) for name in ("pm25", "hackernews", "spam")]
    demo = Demo(200.0, bootstrap="127.0.0.1:9092")
    demo.monitor = cast(
        Any, SimpleNamespace(statuses=lambda: statuses, first_prediction_s=demo.started_s + 9)
    )
    running = drawn(render(demo, demo.started_s + 61, 18), width)
    last = drawn(summary(statuses), width)
    for text in (running, last):
        assert all(len(line) <= width for line in text.splitlines())
        assert text.count("accuracy 0.938") == 3
        for name in ("pm25", "hackernews", "spam"):
            assert f"{name} " in text
    assert "1:01" in running.splitlines()[0]
    titles = {title for title in SHOWN[120] if title in running}
    assert titles == SHOWN[width]
    assert "…" not in last
    assert ("p50, p99 ms" in last) == (width > 80)


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_the_view_obeys_no_event(spam: Tally, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    event = {"id": text, "label": "spam", "text": text}
    spam.sent(records([event, event | {"label": "ham"}]), 0)
    spam.predicted(records([Prediction(text, text, 0, 0, 0, at, [0.8, 0.2]) for at in (0, 1)]), 9)
    status = replace(spam.status(), name=text)
    demo = Demo(200.0, bootstrap=text, ending=text)
    demo.stages = [Stage("Kafka", "ready", text), Stage(text, "starts", text)]
    starting = render(demo, time.monotonic(), 30)
    demo.statuses = [status]
    demo.errors = [text]
    seen = SimpleNamespace(statuses=lambda: [status], first_prediction_s=demo.started_s + 9)
    demo.monitor = cast(Any, seen)
    terminal = Terminal()
    terminal.width = 100
    for drawing in (starting, render(demo, time.monotonic(), 30)):
        terminal.print(drawing)
    summarize(demo, quiet=False)
    out, err = capfd.readouterr()
    assert not obeyed(out + err)
    assert visible(text, keep="")[:9] in out
    assert visible(text) in err


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 7], 10) == "▁▂▃█"
    assert sparkline([5, 0, 7], 2) == "▁█"
    assert sparkline([3, 3], 5) == "▄▄"
    assert sparkline([], 5) == ""
