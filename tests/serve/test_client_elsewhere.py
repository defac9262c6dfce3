"""A client that asks what is no service of ours is told so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import headrace
from headrace.stream.errors import ServiceError


class Other(BaseHTTPRequestHandler):
    """Answer every request with the status and the body that its path names."""

    def do_POST(self) -> None:
        _, status, at, *_ = self.path.split("/")
        body = BODIES[int(at)]
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


BODIES = [b"[]", b"3", b"{}", b"null", b'"x"', b"[3]", b'{"detail": [1]}', b"<html>", b"[" * 90_000]


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 422, 500])
def test_an_answer_that_is_none_is_told(url: str, status: int) -> None:
    for at in range(len(BODIES)):
        with headrace.Client(f"{url}/{status}/{at}") as client, pytest.raises(ServiceError):
            client.predict("power", {})
