"""Directories of this user's own, and locks in them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs


def cache_dir(name: str) -> Path:
    """Return where this user keeps what can be had again."""
    return platformdirs.user_cache_path("headrace") / name


def data_dir(name: str) -> Path:
    """Return where this user keeps what cannot be had again."""
    return platformdirs.user_data_path("headrace") / name


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
