"""A server of predictions in a thread, by the state of a trainer; no Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, NamedTuple, cast

from headrace.stream.ledger.manifest import Manifest
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.serve import server
from headrace.stream.serve.following import LearnerStands
from headrace.stream.serve.gate import Limits
from headrace.stream.serve.http import make_app
from headrace.stream.serve.predictor import Predictor
from headrace.stream.serve.served import served_tasks
from headrace.stream.serve.viewing import Viewing
from headrace.stream.task import Task, parse
from headrace.stream.training.trainer import Trainer
from tests.support.events import good, task_text
from tests.support.json_rows import records_of

SMALL = '\n[model]\nnetwork = "linear"\nlearning_rate = 0.01\nneighbours = 0\n'


def small_task(name: str = "poisoned") -> Task:
    return parse(task_text(name) + SMALL, "test")


def trained(task: Task, events: int = 60) -> Trainer:
    """Return a trainer that learned the good events up to a number."""
    trainer = Trainer(task, 64)
    rows, letters = Normalizer(task).normalize(
        records_of([good(number) for number in range(events)])
    )
    assert not letters
    rows, _ = trainer.admit(rows, "")
    trainer.collect(trainer.submit(rows))
    return trainer


def manifest(seq: int = 1) -> Manifest:
    return Manifest(
        run="ab" * 16,
        seq=seq,
        chain="",
        ledger_offset=0,
        positions={},
        reading={},
        counts={"learned": 0},
        task="",
        code="",
        state="",
        time_ms=0,
    )


class Still:
    """Stand for what follows releases, where none comes."""

    releases = refused = 0
    behind_events, behind_s = 5, 2.5
    learner: LearnerStands | None = None

    def __init__(self, predictor: Predictor, trainer: Trainer | None) -> None:
        if trainer:
            predictor.take_over(manifest(), trainer.snapshot().tensors())

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class Said(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any  # decoded, if it is JSON


class Ask:
    """Send requests to a server of this machine, each over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def __call__(
        self, method: str, path: str, body: Any = None, host: str = "", **headers: str
    ) -> Said:
        """Return the answer; a body that is no bytes is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            told.setdefault("Content-Type", "application/json")
        if host:
            told["Host"] = host
        connection.request(method, path, body, told)
        response = connection.getresponse()
        data, kind = response.read(), response.getheader("content-type", "")
        connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Said(response.status, found, json.loads(data) if "json" in kind else data)


@contextmanager
def serving(
    task: Task,
    trainer: Trainer | None,
    limits: Limits | None = None,
    viewings: Mapping[str, Viewing] | None = None,
    port: int = 0,
) -> Iterator[Ask]:
    """Serve a task by the state of a trainer, and the page, while the context is open."""
    served = served_tasks([task], cast(Any, lambda predictor: Still(predictor, trainer)))
    listening, ended, ready = server.listen("127.0.0.1", port), threading.Event(), threading.Event()
    app = make_app(served, limits or Limits(), viewings or {}, ended.is_set)
    thread = threading.Thread(
        target=server.run,
        args=(app, listening),
        kwargs={"tls": None, "stop": ended.is_set, "on_ready": ready.set},
    )
    thread.start()
    assert ready.wait(30)
    try:
        yield Ask(listening.getsockname()[1])
    finally:
        ended.set()
        thread.join(20)
        assert not thread.is_alive()
