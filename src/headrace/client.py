"""Ask a service for predictions: `headrace serve`, from a program."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, overload
from urllib.parse import quote, urlsplit

from headrace.stream.errors import EventError, ServiceError, UsageError

URL = "http://127.0.0.1:8501"

Event = Mapping[str, Any]


class Client:
    """Ask one service, over one connection that is kept; for one thread.

    Args:
        url: where it is.
        token: that it asks for, if it does.
        timeout_s: that an answer may take.
        context: of TLS: which authorities are trusted, the client's own certificate.

    Raises:
        UsageError: `url` is none, or `token` is none that a header can carry.
    """

    def __init__(
        self,
        url: str = URL,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no address of a service: {error}") from error
        if parts.scheme not in ("http", "https") or not host or not _is_plain(host) or " " in host:
            raise UsageError(f"{url!r} is no address of a service: expected {URL}, say")
        if token is not None and not _is_plain(token):
            raise UsageError("expected a token of printable ASCII")
        self._base = quote(parts.path.rstrip("/"), safe="/%")
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @overload
    def predict(self, task: str, events: Event) -> dict[str, Any]: ...

    @overload
    def predict(self, task: str, events: Sequence[Event]) -> list[dict[str, Any]]: ...

    def predict(
        self, task: str, events: Event | Sequence[Event]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Return what a task's learner would say of an event, or of each of many.

        Args:
            task: its name.
            events: what would stand in its topic; an id may be missing.

        Returns:
            `id`, `prediction`, `step` and `version` of the state, and `probabilities` or an
            `interval`. Of many events one that is refused is `code` and `detail`, in its place.

        Raises:
            EventError: the one event is refused.
            ServiceError: no service there, none that may be asked, or nothing to answer by yet.
            UsageError: no such task there.
        """
        return self._answers(task, "predict", events)

    @overload
    def explain(self, task: str, events: Event) -> dict[str, Any]: ...

    @overload
    def explain(self, task: str, events: Sequence[Event]) -> list[dict[str, Any]]: ...

    def explain(
        self, task: str, events: Event | Sequence[Event]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Return what `predict` does, and what drove each prediction.

        Returns:
            also `explanation`: `base`, and of each of the `inputs` what it adds, which make the
            prediction, or the probability `of` the class; none before there is anything to
            compare with.

        Raises: as `predict`;
            ServiceError: the task does not set `model.explain`.
        """
        return self._answers(task, "explain", events)

    def _answers(
        self, task: str, what: str, events: Event | Sequence[Event]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        path = f"{_path(task)}/{what}"
        found: dict[str, Any] | list[dict[str, Any]] = self._ask("POST", path, events)
        answers = [found] if isinstance(events, Mapping) else found
        if not isinstance(answers, list) or not all(map(_is_answer, answers)):
            raise ServiceError(f"{self._url} is no service of headrace: its answer is none")
        return found

    def describe(self, task: str) -> dict[str, Any]:
        """Return a task and the state that it is served by: see `GET /v1/tasks/{task}`.

        Raises: as `predict`.
        """
        found: dict[str, Any] = self._ask("GET", _path(task))
        return found

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        self._connection.close()

    def _ask(self, method: str, path: str, value: Any = None) -> Any:
        try:
            body = None if value is None else json.dumps(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise EventError("schema", f"JSON cannot hold it: {error}") from error
        for again in (True, False):
            fresh = self._connection.sock is None
            try:
                self._connection.request(method, self._base + path, body, self._headers)
                response = self._connection.getresponse()
                status, data = response.status, response.read()
                break
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                kept = isinstance(error, http.client.RemoteDisconnected | ConnectionError)
                if fresh or not again or not kept:  # else it was closed while it stood idle
                    reason = getattr(error, "strerror", None) or error
                    raise ServiceError(
                        f"no service answers at {self._url} ({reason}): start one with "
                        "`headrace serve`, or give the address of yours (--url)"
                    ) from error
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ServiceError(f"{self._url} is no service of headrace: status {status}") from error
        if status == http.HTTPStatus.OK:
            return found
        told = found if isinstance(found, dict) else {}
        detail = str(told.get("detail", ""))
        if status == http.HTTPStatus.UNPROCESSABLE_ENTITY and "code" in told:
            raise EventError(str(told["code"]), detail)
        if status == http.HTTPStatus.NOT_FOUND:
            raise UsageError(f"{self._url}: {detail}")
        raise ServiceError(f"{self._url}: {detail or f'status {status}'}")


def _path(task: str) -> str:
    return f"/v1/tasks/{quote(task, safe='', errors='replace')}"


def _is_answer(found: object) -> bool:
    return isinstance(found, dict) and bool(found.keys() & {"prediction", "code"})


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
