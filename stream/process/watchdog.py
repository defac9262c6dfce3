"""End a process whose loop stands still: a hung call must not look like a quiet stream."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

from headrace.stream.process.terminal import note

EXIT_CODE = 70
LOOK_S = 0.5


class Watchdog:
    """Expect a sign of life every `patience_s` seconds while the `with` block runs.

    When none comes the process ends at once with exit code 70, and one line on standard error that
    names what it was last seen doing. Nothing is lost by it: recovery reads the ledger.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen_s, self._doing = time.monotonic(), "starting"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._seen_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def alive(self, doing: str) -> None:
        """Return a sign of life, and say what comes now."""
        self._seen_s, self._doing = time.monotonic(), doing

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            silent_s = time.monotonic() - self._seen_s
            if silent_s > self._patience_s:
                note(
                    f"headrace: no sign of life for {silent_s:.0f} s while {self._doing}; ended, "
                    "start it again: it goes on where the ledger says"
                )
                os._exit(EXIT_CODE)
