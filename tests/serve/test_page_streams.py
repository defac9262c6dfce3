"""What is told to pages that are open: all once, then what came, and to how many."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from headrace.stream.serve import pages, server, viewing
from headrace.stream.serve.gate import Limits
from tests.support.page_served import STREAM, shown, streamed
from tests.support.page_topics import Topics, wait
from tests.support.serving import small_task

TASK = small_task()
VIEW = "/v1/tasks/poisoned/view"


@pytest.fixture
def topics() -> Topics:
    return Topics(TASK)


def test_a_stream_tells_all_once_and_then_what_came_since(topics: Topics) -> None:
    for second in range(3):
        topics.metrics(second)
    with shown(topics) as ask:
        with streamed(ask) as views:
            assert len(next(views)["points"]) == 3
            topics.metrics(3, 0.5)
            news = next(views)
            assert [each["model_window"] for each in news["points"]] == [0.5]
            assert news["latest"]["events"] == 600
        with streamed(ask, **{"Last-Event-ID": "7"}) as views:
            assert len(next(views)["points"]) == 4


def test_a_stream_without_news_says_that_it_is_there(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "BEAT_S", 0.3)
    with shown(topics) as ask, socket.create_connection(("127.0.0.1", ask.port), 10) as connection:
        connection.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        said = b""
        while b": still here" not in said:
            said += connection.recv(65_536)


def test_streams_end_with_the_server(topics: Topics) -> None:
    with shown(topics) as ask:
        opened = streamed(ask)
        views = opened.__enter__()
        next(views)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 2.5
    assert next(views, None) is None
    opened.__exit__(None, None, None)


def test_so_many_pages_and_no_more(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_STREAMS", 2)
    with shown(topics, Limits(at_once=1)) as ask:
        with streamed(ask) as one, streamed(ask) as other:
            next(one), next(other)
            assert ask("GET", STREAM).status == 503
            assert ask("GET", VIEW).status == 200, "streams take no place of requests"
        wait(lambda: ask("GET", VIEW).status == 200)

        def opened() -> bool:
            try:
                with streamed(ask) as views:
                    return bool(next(views))
            except AssertionError:
                return False

        assert wait(opened), "who left makes room"


def test_who_takes_nothing_is_dropped(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STUCK_S", 0.5)
    monkeypatch.setattr(pages, "LEAST_S", 0.0)
    monkeypatch.setattr(pages, "TURN_S", 0.01)
    monkeypatch.setattr(viewing, "TURN_S", 0.01)
    for number in range(400):
        topics.alarm(number, detector="d" * 90)
    real = server.listen

    def small(host: str, port: int) -> socket.socket:
        listening = real(host, port)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return listening

    monkeypatch.setattr(server, "listen", small)
    with shown(topics) as ask, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect(("127.0.0.1", ask.port))
        slow.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        ended = threading.Event()

        def go_on() -> None:
            second = 0
            while not ended.is_set():
                topics.metrics(second := second + 1)
                time.sleep(0.01)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            time.sleep(1.5)
            slow.settimeout(10)
            taken = 0
            with suppress(ConnectionResetError):
                while data := slow.recv(65_536):
                    taken += len(data)
                    assert taken < 4 << 20, "it goes on"
        finally:
            ended.set()
            thread.join()
