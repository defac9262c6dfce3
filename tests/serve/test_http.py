"""The HTTP interface: what it answers, what it refuses, and how it says so."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import headrace
from headrace.stream.errors import ServiceError, UsageError
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.serve.gate import LOOPBACK, Limits
from headrace.stream.serve.predictor import Predictor
from headrace.stream.training.trainer import Trainer
from tests.support.events import POISON, good
from tests.support.json_rows import records_of
from tests.support.serving import Ask, serving, small_task, trained

TASK = small_task()
PREDICT = "/v1/tasks/poisoned/predict"
ONE = json.loads(good(70, label=None))
DEEP = reduce(lambda inner, _: [inner], range(20_000), list[Any]())


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return trained(TASK)


@pytest.fixture(scope="module")
def ask(trainer: Trainer) -> Iterator[Ask]:
    with serving(TASK, trainer) as ask:
        yield ask


def published(trainer: Trainer, raw: bytes) -> dict[str, Any]:
    """Return what the learner would publish of an event that came next, as its topic has it."""
    rows, _ = Normalizer(TASK).normalize(records_of([raw]))
    foreseen = trainer.foresee(rows)
    assert not isinstance(foreseen, tuple) or hasattr(foreseen, "found")
    (line,) = trainer.predictions(foreseen.found)  # type: ignore[union-attr]
    return {"prediction": line.prediction, "step": line.step, "probabilities": line.probabilities}


def test_an_answer_is_what_the_learner_would_publish(ask: Ask, trainer: Trainer) -> None:
    for number in range(60, 90):
        raw = good(number)
        said = ask("POST", PREDICT, raw)
        assert said.status == 200
        wanted = {"id": f"e-{number}", "version": "abababababab-1", **published(trainer, raw)}
        assert said.body == wanted  # JSON keeps every bit of a number


def test_many_are_answered_in_their_order_and_a_refused_one_in_its_place(ask: Ask) -> None:
    events = [json.loads(good(number)) for number in range(60, 63)]
    events[1]["x"] = "much"
    said = ask("POST", PREDICT, events)
    assert said.status == 200
    first, refused, last = said.body
    assert (first["id"], last["id"]) == ("e-60", "e-62")
    assert (refused["status"], refused["code"]) == (422, "schema")
    assert "'much'" in refused["detail"]
    assert ask("POST", PREDICT, events[0]).body == first
    assert ask("POST", PREDICT, []).body == []


@pytest.mark.parametrize("name", POISON)
def test_what_the_learner_would_refuse_is_refused_with_its_code(ask: Ask, name: str) -> None:
    raw, code = POISON[name]
    if raw is None or name in ("no id", "an array"):  # which are no mistakes here
        return
    said = ask("POST", PREDICT, raw)
    if raw.strip()[:1] == b"{":
        assert (said.status, said.body["code"]) == (422, code)
    else:  # it is no event at all
        assert said.status == 400
    assert said.headers["content-type"] == "application/problem+json"
    assert said.body["title"]
    assert "Traceback" not in json.dumps(said.body)


def test_an_event_needs_no_id_but_not_a_wrong_one(ask: Ask) -> None:
    nameless = {key: value for key, value in ONE.items() if key != "id"}
    with_id, without = ask("POST", PREDICT, ONE).body, ask("POST", PREDICT, nameless).body
    assert without == with_id | {"id": None}
    mixed = ask("POST", PREDICT, [nameless, ONE, nameless, {}]).body
    assert mixed[:3] == [without, with_id, without]
    assert mixed[3]["code"] == "schema"
    assert ask("POST", PREDICT, ONE | {"id": True}).body["code"] == "schema"
    assert ask("POST", PREDICT, ONE | {"id": "x" * 2000}).status == 422


def test_its_own_label_is_not_looked_at(ask: Ask) -> None:
    said = [ask("POST", PREDICT, ONE | {"label": label}).body for label in ("yes", "no", None)]
    assert said[0] == said[1] == said[2]


def test_the_state_that_answers_is_told(ask: Ask) -> None:
    found = ask("GET", "/v1/tasks/poisoned").body
    assert found["version"] == "abababababab-1"
    assert found["step"] == 60
    assert (found["behind_events"], found["behind_s"]) == (5, 2.5)
    assert found["classes"] == ["no", "yes"]
    assert found["task"]["input"]["topic"] == "poisoned"
    assert ask("GET", "/v1/tasks").body == {"tasks": [found]}
    assert ask("GET", "/healthz").status == ask("GET", "/readyz").status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/v1/tasks/other", None, {}, 404),
        ("POST", "/v1/tasks/other/predict", {}, {}, 404),
        ("POST", "/v1/tasks/%00%0a/predict", {}, {}, 404),
        ("GET", "/nowhere", None, {}, 404),
        ("GET", PREDICT, None, {}, 405),
        ("DELETE", "/v1/tasks", None, {}, 405),
        ("POST", PREDICT, b"3", {}, 400),
        ("POST", PREDICT, b"", {}, 400),
        ("POST", PREDICT, b"[1, 2", {}, 400),
        ("POST", PREDICT, b"[" * 100_000, {}, 400),
        ("POST", PREDICT, b"[\xff]", {}, 400),
        ("POST", PREDICT, b"{" * 3000, {}, 422),
        ("POST", PREDICT, b"{}", {"Content_Type": "text/plain"}, 415),
        ("POST", PREDICT, b"[" + b"{}," * 4096 + b"{}]", {}, 413),
        ("POST", PREDICT, b" " * ((8 << 20) + 1), {}, 413),
    ],
)
def test_what_cannot_be_answered_is_told_as_problem_details(
    ask: Ask, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    said = ask(method, path, body, **headers)
    assert said.status == said.body["status"] == status, said
    assert said.headers["content-type"] == "application/problem+json"
    assert said.body["detail"]


def test_a_body_without_a_length_is_measured_as_it_comes(ask: Ask) -> None:
    with socket.create_connection(("127.0.0.1", ask.port)) as raw:
        raw.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        try:
            for _ in range(12):
                raw.sendall(piece)
        except ConnectionError:
            pass
        assert b" 413 " in raw.recv(100)


def test_no_other_origin_is_let_read(ask: Ask) -> None:
    said = ask("POST", PREDICT, ONE, Origin="https://example.org")
    assert not [name for name in said.headers if name.startswith("access-control")]
    assert "server" not in said.headers


def test_metrics_are_as_prometheus_reads_them(ask: Ask) -> None:
    ask("POST", PREDICT, [ONE, ONE, {"id": 3}])
    text = ask("GET", "/metrics").body.decode()
    found = {
        (sample.name, *map(sample.labels.get, sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["headrace_predicted_events_total", "poisoned"] >= 2
    assert found["headrace_refused_events_total", "schema", "poisoned"] >= 1
    assert found["headrace_predict_seconds_count", "poisoned"] >= 1
    assert found["headrace_release_step", "poisoned"] == 60
    assert found["headrace_release_behind_events", "poisoned"] == 5
    assert "_created" not in text


def test_each_answer_is_described(ask: Ask) -> None:
    described = ask("GET", "/openapi.json").body
    assert described["openapi"].startswith("3.1")
    assert PREDICT.replace("poisoned", "{task}") in described["paths"]
    schema = described["components"]["schemas"]["Answer"]
    answer = ask("POST", PREDICT, ONE).body
    assert {*schema["required"]} <= {*answer} <= {*schema["properties"]}


def test_before_the_first_release_it_says_so() -> None:
    with serving(TASK, None) as ask:
        assert ask("GET", "/healthz").status == 200
        for said in (ask("GET", "/readyz"), ask("POST", PREDICT, ONE)):
            assert said.status == 503
            assert "headrace learn" in said.body["detail"]
        found = ask("GET", "/v1/tasks/poisoned").body
        assert (found["version"], found["step"]) == (None, None)


def test_a_token_is_asked_for_and_health_is_not(trainer: Trainer) -> None:
    with serving(TASK, trainer, Limits(token=b"correct-horse-battery")) as ask:
        assert ask("GET", "/healthz").status == ask("GET", "/readyz").status == 200
        for given in ("", "Bearer ", "Bearer wrong", "Basic correct-horse-battery", "correct"):
            for method, path in (("POST", PREDICT), ("GET", "/metrics"), ("GET", "/v1/tasks")):
                said = ask(method, path, ONE if method == "POST" else None, Authorization=given)
                assert (said.status, said.headers["www-authenticate"]) == (401, "Bearer")
        said = ask("POST", PREDICT, ONE, Authorization="bearer correct-horse-battery")
        assert said.status == 200
        with headrace.Client(ask.url, token="correct-horse-battery") as client:
            assert client.predict("poisoned", ONE) == said.body
        with headrace.Client(ask.url) as client, pytest.raises(ServiceError, match="Bearer"):
            client.predict("poisoned", ONE)


def test_a_page_with_a_name_of_its_own_is_kept_out(trainer: Trainer) -> None:
    with serving(TASK, trainer, Limits(hosts=LOOPBACK)) as ask:
        for host in ("localhost", "127.0.0.1", f"localhost:{ask.port}", "[::1]:80"):
            assert ask("GET", "/v1/tasks", host=host).status == 200
        assert ask("GET", "/v1/tasks", host="evil.example:80").status == 421


def test_more_than_the_rate_is_refused_with_when_to_ask_again(trainer: Trainer) -> None:
    with serving(TASK, trainer, Limits(rate=5.0)) as ask:
        said = [ask("POST", PREDICT, ONE) for _ in range(20)]
        assert [each.status for each in said[:5]] == [200] * 5
        refused = [each for each in said if each.status == 429]
        assert 10 <= len(refused) <= 15
        assert all(each.headers["retry-after"] == "1" for each in refused)


def test_more_at_once_than_are_let_in_are_refused(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go, answer = threading.Semaphore(0), threading.Event(), Predictor.answer

    def slow(self: Predictor, raws: Sequence[bytes]) -> list[Any]:
        inside.release()
        go.wait(20)
        return answer(self, raws)

    monkeypatch.setattr(Predictor, "answer", slow)
    many = [ONE] * 20  # answered on a thread
    with serving(TASK, trainer, Limits(at_once=2)) as ask, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(ask, "POST", PREDICT, many) for _ in range(2)]
        assert inside.acquire(timeout=20)
        while (said := ask("GET", "/v1/tasks")).status == 200:
            pass
        assert (said.status, said.headers["retry-after"]) == (503, "1")
        assert ask("GET", "/healthz").status == 200
        go.set()
        assert [each.result().status for each in waiting] == [200, 200]
        assert ask("GET", "/v1/tasks").status == 200


def test_a_mistake_of_ours_tells_nothing_of_itself(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Predictor, raws: Sequence[bytes]) -> list[Any]:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Predictor, "answer", fail)
    caplog.set_level(logging.CRITICAL)
    with serving(TASK, trainer) as ask:
        for body in (ONE, [ONE] * 30):
            said = ask("POST", PREDICT, body)
            assert said.status == 500
            assert "secret" not in json.dumps(said.body)


def test_a_client_asks_and_is_told(ask: Ask) -> None:
    with headrace.Client(ask.url) as client:
        one = client.predict("poisoned", ONE)
        assert one == ask("POST", PREDICT, ONE).body
        assert client.predict("poisoned", [ONE, ONE]) == [one, one]
        assert client.describe("poisoned")["step"] == 60
        with pytest.raises(headrace.EventError, match="much") as refused:
            client.predict("poisoned", ONE | {"x": "much"})
        assert refused.value.code == "schema"
        with pytest.raises(headrace.EventError, match="JSON cannot hold it"):
            client.predict("poisoned", ONE | {"x": object()})
        with pytest.raises(headrace.EventError, match="JSON cannot hold it"):
            client.predict("poisoned", ONE | {"x": DEEP})
        with pytest.raises(UsageError, match="no task 'other' here: there is poisoned"):
            client.predict("other", ONE)
        with pytest.raises(UsageError, match="no task"):
            client.predict("\ud800", ONE)
    with headrace.Client(f"{ask.url}/a b/\N{EURO SIGN}") as client, pytest.raises(UsageError):
        client.describe("poisoned")
    for url in (
        *("localhost:8501", "ftp://a", "http://a:port", "http://[::1", "http://a b", "http://a..b"),
        *(f"http://{'a' * 64}", "http://\N{ACCOUNT OF}.com"),
    ):
        with pytest.raises(UsageError, match="no address of a service"):
            headrace.Client(url)
    for token in ("a\nb", "\N{EURO SIGN}"):
        with pytest.raises(UsageError, match="token"):
            headrace.Client(token=token)
    with (
        headrace.Client("http://127.0.0.1:1") as client,
        pytest.raises(ServiceError, match="serve"),
    ):
        client.describe("poisoned")


def test_a_client_outlives_a_restart_of_its_service(trainer: Trainer) -> None:
    with serving(TASK, trainer) as ask:
        client = headrace.Client(ask.url)
        first = client.predict("poisoned", ONE)
    with pytest.raises(ServiceError, match="no service answers"):
        client.predict("poisoned", ONE)
    with serving(TASK, trainer) as again:
        client._connection.port = again.port
        assert client.predict("poisoned", ONE) == first
    client.close()


def test_ask_is_a_command(ask: Ask, run: Any, tmp_path: Path) -> None:
    event = json.dumps(ONE)
    done = run("ask", "poisoned", event, "--url", ask.url)
    assert done.code == 0, done.err
    assert done.out.startswith(("yes (probability 0.", "no (probability 0."))
    done = run("ask", "poisoned", f"[{event}, {{}}]", "--url", ask.url, "--json")
    assert done.code == 0
    assert json.loads(done.out)[0] == ask("POST", PREDICT, ONE).body
    for arguments, code, words in (
        (("poisoned", "{"), 2, "no JSON"),
        (("poisoned", "3"), 2, "JSON object"),
        (("poisoned", "{}"), 1, "schema"),
        (("poisoned", "[{}]"), 1, "all 1 events are refused"),
        (("other", event), 2, "no task 'other'"),
    ):
        done = run("ask", *arguments, "--url", ask.url)
        assert done.code == code, done.err
        assert words in done.err
    assert run("ask", "poisoned", event, "--url", "http://127.0.0.1:1").code == 3
