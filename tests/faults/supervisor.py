"""Keep one learner of a task running, as systemd would: start it again when it has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection
from types import TracebackType
from typing import Any

from tests.faults.case import Case
from tests.faults.forge import Forged


class Supervisor:
    """Start a learner, and another one when it ends, until the `with` block does.

    Args:
        again: exit codes after which it is started again; default: all.
        pause_s: how long it waits before.
    """

    def __init__(
        self,
        case: Case,
        *options: str,
        again: Collection[int] | None = None,
        pause_s: float = 0.0,
        **more: Any,
    ) -> None:
        self._case, self._options, self._more = case, options, more
        self._again, self._pause_s = again, pause_s
        self.codes: list[int] = []  # of those that ended by themselves
        self.errors: list[str] = []
        self._stop = threading.Event()
        self.learner = self._start()
        self._thread = threading.Thread(target=self._tend, name="supervisor")

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.learner.send(signal.SIGTERM)
        if not self.learner.dead.wait(60):
            self.learner.kill()

    @property
    def running(self) -> bool:
        """Return whether there is a learner, or will be again."""
        return self._thread.is_alive()

    def _start(self) -> Forged:
        return self._case.learn(*self._options, **self._more)

    def _tend(self) -> None:
        while not self._stop.is_set():
            if self.learner.dead.wait(0.2) and not self._stop.is_set():
                self.codes.append(self.learner.wait())
                self.errors.append(self.learner.errors[-2000:])
                if self._again is not None and self.codes[-1] not in self._again:
                    return
                self._stop.wait(self._pause_s)
                if not self._stop.is_set():
                    self.learner = self._start()
