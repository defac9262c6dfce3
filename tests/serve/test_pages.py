"""The page's routes: its files, its views of a real Kafka's topics, and its limits."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.serve import server
from headrace.stream.serve.assets import FILES
from headrace.stream.serve.gate import Limits
from headrace.stream.serve.pages import make_page
from headrace.stream.serve.viewing import Viewing
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import Task
from tests.support.events import POISON, good
from tests.support.serving import Ask, small_task
from tests.support.topics import read, send

pytestmark = pytest.mark.kafka


@pytest.fixture
def task(kafka: KafkaConnection) -> Iterator[Task]:
    plain = small_task(f"page-{os.getpid()}-{time.time_ns()}")
    model = plain.model.model_copy(update={"explain": 0.5})
    made = plain.model_copy(update={"model": model})
    ensure(kafka, topic_specs(made))
    yield made
    delete(kafka, [spec.name for spec in topic_specs(made)])


def learned(task: Task, kafka: KafkaConnection, first: int, count: int) -> None:
    events = [good(number) for number in range(first, first + count)]
    send(kafka, task.input.topic, [*events, POISON["not JSON"][0]])
    place = Safety(os.environ["HEADRACE_STATE"])
    learn(task, kafka, origin="events", safety=place, micro_batch=16, drain=True)


@contextmanager
def page(
    task: Task, kafka: KafkaConnection, token: bytes | None = None
) -> Iterator[tuple[Ask, Viewing]]:
    viewing, ended, ready = Viewing(task, kafka), threading.Event(), threading.Event()
    listening = server.listen("127.0.0.1", 0)
    app = make_page({task.name: viewing}, Limits(token))
    thread = threading.Thread(
        target=server.run,
        args=(app, listening),
        kwargs={"tls": None, "stop": ended.is_set, "on_ready": ready.set},
    )
    thread.start()
    assert ready.wait(20)
    try:
        yield Ask(listening.getsockname()[1]), viewing
    finally:
        ended.set()
        thread.join(20)


def shown(ask: Ask, task: Task, events: int, at: int | None = None) -> dict[str, Any]:
    """Return the view once it tells of so many events."""
    path = f"/v1/tasks/{task.name}/view" + (f"?at={at}" if at is not None else "")
    give_up_s = time.monotonic() + 30
    while True:
        found: dict[str, Any] = ask("GET", path).body
        if found["latest"].get("events") == events and found["predictions"]:
            return found
        assert time.monotonic() < give_up_s, found
        time.sleep(0.2)


def test_a_view_says_what_the_topics_say_now_and_then(task: Task, kafka: KafkaConnection) -> None:
    learned(task, kafka, 0, 60)
    with page(task, kafka) as (ask, _):
        first = shown(ask, task, 60)
        then_ms = time.time_ns() // 1_000_000
        time.sleep(1.1)
        learned(task, kafka, 60, 30)
        now = shown(ask, task, 90)
        newest = read(kafka, task.output("metrics"))[-1]
        assert now["points"][-1]["model_all"] == newest["all"]["accuracy"]
        assert (
            now["points"][-1]["majority_window"]
            == newest["baselines"]["majority"]["window"]["accuracy"]
        )
        assert now["latest"]["members"] == newest["members"]
        assert now["latest"]["importance"] == newest["importance"]
        published = read(kafka, task.output("predictions"))
        told = {each["id"]: each for each in published}
        labels = {f"e-{n}": json.loads(good(n))["label"] for n in range(90)}
        for each in now["predictions"]:
            assert each["probabilities"] == told[each["id"]]["probabilities"]
            assert str(each["truth"]) == str(labels[each["id"]])
        explained = [each["id"] for each in published if "explanation" in each]
        assert [each["id"] for each in now["explained"]] == explained[::-1][: len(now["explained"])]
        (refused,) = now["refused"].values()
        assert refused["count"] == 2
        past = shown(ask, task, 60, at=then_ms)
        for name in ("points", "latest", "predictions", "explained", "drift", "refused"):
            assert past[name] == first[name], name
        assert past["at_ms"] == then_ms


def test_changes_come_by_themselves(task: Task, kafka: KafkaConnection) -> None:
    learned(task, kafka, 0, 20)
    with page(task, kafka) as (ask, _):
        shown(ask, task, 20)
        connection = HTTPConnection("127.0.0.1", ask.port, timeout=30)
        connection.request("GET", f"/v1/tasks/{task.name}/view/stream")
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")
        assert event(response)["latest"]["events"] == 20
        learned(task, kafka, 20, 20)
        while (found := event(response))["latest"]["events"] != 40:
            pass
        assert all(each["t"] > 0 for each in found["points"])
        connection.close()


def event(response: Any) -> dict[str, Any]:
    """Return the data of the next event."""
    while not (line := response.readline()).startswith(b"data: "):
        assert line, "the stream ended"
    found: dict[str, Any] = json.loads(line[6:])
    return found


def test_files_are_safe_open_and_whole(task: Task, kafka: KafkaConnection) -> None:
    with page(task, kafka, token=b"correct-horse-battery") as (ask, _):
        for path, (name, kind) in FILES.items():
            said = ask("GET", path)
            assert said.status == 200
            assert said.headers["content-type"].startswith(kind)
            policy = said.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert said.headers["x-content-type-options"] == "nosniff"
            assert name.endswith(path.removeprefix("/") or "html")
        for path in (
            "/v1/views",
            f"/v1/tasks/{task.name}/view",
            f"/v1/tasks/{task.name}/view/stream",
        ):
            assert ask("GET", path).status == 401
            assert ask("GET", path + "?x=1").status == 401


def test_no_file_asks_another_machine_for_anything() -> None:
    place = Path(server.__file__).parent / "page"
    for name, _ in FILES.values():
        text = (place / name).read_text("utf-8")
        code = text if name.startswith("uPlot") else text.replace("https://", "http://")
        assert "http://" not in code, name
        assert "innerHTML" not in code or name == "uPlot.js"
    assert "MIT" in (place / "uPlot-LICENSE.txt").read_text("utf-8")


@pytest.mark.parametrize("at", ["", "now", "-1", "1e3", "9" * 30, "\u0661"])
def test_a_moment_that_is_none_is_refused(task: Task, kafka: KafkaConnection, at: str) -> None:
    with page(task, kafka) as (ask, _):
        from urllib.parse import quote

        said = ask("GET", f"/v1/tasks/{task.name}/view?at={quote(at)}")
        assert said.status == 400
        assert "milliseconds" in said.body["detail"]
        assert ask("GET", "/v1/tasks/other/view").status == 404


def test_a_topic_that_is_gone_is_told_and_one_that_comes_again_is_followed(
    task: Task, kafka: KafkaConnection
) -> None:
    learned(task, kafka, 0, 20)
    with page(task, kafka) as (ask, viewing):
        shown(ask, task, 20)
        delete(kafka, [task.output("metrics")])
        give_up_s = time.monotonic() + 40
        while viewing.trouble is None:
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        assert ask("GET", f"/v1/tasks/{task.name}/view").body["trouble"]
        ensure(kafka, topic_specs(task))
        while viewing.trouble is not None:
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
