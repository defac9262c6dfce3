"""Files behind http, by a real server: what is there is read, what is not is told in words."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fsspec.registry import _registry

from headrace.stream.errors import HeadraceError, StoreError, UsageError
from headrace.stream.formats import files
from headrace.stream.storage import remote

ROWS = b"n,s\n" + b"".join(b"%d,some text\n" % n for n in range(20_000))
PLACES: dict[str, tuple[int, bytes]] = {
    "/rows.csv": (200, ROWS),
    "/rows.csv.gz": (200, gzip.compress(ROWS)),
    "/mine.csv": (403, b"no"),
    "/who.csv": (401, b"no"),
    "/broken.csv": (500, b"oh"),
    "/page": (200, b"<!doctype html><p>not a file of rows</p>"),
    "/empty.csv": (200, b""),
}


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = PLACES.get(self.path.partition("?")[0], (404, b"none"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_S", 0.3)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv?token=canary", "rows.csv.gz"])
def test_rows_of_the_web_are_those_of_the_file(web: str, name: str) -> None:
    found = list(files.read(f"{web}/{name}"))
    assert len(found) == 20_000
    assert (found[0], found[-1]) == (
        b'{"n":0,"s":"some text"}',
        b'{"n":19999,"s":"some text"}',
    )


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("none.csv", UsageError, "none.csv: no such file; check the URL"),
        ("none.csv?token=canary", UsageError, "none.csv: no such file; check the URL"),
        ("empty.csv", UsageError, "empty.csv: the file is empty"),
        ("page", UsageError, "page: cannot read files of type ''"),
        ("mine.csv?token=canary", StoreError, "refused (HTTP 403): "),
        ("who.csv", StoreError, "; check the credentials"),
        ("broken.csv", StoreError, "the server failed (HTTP 500): "),
    ],
)
def test_what_cannot_be_read_is_told(
    web: str, name: str, kind: type[HeadraceError], told: str
) -> None:
    with pytest.raises(kind) as raised:
        next(files.read(f"{web}/{name}"))
    assert told in str(raised.value)
    assert "canary" not in str(raised.value)


def test_a_server_that_is_not_there_is_no_missing_file() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(StoreError) as raised:
        next(files.read(f"http://127.0.0.1:{port}/rows.csv"))
    assert str(raised.value).startswith(f"cannot read http://127.0.0.1:{port}/rows.csv: ")
    assert str(raised.value).endswith("; check that it can be reached")


def test_a_driver_that_is_missing_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(UsageError, match=r"s3:// needs `pip install headrace\[s3\]`"):
        next(files.read("s3://bucket/rows.csv"))
