"""Directories of this user's own, and locks in them."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir(name: str) -> Path:
    """Return where this user keeps what can be had again."""
    return _own("XDG_CACHE_HOME", mac="Library/Caches", other=".cache") / name


def data_dir(name: str) -> Path:
    """Return where this user keeps what cannot be had again."""
    return _own("XDG_DATA_HOME", mac="Library/Application Support", other=".local/share") / name


def _own(variable: str, *, mac: str, other: str) -> Path:
    root = os.environ.get(variable)
    base = Path(root) if root else Path.home() / (mac if sys.platform == "darwin" else other)
    return base / "headrace"


@contextmanager
def hold_lock(path: Path, *, wait_s: float) -> Iterator[int]:
    """Hold an exclusive lock on `path`, and give its descriptor.

    A child that inherits the descriptor keeps the lock when this process lets go of it.

    Raises:
        TimeoutError: another process held it for `wait_s` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        give_up = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise TimeoutError(f"{path} is locked") from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)
