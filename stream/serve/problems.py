"""Errors as problem details: RFC 9457, `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA = "application/problem+json"


class Problem(Exception):
    """Refuse a request; it ends as problem details.

    Args:
        status: of HTTP.
        detail: what is wrong and what is expected, for a person.
        code: of a dead letter, where the event is what is wrong.
        headers: to be sent with it.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.code = status, detail, code
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, Any]:
        """Return it as its response says it."""
        told = {"title": self.status.phrase, "status": self.status.value, "detail": self.detail}
        return told | ({"code": self.code} if self.code else {})

    def response(self) -> Response:
        """Return the response that says it."""
        body = msgspec.json.encode(self.as_json())
        return Response(body, self.status.value, self.headers, media_type=MEDIA)


MISTAKE = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a mistake of ours; see its log")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return error.response()


async def _plain(_: Request, error: Exception) -> Response:
    """Answer what Starlette refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    return Problem(status, status.description or status.phrase, headers=error.headers).response()


async def _failed(_: Request, error: Exception) -> Response:
    return MISTAKE.response()


HANDLERS: dict[Any, Any] = {Problem: _problem, HTTPException: _plain, Exception: _failed}
"""What answers for errors of an application of Starlette."""
