"""The HTTP interface: predictions, what they are made by, and how it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headrace.stream.events import Reject
from headrace.stream.serve import pages
from headrace.stream.serve.batcher import Batcher
from headrace.stream.serve.events import MOST_EVENTS, events_of, refusal, said
from headrace.stream.serve.gate import Gate, Limits
from headrace.stream.serve.metrics import Metrics
from headrace.stream.serve.openapi import document
from headrace.stream.serve.predictor import NotExplainedError, NotReleasedError
from headrace.stream.serve.problems import HANDLERS, Problem
from headrace.stream.serve.served import Served, standing
from headrace.stream.serve.viewing import Viewing

BODY_S = 10.0  # that a body may take to come
MOST_EXPLAINED = 256  # events of a request: each takes a hundred times as long as an answer
JSON = "application/json"


def make_app(
    served: Mapping[str, Served],
    limits: Limits,
    viewings: Mapping[str, Viewing],
    stop: Callable[[], bool] = lambda: False,
) -> Callable[..., Any]:
    """Make the ASGI application that serves some tasks, by their names.

    Their releases are followed while it runs.

    Args:
        viewings: what the page shows.
        stop: says when answers that go on for ever are to end.
    """
    encode, metrics = msgspec.json.encode, Metrics(served)

    def told(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
        return Response(encode(value), status.value, media_type=JSON)

    def asked(request: Request) -> Served:
        name = request.path_params["task"]
        if name not in served:
            raise Problem(
                HTTPStatus.NOT_FOUND, f"no task {name[:80]!r} here: there is {', '.join(served)}"
            )
        return served[name]

    async def predict(request: Request) -> Response:
        one = asked(request)
        return await answer(request, one, one.batcher, MOST_EVENTS)

    async def explain(request: Request) -> Response:
        one = asked(request)
        return await answer(request, one, one.explainer, MOST_EXPLAINED)

    async def answer(request: Request, one: Served, batcher: Batcher, most: int) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected the header Content-Type: {JSON}"
            )
        events, several = events_of(await _body(request), most)
        with metrics.timed(one.task.name):
            try:
                answers = await batcher.ask(events)
            except NotReleasedError as error:
                raise _not_ready(one) from error
            except NotExplainedError as error:
                raise Problem(HTTPStatus.CONFLICT, str(error)) from error
        metrics.count(one.task.name, answers)
        if several:
            return told([said(answer) for answer in answers])
        (answer,) = answers
        if isinstance(answer, Reject):
            raise refusal(answer)
        return told(answer)

    async def describe(request: Request) -> Response:
        return told(standing(asked(request)))

    async def describe_all(_: Request) -> Response:
        return told({"tasks": [standing(one) for one in served.values()]})

    async def health(_: Request) -> Response:
        return told({"status": "ok"})

    async def ready(_: Request) -> Response:
        waits = [name for name, one in served.items() if one.predictor.release is None]
        if waits:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"no release yet of {', '.join(waits)}: {_TO_DO}"
            )
        return told({"status": "ready"})

    async def expose(_: Request) -> Response:
        return Response(metrics.text(), media_type=metrics.media)

    async def describe_api(_: Request) -> Response:
        return told(described)

    described = document([one.task for one in served.values()], secured=limits.token is not None)
    app = Starlette(
        routes=[
            Route("/v1/tasks", describe_all),
            Route("/v1/tasks/{task}", describe),
            Route("/v1/tasks/{task}/predict", predict, methods=["POST"]),
            Route("/v1/tasks/{task}/explain", explain, methods=["POST"]),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/metrics", expose),
            Route("/openapi.json", describe_api),
            *pages.routes(viewings, stop),
        ],
        exception_handlers=HANDLERS,
        lifespan=_following(served, viewings),
    )
    return Gate(app, limits)


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.body()
    except TimeoutError as error:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_S:g} s"
        ) from error
    except ClientDisconnect as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the client left") from error


def _following(
    served: Mapping[str, Served], viewings: Mapping[str, Viewing]
) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with pages.followed(viewings.values()):
            for one in served.values():
                one.following.start()
            yield
            for one in served.values():
                await asyncio.to_thread(one.following.stop)
                one.batcher.close()
                one.explainer.close()

    return lifespan


_TO_DO = "`headrace learn` releases its state as it learns"


def _not_ready(one: Served) -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"no release yet of {one.task.name}: {_TO_DO}",
        headers={"Retry-After": "1"},
    )
