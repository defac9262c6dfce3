"""The page for people: its files, and what it shows, live over server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headrace.stream.errors import HeadraceError
from headrace.stream.serve.assets import FILES, HEADERS, LAST_MS
from headrace.stream.serve.gate import Gate, Limits
from headrace.stream.serve.problems import HANDLERS, Problem
from headrace.stream.serve.viewing import Viewing

TURN_S, LEAST_S, BEAT_S = 0.2, 0.5, 15.0
FRESH_S = 10.0  # that the first look may take
MOST_STREAMS, MOST_PAST = 32, 2


def routes(viewings: Mapping[str, Viewing], stop: Callable[[], bool]) -> list[Route]:
    """Return what answers for the page and for what it shows of tasks.

    Args:
        stop: says when streams are to end.
    """
    streams, past = Streams(stop), asyncio.Semaphore(MOST_PAST)

    def asked(request: Request) -> Viewing:
        name = request.path_params["task"]
        if name not in viewings:
            here = ", ".join(viewings) or "none"
            raise Problem(HTTPStatus.NOT_FOUND, f"no task {name[:80]!r} is shown here: {here}")
        return viewings[name]

    async def view(request: Request) -> Response:
        one, moment = asked(request), request.query_params.get("at")
        if moment is None:
            await _freshen(one)
            return _told(one.as_json())
        if not moment.isdecimal() or not moment.isascii() or int(moment) > LAST_MS:
            raise Problem(HTTPStatus.BAD_REQUEST, "at: expected milliseconds since 1970")
        async with past:
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
            streams.events(one),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    async def listed(_: Request) -> Response:
        await asyncio.gather(*map(_freshen, viewings.values()))
        return _told({"views": [one.summary() for one in viewings.values()]})

    return [
        *(Route(path, partial(_file, *each)) for path, each in FILES.items()),
        Route("/v1/views", listed),
        Route("/v1/tasks/{task}/view", view),
        Route("/v1/tasks/{task}/stream", stream),
    ]


class Streams:
    """Tell each page that is open what has changed.

    A page that takes nothing is told nothing more, and is dropped by the server. What it missed it
    is told at once: nothing is queued.

    Attributes:
        open: how many there are.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.open, self._stop = 0, stop

    async def events(self, one: Viewing) -> AsyncIterator[bytes]:
        """Yield server-sent events: first all there is, then what came since."""
        self.open += 1
        try:
            seen, last_ms, said_s = None, -float("inf"), 0.0
            await _freshen(one)
            while not self._stop():
                version, passed_s = one.look(), time.monotonic() - said_s
                if seen != version and passed_s > LEAST_S:
                    found = one.as_json(last_ms)
                    if found["points"]:
                        last_ms = found["points"][-1]["t"]
                    seen, said_s = version, time.monotonic()
                    yield b"event: view\ndata: " + msgspec.json.encode(found) + b"\n\n"
                elif passed_s > BEAT_S:
                    said_s = time.monotonic()
                    yield b": still here\n\n"
                await asyncio.sleep(TURN_S)
        finally:
            self.open -= 1


def make_page(
    viewings: Mapping[str, Viewing], limits: Limits, stop: Callable[[], bool]
) -> Callable[..., Any]:
    """Make the ASGI application of the page alone; tasks are followed while it runs.

    Args:
        stop: says when streams are to end.
    """

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with followed(viewings.values()):
            yield

    app = Starlette(routes=routes(viewings, stop), exception_handlers=HANDLERS, lifespan=lifespan)
    return Gate(app, limits)


@asynccontextmanager
async def followed(viewings: Collection[Viewing]) -> AsyncIterator[None]:
    """Follow what pages show, for the length of a `with` block."""
    for one in viewings:
        one.start()
    yield
    await asyncio.gather(*(asyncio.to_thread(one.stop) for one in viewings))


async def _freshen(one: Viewing) -> None:
    """Wait until what is shown is as the topics are, if that is soon."""
    give_up_s = time.monotonic() + FRESH_S
    one.look()
    while not (one.fresh or one.trouble) and time.monotonic() < give_up_s:
        await asyncio.sleep(TURN_S / 4)


async def _file(name: str, kind: str, _: Request) -> Response:
    return Response(_asset(name), media_type=kind, headers=HEADERS)


@cache
def _asset(name: str) -> bytes:
    return files(__package__).joinpath("page", name).read_bytes()


def _told(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
