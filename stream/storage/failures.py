"""What every store refuses and how it says so: one line, the file, the cause, the way out.

The drivers of object stores raise what they like for one and the same fault. `failure` tells which
it is by the HTTP status, the names of the classes and the server's words, so that nothing has to be
imported that is not in use.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from headrace.stream.errors import HeadraceError, RecoveryError

READ_BYTES = 64 << 20
PATIENCE_S = 20.0  # after which a fault that passes is told; a driver's own attempts count
PAUSE_S, LONGEST_PAUSE_S = 0.2, 4.0  # between attempts; it doubles

Data = bytes | Sequence[memoryview]
"""What a file is to hold: in pieces where a copy of all would be large."""
Result = TypeVar("Result")
_HINTS = {
    errno.ENOSPC: "free some space, or give another place",
    errno.EDQUOT: "free some space, or give another place",
    errno.EACCES: "check who may use it",
    errno.EPERM: "check who may use it",
    errno.ELOOP: "it is a symbolic link; put the file itself there",
}


def parts(name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{name!r} is no name of a file: expected parts joined by '/'")
    return parts


def is_temporary(name: str) -> bool:
    """Return whether it is a file that a writer has not finished."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(".tmp")


def check_size(path: str, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise RecoveryError(
            f"{path} has {size} bytes, more than the {most_bytes} that it may have: remove it"
        )


_THROTTLED, _BROKEN = (429, 503), (408, 500, 502, 504)
_CUT = frozenset(
    (
        "ConnectionError",  # Python's, requests' and botocore's
        "TimeoutError",
        "Timeout",
        "ChunkedEncodingError",  # requests
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "HTTPClientError",  # botocore
        "ResponseParserError",
        "ServiceRequestError",  # azure
        "ServiceResponseError",
        "IncompleteReadError",
        "IncompleteRead",  # http.client
        "RemoteDisconnected",
        "ChecksumError",  # gcsfs
        "TransportError",  # google.auth
    )
)  # names of classes of which an error is when a connection fails
_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_NOBODY = {
    "NoCredentialsError": _AWS,  # botocore
    "PartialCredentialsError": _AWS,
    "DefaultCredentialsError": "GOOGLE_APPLICATION_CREDENTIALS",  # google.auth
    "CredentialUnavailableError": "AZURE_STORAGE_CONNECTION_STRING",  # azure.identity
}  # what to give, by the class of which an error is when a driver finds no credentials
_EXPIRED = re.compile(
    r"(?i)^(?!.*certificate).*(\bexpired\b|not valid in the specified time|lifetime validation)"
)
_NO_TIME = re.compile(r"(?i)slow ?down|reduce your request|throttl|too many|\bbusy\b")
_QUERY = re.compile(r"\?[^\s'\"()<>]*=[^\s'\"()<>]*")  # of a URL: it may hold a token
_USER = re.compile(r"//[^/@\s]+@")


class Failure(NamedTuple):
    """Say what went wrong, what helps, and what sort it is."""

    reason: str
    hint: str
    passes: bool = False  # it may be gone when it is tried again
    refused: bool = False  # for the credentials, which may have been renewed


def failure(error: Exception) -> Failure:
    """Return what an error of a driver means."""
    status = next((code for each in _chain(error) if (code := _status(each))), 0)
    if status in (0, 400, 401, 403):
        lines = (line for each in _chain(error) for line in str(each).splitlines())
        if expired := next(filter(_EXPIRED.match, lines), None):
            reason = f"credentials expired: {_plain(expired)}"
            return Failure(reason, "renew them, where the driver finds them", refused=True)
    reason = why(error)
    if status in _THROTTLED:
        words = "throttled" if status == 429 or _NO_TIME.search(reason) else "unavailable"
        return Failure(f"{words} (HTTP {status}): {reason}", "try again later", passes=True)
    if status in _BROKEN:
        reason = f"the server failed (HTTP {status}): {reason}"
        return Failure(reason, "try again later", passes=True)
    if status in (401, 403):  # an answer to HEAD says no more
        hint = "check the credentials: they may be wrong, or have expired"
        return Failure(f"refused (HTTP {status}): {reason}", hint, refused=True)
    kinds = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
    if nobody := next(iter(_NOBODY.keys() & kinds), None):
        return Failure(reason, f"give some: {_NOBODY[nobody]}")
    cut = bool(_CUT & kinds)
    hint = _HINTS.get(getattr(error, "errno", None) or 0, "check that it can be reached")
    return Failure(reason, hint, passes=not status and cut and "CERTIFICATE" not in str(error))


def mistaken(error: FileNotFoundError) -> Exception | None:
    """Return what a driver took for a file that is not there, though no server said so."""
    cause = error.__cause__
    if not isinstance(cause, Exception):
        return None
    return None if any(_status(each) in (404, 410) for each in _chain(cause)) else cause


def patiently(call: Callable[[], Result], patience_s: float | None = None) -> Result:
    """Return what `call` does; repeat it for PATIENCE_S while what it raises may pass.

    Args:
        patience_s: seconds, in place of PATIENCE_S.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    give_up_s, pause_s = time.monotonic() + patience_s, PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if isinstance(error, HeadraceError) or not failure(error).passes:
                raise
            if time.monotonic() + pause_s > give_up_s:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


@contextmanager
def one_line(
    doing: str, where: str, *passed: type[Exception], kind: type[RecoveryError] = RecoveryError
) -> Iterator[None]:
    """Turn what a driver raises into an error of a kind that says what failed, where and why."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (HeadraceError, *passed)):
            raise
        found = failure(error)
        raise kind(f"cannot {doing} {where}: {found.reason}; {found.hint}") from error


def why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return _plain((str(text).splitlines() or [""])[0]) or type(error).__name__


def _plain(text: str) -> str:
    """Return a line as it may be shown: short, and without what a URL may keep secret."""
    text = _USER.sub("//", _QUERY.sub("", text))
    return "".join(c if c.isprintable() else "?" for c in text[:300]).strip().rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error and those that it came of, ten at most."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """Return the HTTP status that a driver's error carries; 0 without one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    for holder, name in (
        (response, "status_code"),  # requests
        (error, "status_code"),  # azure
        (error, "status"),  # aiohttp, which deprecates its code
        (error, "code"),  # gcsfs, perhaps as text
    ):
        if str(found := getattr(holder, name, None)).isdecimal():
            return int(str(found))
    return 403 if str(error).startswith("Forbidden") else 0  # gcsfs
