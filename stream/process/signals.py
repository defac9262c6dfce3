"""The signals that ask a command to end, and Ctrl-C in a program."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)

ENDING = (signal.SIGINT, signal.SIGTERM, *_HANGUP)
"""Ctrl-C, what supervisors send, and a terminal that goes away, but under `nohup`."""


@contextmanager
def interrupted_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: what must not be done by half."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield  # nobody is interrupted here
        return
    came: list[tuple[Any, Any]] = []
    signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])
