"""The page without a browser: its files, its views, and who may see them."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import quote

import pytest

from headrace.stream.errors import BrokerError
from headrace.stream.serve import assets, pages, view, viewing
from headrace.stream.serve.gate import LOOPBACK, Limits
from headrace.stream.task import parse
from tests.support.events import good
from tests.support.page_served import STREAM, shown, streamed
from tests.support.page_topics import BEGIN_MS, Topics, wait
from tests.support.serving import small_task

TASK = small_task()
VIEW = "/v1/tasks/poisoned/view"
HOSTILE = '<img src=x onerror="alert(1)"></script>\u2028\u202e'


@pytest.fixture
def topics() -> Topics:
    return Topics(TASK)


def test_it_shows_what_the_topics_hold(topics: Topics) -> None:
    said = [topics.metrics(second, 0.8 + second / 100) for second in range(5)]
    for number in range(3):
        topics.event(good(number), second=number)
        topics.prediction(number, second=number + 0.25)
    alarm, step = topics.alarm(2.5), topics.step(2.5, "challenge", rival="fresh")
    topics.letter("schema", 3.0, b"a text")
    topics.letter("schema", 4.0, b"another")
    with shown(topics) as ask:
        found = ask("GET", VIEW).body
        (summary,) = ask("GET", "/v1/views").body["views"]
    assert [each["t"] for each in found["points"]] == [each["time_ms"] for each in said]
    for point, told in zip(found["points"], said, strict=True):
        for scope in ("window", "all"):
            assert point[f"model_{scope}"] == told[scope]["accuracy"]
            for name in ("no_change", "majority"):
                assert point[f"{name}_{scope}"] == told["baselines"][name][scope]["accuracy"]
        assert (point["rate"], point["lag"]) == (told["events_per_second"], told["lag"])
    for name in ("events", "learned", "rejected", "repeated", "lag", "checkpoint_age_s", "members"):
        assert found["latest"][name] == said[-1][name]
    assert found["latest"]["scores"]["model"]["window"] == said[-1]["window"]
    for newest, number in zip(found["predictions"], (2, 1, 0), strict=True):
        event = json.loads(good(number))
        assert (newest["id"], newest["prediction"]) == (f"e-{number}", "yes")
        assert (newest["probability"], newest["truth"]) == (0.75, event["label"])
        assert newest["event"].startswith(f"message number {number} · ")
        assert "label" not in newest["event"]
    assert found["latency"] == {"p50": 250, "p95": 250, "p99": 250, "events": 3}
    first, second = found["drift"]
    assert {name: first[name] for name in ("before", "after", "moved", "detector")} == {
        name: alarm[name] for name in ("before", "after", "moved", "detector")
    }
    assert (second["action"], second["rival"]) == ("challenge", step["rival"])
    assert [each["at_ms"] for each in found["drift"]] == [BEGIN_MS + 2_500] * 2
    (code, refused), *none = found["refused"].items()
    assert not none
    assert (code, refused["count"], refused["example"]["raw"]) == ("schema", 2, "another")
    assert summary["point"] == found["points"][-1]
    assert summary["alarmed_ms"] == BEGIN_MS + 2_500


def test_the_truth_comes_with_a_later_event_of_the_same_entity() -> None:
    text = TASK_AHEAD
    topics = Topics(parse(text, "test"))
    for number in range(9):  # of three stations in turn
        topics.event(good(number, label=float(number)))
        topics.prediction(number, prediction=1.5, interval=[1.0, 2.0], probabilities=None)
    with shown(topics) as ask:
        found = ask("GET", VIEW).body["predictions"]
    assert [each.get("truth") for each in found] == [None] * 3 + [8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    assert all("label" in each["event"] for each in found), "it is an input"


TASK_AHEAD = """
name = "poisoned"
[input]
topic = "events.poisoned"
time = "time"
entity = "entity"
[target]
field = "label"
kind = "regress"
horizon = 1
[features]
x = { kind = "number" }
"""


def test_explanations_are_shown_apart_and_bounded(topics: Topics) -> None:
    topics.event(good(0))
    inputs = {f"input {number}": number / 1000 for number in range(150)}
    why = {"of": "yes", "base": 0.25, "inputs": inputs}
    topics.prediction(0, explanation=why)
    topics.metrics(1, importance={"x": 0.5, "y": 0.125})
    with shown(topics) as ask:
        found = ask("GET", VIEW).body
    (one,) = found["explained"]
    told = one["explanation"]
    assert (told["of"], told["base"], len(told["inputs"])) == ("yes", 0.25, 100)
    assert told["rest"] + sum(told["inputs"].values()) == pytest.approx(sum(inputs.values()))
    assert (one["truth"], one["event"][:7]) == ("no", "message")
    assert found["latest"]["importance"] == {"x": 0.5, "y": 0.125}


JUNK = [
    b"",
    b"\xff\xfe",
    b"[1, 2]",
    b"null",
    b'"text"',
    b"{" * 5000,
    b'{"time_ms": 1e999}',
    json.dumps({"time_ms": "soon", "window": [1], "baselines": {"no_change": 3}}).encode(),
    json.dumps({"time_ms": BEGIN_MS, "window": {"accuracy": {"a": 1}}, "members": [1]}).encode(),
    json.dumps({"kind": "alarm", "moved": [3, {"column": {}}], "before": "x"}).encode(),
    json.dumps({"kind": ["alarm"], "action": 7, "exchanged": [{}, 1]}).encode(),
    json.dumps({"id": {}, "prediction": [], "offset": 1 << 70, "partition": -1}).encode(),
    json.dumps({"id": "x", "offset": 9_999, "partition": 77, "probabilities": ["a"]}).encode(),
    json.dumps({"explanation": {"base": "a", "inputs": [1]}, "interval": [1]}).encode(),
    json.dumps({"code": {}, "raw": 3}).encode(),
    json.dumps({"code": "c", "raw": "no base64 ☃", "detail": 1 << 80}).encode(),
]


def test_whatever_strangers_write_the_rest_is_shown(topics: Topics) -> None:
    for stage in view.STAGES:
        for junk in JUNK:
            topics.write(stage, junk, 1)
    topics.event(good(0))
    topics.prediction(0, 2, id=HOSTILE)
    topics.metrics(2, members={HOSTILE: 1.0})
    topics.letter(HOSTILE, 2, HOSTILE.encode())
    with shown(topics) as ask:
        found = ask("GET", VIEW)
        assert found.status == 200
        assert found.headers["content-type"] == "application/json"
        assert found.body["trouble"] is None
        assert found.body["points"][-1]["model_window"] == 0.9
        assert found.body["predictions"][0]["id"] == HOSTILE
        assert found.body["predictions"][0]["truth"] == "no"
        assert found.body["latest"]["members"] == {HOSTILE: 1.0}
        assert found.body["refused"][HOSTILE]["example"]["raw"] == HOSTILE
        with streamed(ask) as views:
            assert next(views)["predictions"][0]["id"] == HOSTILE


def test_a_view_stays_small_however_much_comes(topics: Topics) -> None:
    long = "x" * 20_000
    for number in range(3_000):
        topics.metrics(number)
    for number in range(600):
        topics.event(good(number))
        topics.alarm(number, moved=[{"column": long, "psi": 1, "ks": 1}] * 9, detector=long)
        topics.prediction(number, id=long, probabilities=[0.1] * 200)
        topics.letter(f"code {number}", raw=long.encode(), detail=long)
    with shown(topics) as ask:
        found = ask("GET", VIEW).body
    assert len(found["points"]) == view.POINTS
    assert len(found["drift"]) == view.ALARMS
    assert len(found["predictions"]) == view.PREDICTIONS
    assert len(found["refused"]) == view.CODES
    assert len(json.dumps(found)) < 600_000
    assert found["points"][-1]["t"] == BEGIN_MS + 2_999_000


def test_nothing_is_read_while_nobody_looks(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewing, "IDLE_S", 0.3)
    monkeypatch.setattr(viewing, "TURN_S", 0.02)
    topics.metrics(1)
    with shown(topics) as ask:
        assert not topics.kafka.given
        assert len(ask("GET", VIEW).body["points"]) == 1
        time.sleep(0.8)
        before, letters = topics.kafka.given.total(), topics.kafka.opened.total()
        topics.metrics(2)
        topics.alarm(2)
        time.sleep(0.3)
        assert (topics.kafka.given.total(), topics.kafka.opened.total()) == (before, letters)
        found = ask("GET", VIEW).body
        assert (len(found["points"]), len(found["drift"])) == (2, 1)


def test_it_goes_on_after_kafka_was_away(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "AGAIN_S", 0.05)
    monkeypatch.setattr(pages, "FRESH_S", 0.3)
    topics.metrics(1)
    topics.alarm(1)
    source, away = topics.kafka.source, True

    def failing(*args: Any, **settings: Any) -> Any:
        if away:
            raise BrokerError("no broker at memory")
        return source(*args, **settings)

    monkeypatch.setattr(topics.kafka, "source", failing)
    with shown(topics) as ask:
        found = wait(lambda: (said := ask("GET", VIEW).body)["trouble"] and said)
        assert found["trouble"] == "no broker at memory"
        assert ask("GET", f"{VIEW}?at={BEGIN_MS}").status == 503
        away = False
        found = wait(lambda: (said := ask("GET", VIEW).body)["points"] and said)
        assert found["trouble"] is None
        assert len(found["drift"]) == 1, "what was read again is not told twice"


def test_its_files_hold_no_script_and_no_style_of_their_own(topics: Topics) -> None:
    with shown(topics) as ask:
        for path, (_, kind) in assets.FILES.items():
            said = ask("GET", path)
            assert (said.status, said.headers["content-type"].split(";")[0]) == (200, kind)
            policy = said.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert said.headers["x-content-type-options"] == "nosniff"
            text = said.body.decode()
            assert not re.search(r"https?://(?!github.com/leeoniya)", text), "it works offline"
            if kind == "text/html":
                assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
            if kind == "text/javascript" and "uPlot" not in path:
                assert not re.search(
                    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text
                )


def test_data_needs_the_token_and_the_files_of_the_page_need_none(topics: Topics) -> None:
    token = b"correct-horse-battery"
    with shown(topics, Limits(token=token)) as ask:
        for path in assets.FILES:
            assert ask("GET", path).status == 200
        for path in (VIEW, STREAM, "/v1/views", f"{VIEW}?at=1"):
            assert ask("GET", path).status == 401
        known = {"Authorization": f"Bearer {token.decode()}"}
        assert ask("GET", VIEW, **known).status == 200
        with streamed(ask, **known) as views:
            assert next(views)["task"] == "poisoned"
    with shown(topics, Limits(hosts=LOOPBACK)) as ask:
        for path in (VIEW, STREAM, "/v1/views"):
            assert ask("GET", path, host="evil.example").status == 421


@pytest.mark.parametrize("at", ["", "-1", "1.5", "now", "9" * 30, "٣"])
def test_what_is_no_moment_is_refused(topics: Topics, at: str) -> None:
    with shown(topics) as ask:
        said = ask("GET", f"{VIEW}?at={quote(at)}")
        assert (said.status, said.body["title"]) == (400, "Bad Request")
        assert ask("GET", "/v1/tasks/other/view").status == 404
        assert ask("GET", "/v1/tasks/other/stream").status == 404
        assert ask("POST", VIEW).status == 405
