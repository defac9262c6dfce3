"""Connections that bring no request are closed."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress

import pytest

from headrace.stream.serve import server
from tests.support.serving import serving, small_task

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    found = b""
    while data := connection.recv(65_536):
        found += data
    return found


def test_a_head_that_does_not_come_in_time_or_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    with serving(small_task(), None) as ask:
        for sent in (b"", HEAD, HEAD + b"\r\n" + HEAD):
            with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as connection:
                began_s = time.monotonic()
                connection.sendall(sent)
                said = read_all(connection)
                assert 0.9 < time.monotonic() - began_s < 8
                assert said.count(b"200 OK") == sent.count(b"\r\n\r\n")
        with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as connection:
            for _ in range(3):  # one that is idle in between is kept
                connection.sendall(HEAD + b"\r\n")
                time.sleep(1.2)
                assert b"200 OK" in connection.recv(65_536)
        monkeypatch.setattr(server, "HEAD_S", 60.0)
        with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as connection:
            connection.sendall(HEAD + b"X: " + b"a" * 2 * server.HEAD_BYTES)
            with suppress(ConnectionResetError):  # of what it had not read yet
                assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "sent", [b"what?\r\n\r\n", b"GET / HTTP/9\r\n\r\n", HEAD + b"\0: 1\r\n\r\n"]
)
def test_what_is_no_request_is_refused_by_problem_details(sent: bytes) -> None:
    with (
        serving(small_task(), None) as ask,
        socket.create_connection(("127.0.0.1", ask.port), timeout=10) as connection,
    ):
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body)["status"] == 400
