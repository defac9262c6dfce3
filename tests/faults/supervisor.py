"""Keep one learner of a task running, as systemd would: start it again when it has ended."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

from case import Case
from forge import Forged


class Supervisor:
    """Start a learner, and another one when it ends, until the `with` block does."""

    def __init__(self, case: Case, *options: str, **more: Any) -> None:
        self._case, self._options, self._more = case, options, more
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

    def _start(self) -> Forged:
        return self._case.learn(*self._options, **self._more)

    def _tend(self) -> None:
        while not self._stop.is_set():
            if self.learner.dead.wait(0.2) and not self._stop.is_set():
                self.codes.append(self.learner.wait())
                self.errors.append(self.learner.errors[-2000:])
                self.learner = self._start()
