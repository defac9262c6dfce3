"""What stands before every request: who may ask, how much, and how often."""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.stream.serve.assets import FILES, STREAM
from headrace.stream.serve.problems import Problem

OPEN = ("/healthz", "/readyz", *FILES)
"""For those who start and stop services, and the page's files: they say nothing of data."""
MOST_BODY_BYTES = 8 << 20
MOST_AT_ONCE = 256  # requests
RETRY_S = 1
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """Say what the gate lets in.

    Args:
        token: that requests have to bear; None: anyone who can connect may ask.
        hosts: the names that requests may be sent to; empty: any. Where no token is asked for,
            this keeps out web pages that point a name of their own here (DNS rebinding).
        body_bytes: of a request at most.
        at_once: requests that are answered at a time at most.
        rate: requests a second at most, over a second; None: as many as come.
    """

    token: bytes | None = None
    hosts: Sequence[str] = ()
    body_bytes: int = MOST_BODY_BYTES
    at_once: int = MOST_AT_ONCE
    rate: float | None = None


class Gate:
    """Refuse what is not to come in, as problem details; an ASGI middleware."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._inside = 0
        self._left, self._counted_s = limits.rate or 0.0, time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, inside = False, False
        headers = dict(scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            if scope["path"] not in OPEN:
                self._check(headers)
                inside = not scope["path"].endswith(STREAM)  # those are counted by themselves
                self._inside += inside
            await self._app(scope, self._measured(headers, receive), sending)
        except Problem as problem:
            if started:
                raise
            await problem.response()(scope, receive, send)
        finally:
            self._inside -= inside

    def _check(self, headers: dict[bytes, bytes]) -> None:
        limits = self._limits
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if limits.hosts and name.strip("[]") not in limits.hosts:
            detail = f"this service is not called {name[:80]!r}: expected {limits.hosts[0]}"
            raise Problem(HTTPStatus.MISDIRECTED_REQUEST, detail)
        if limits.token is not None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            same = hmac.compare_digest(given.strip(), limits.token)
            if scheme.lower() != b"bearer" or not same:
                raise Problem(
                    HTTPStatus.UNAUTHORIZED,
                    "expected the header Authorization: Bearer with the token of this service",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if self._inside >= limits.at_once:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{limits.at_once} requests are being answered already; ask again",
                headers={"Retry-After": str(RETRY_S)},
            )
        if limits.rate and not self._spend(limits.rate):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {limits.rate:g} requests a second; ask again",
                headers={"Retry-After": str(RETRY_S)},
            )

    def _spend(self, rate: float) -> bool:
        """Take one out of a bucket that fills at the rate, and holds a second of it."""
        now_s = time.monotonic()
        self._left = min(self._left + (now_s - self._counted_s) * rate, max(rate, 1.0))
        self._counted_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _measured(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Return `receive` for a body that is not too large."""
        most, taken = self._limits.body_bytes, 0
        told = headers.get(b"content-length", b"0")
        too_large = Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of more than {most} bytes, expected less"
        )

        async def measured() -> Message:
            nonlocal taken
            if told.isdigit() and int(told) > most:
                raise too_large
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise too_large
            return message

        return measured
