"""What every store refuses and how it says so: one line, the file, the cause, the way out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.stream.errors import HeadraceError, RecoveryError

READ_BYTES = 64 << 20
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
        hint = _HINTS.get(getattr(error, "errno", None) or 0, "check that it can be reached")
        raise kind(f"cannot {doing} {where}: {why(error)}; {hint}") from error


def why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return (str(text).splitlines() or [""])[0].rstrip(".") or type(error).__name__
