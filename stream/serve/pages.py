"""The page for people: its files, and what it shows, live over server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.stream.errors import HeadraceError
from headrace.stream.serve.assets import FILES, HEADERS
from headrace.stream.serve.gate import Gate, Limits
from headrace.stream.serve.problems import HANDLERS, Problem
from headrace.stream.serve.viewing import Viewing

TURN_S, BEAT_S = 1.0, 15.0
MOST_STREAMS = 32
LAST_MS = 1 << 53


def routes(viewings: Mapping[str, Viewing]) -> list[Route]:
    """Return what answers for the page and for what it shows of tasks."""
    streams = Streams()

    def asked(request: Request) -> Viewing:
        name = request.path_params["task"]
        if name not in viewings:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"no task {name[:80]!r} to be seen here: {_names(viewings)}"
            )
        return viewings[name]

    async def view(request: Request) -> Response:
        one, moment = asked(request), request.query_params.get("at")
        if moment is None:
            return _told(one.as_json())
        if not moment.isdecimal() or not moment.isascii() or int(moment) > LAST_MS:
            raise Problem(HTTPStatus.BAD_REQUEST, "at: expected milliseconds since 1970")
        async with streams.past:
            try:
                return _told(await asyncio.to_thread(one.at, int(moment)))
            except HeadraceError as error:
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error

    async def stream(request: Request) -> Response:
        one = asked(request)
        if streams.open >= MOST_STREAMS:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MOST_STREAMS} pages are open already",
                headers={"Retry-After": "10"},
            )
        return StreamingResponse(
            streams.events(one, request), media_type="text/event-stream", headers=HEADERS
        )

    async def listed(_: Request) -> Response:
        return _told({"tasks": [*viewings]})

    return [
        *(Route(path, partial(_file, *each)) for path, each in FILES.items()),
        Route("/v1/views", listed),
        Route("/v1/tasks/{task}/view", view),
        Route("/v1/tasks/{task}/view/stream", stream),
    ]


class Streams:
    """Count the pages that are open, and tell each what has changed."""

    def __init__(self) -> None:
        self.open, self.past = 0, asyncio.Semaphore(2)

    async def events(self, one: Viewing, request: Request) -> AsyncIterator[bytes]:
        """Yield server-sent events: first all there is, then what came since, once a second."""
        self.open += 1
        try:
            seen, last_ms, beat_s = None, -float("inf"), time.monotonic()
            while not await request.is_disconnected():
                if seen != (version := one.version):
                    found = one.as_json(last_ms)
                    yield b"event: view\ndata: " + msgspec.json.encode(found) + b"\n\n"
                    if found["points"]:
                        last_ms = found["points"][-1]["t"]
                    seen, beat_s = version, time.monotonic()
                elif time.monotonic() - beat_s > BEAT_S:
                    yield b": still here\n\n"
                    beat_s = time.monotonic()
                await asyncio.sleep(TURN_S)
        finally:
            self.open -= 1


def make_page(viewings: Mapping[str, Viewing], limits: Limits) -> Callable[..., Any]:
    """Make the ASGI application of the page alone; views are followed while it runs."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        for one in viewings.values():
            one.start()
        yield
        for one in viewings.values():
            await asyncio.to_thread(one.stop)

    app = Starlette(routes=routes(viewings), exception_handlers=HANDLERS, lifespan=lifespan)
    return Gate(app, limits)


async def _file(name: str, kind: str, _: Request) -> Response:
    data = (Path(__file__).parent / "page" / name).read_bytes()
    return Response(data, media_type=kind, headers=HEADERS)


def _told(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _names(viewings: Mapping[str, Viewing]) -> str:
    return f"there is {', '.join(viewings)}" if viewings else "there is none"
