"""The HTTP server: uvicorn, at an address of ours, until it is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.stream.errors import UsageError
from headrace.stream.serve.gate import LOOPBACK
from headrace.stream.serve.problems import Problem

END_S = 3  # that answers which are under way may take, once it is told to end
IDLE_S = 60  # that a connection may stand idle
HEAD_S = 10.0  # that the head of a request may take to come
HEAD_BYTES = 64 << 10  # of it, about
STUCK_S = 30.0  # that a client may take nothing of what is sent to it


@dataclass(frozen=True)
class Tls:
    """Name the files of a server's certificate, and of those that its clients need."""

    cert: Path
    key: Path
    client_ca: Path | None = None  # who signs clients' certificates: none other may connect


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any that is free.

    Raises:
        UsageError: that is not possible.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror}; choose another --port"
        ) from error


def run(
    app: Callable[..., Any],
    listening: socket.socket,
    *,
    tls: Tls | None,
    stop: Callable[[], bool],
    on_ready: Callable[[], None],
) -> None:
    """Serve an ASGI application until `stop` says so, and end what is under way.

    Raises:
        UsageError: a file of `tls` cannot be used.
    """
    secured: dict[str, Any] = {}
    if tls:
        secured = {"ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
        if tls.client_ca:
            secured |= {"ssl_ca_certs": str(tls.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        app,
        http=_Protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=END_S,
        **secured,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        listening.close()
        raise UsageError(
            f"--tls-cert, --tls-key or --client-ca cannot be used: {error.strerror or error}"
        ) from error
    # of requests that are none, a line each: strangers are not to fill the log
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _Server(config, stop, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, stop: Callable[[], bool], on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._stop, self._on_ready = stop, on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so when it listens."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Ask whether to stop, ten times a second."""
        self.should_exit = self.should_exit or self._stop()
        return await super().on_tick(counter)


class _Protocol(HttpToolsProtocol):
    """HTTP that limits heads of requests in time and size, too, and drops who takes no answer."""

    _timer: asyncio.TimerHandle | None = None  # while a head is to come
    _stuck: asyncio.TimerHandle | None = None  # while nothing is taken
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._flow()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._flow()
        self._stuck = self.loop.call_later(STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._flow()
        super().resume_writing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        if self._timer and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"expected {HEAD_BYTES} bytes of headers at most")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and end the connection."""
        response = Problem(HTTPStatus.BAD_REQUEST, msg, headers={"connection": "close"}).response()
        head = [b"%b: %b\r\n" % header for header in response.raw_headers]
        parts = [b"HTTP/1.1 400 Bad Request\r\n", *head, b"\r\n", response.body]
        self.transport.write(b"".join(parts))
        self.transport.close()

    def _flow(self) -> None:
        if self._stuck:
            self._stuck.cancel()
            self._stuck = None

    def _await_head(self) -> None:
        self._timer, self._head_bytes = self.loop.call_later(HEAD_S, self._give_up), 0

    def _end_head(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and not self.transport.is_closing():
            self.transport.close()
