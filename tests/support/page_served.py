"""The page served from topics in memory, and its streams read as a browser does."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from headrace.stream.serve.gate import Limits
from tests.support.page_topics import Topics
from tests.support.serving import Ask, serving

STREAM = "/v1/tasks/poisoned/stream"


@contextmanager
def shown(topics: Topics, limits: Limits | None = None) -> Iterator[Ask]:
    with serving(topics.task, None, limits, {topics.task.name: topics.viewing()}) as ask:
        yield ask


@contextmanager
def streamed(ask: Ask, path: str = STREAM, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Open a stream; give its views."""
    connection = http.client.HTTPConnection("127.0.0.1", ask.port, timeout=20)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")

    def views() -> Iterator[dict[str, Any]]:
        while line := response.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    with closing(connection):
        yield views()
