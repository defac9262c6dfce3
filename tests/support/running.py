"""A learner in a thread of its own, while a test does things to its Kafka."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.service.learn import learn
from headrace.stream.service.progress import Progress
from headrace.stream.service.start import Safety
from headrace.stream.task import Task


class Running:
    """Run a learner until the `with` block ends; `error` is what ended it before."""

    def __init__(
        self, task: Task, kafka: KafkaConnection, origin: Any = "events", **safety: Any
    ) -> None:
        self.error: HeadraceError | None = None
        self.last: Progress | None = None
        self.notes: list[str] = []
        self._stop, self._ready = threading.Event(), threading.Event()
        place = safety.pop("state", os.environ["HEADRACE_STATE"])
        self._release_s = safety.pop("release_s", 0.0)
        self._arguments = (task, kafka, origin, Safety(place, **safety))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Running:
        self._thread.start()
        while not self._ready.wait(0.05):
            assert self._thread.is_alive(), self.error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, done: Callable[[Progress], bool], timeout_s: float = 60.0) -> None:
        """Wait until the learner has come so far."""
        give_up_s = time.monotonic() + timeout_s
        while not (self.last and done(self.last)):
            assert self.error is None, self.error
            assert time.monotonic() < give_up_s, self.last
            time.sleep(0.02)

    def wait_error(self, timeout_s: float = 60.0) -> HeadraceError:
        """Wait until it has ended by itself."""
        self._thread.join(timeout_s)
        assert self.error is not None
        return self.error

    def _run(self) -> None:
        task, kafka, origin, safety = self._arguments

        def on_progress(progress: Progress) -> None:
            self.last = progress

        try:
            learn(
                task,
                kafka,
                origin=origin,
                release_s=self._release_s,
                safety=safety,
                micro_batch=64,
                stop=self._stop.is_set,
                on_ready=self._ready.set,
                on_progress=on_progress,
                on_note=self.notes.append,
            )
        except HeadraceError as error:
            self.error = error
