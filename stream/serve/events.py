"""Requests taken apart into events, and what stands for a refused one: by HTTP and by Kafka."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from headrace.stream.events import Reject
from headrace.stream.serve.problems import Problem

MOST_EVENTS = 4096  # of a request


def events_of(body: bytes, most: int = MOST_EVENTS) -> tuple[list[bytes], bool]:
    """Take the events of a request apart, `most` at most, and say whether they came as an array.

    Raises:
        Problem: it is neither a JSON object nor an array.
    """
    body = body.strip(b" \t\r\n")
    if body[:1] != b"[":
        if body[:1] != b"{":
            raise Problem(
                HTTPStatus.BAD_REQUEST, "expected an event as a JSON object, or an array of events"
            )
        return [body], False
    try:
        found = list(map(bytes, msgspec.json.decode(body, type=list[msgspec.Raw])))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"no JSON: {error}") from error
    if len(found) > most:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{len(found)} events, expected {most} at most",
        )
    return found, True


def refusal(reject: Reject) -> Problem:
    """Return the problem details of an event that is refused."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, reject.detail, code=reject.code)


def said(answer: Any) -> Any:
    """Return what stands for an answer among others."""
    return refusal(answer).as_json() if isinstance(answer, Reject) else answer
