"""Follow the topics of tasks in a thread, and keep an account of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from headrace.demo.tally import Tally, TaskStatus
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.source import Source
from headrace.stream.task import Task

MOST = 5_000
PAUSE_S = 0.004
SLOW_S = 0.2

Followed = tuple[Source, Callable[[Records, float], None]]


class Monitor:
    """Read all topics of tasks, in a thread of its own, from their beginning.

    Raises:
        BrokerError: no broker, or a topic is missing.
    """

    def __init__(self, tasks: Mapping[str, Task], kafka: KafkaConnection) -> None:
        self.error: Exception | None = None
        self.first_prediction_s: float | None = None  # of the monotonic clock
        self._tallies = [Tally(name, task) for name, task in tasks.items()]
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._quick: list[Followed] = []
        self._slow: list[Followed] = []
        for tally in self._tallies:
            task, output = tally.task, tally.task.output
            raw = kafka.source(task.input.topic, timestamps=True)
            self._quick.append((raw, tally.sent))
            self._quick.append((kafka.source(output("predictions")), tally.predicted))
            for stage, take in (
                ("dead-letter", tally.refused),
                ("metrics", tally.measured),
                ("drift", tally.alarmed),
            ):
                self._slow.append((kafka.source(output(stage)), take))
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def statuses(self) -> list[TaskStatus]:
        """Return where each task stands."""
        with self._lock:
            return [tally.status() for tally in self._tallies]

    @property
    def settled(self) -> bool:
        """Return whether every event of every task has its answer."""
        with self._lock:
            return all(tally.settled for tally in self._tallies)

    @property
    def scored(self) -> bool:
        """Return whether every prediction is in the metrics that were read."""
        return all(tally.scored == tally.predictions for tally in self._tallies)

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._thread.join()

    def _follow(self) -> None:
        slow_s = 0.0
        try:
            while not self._closing.is_set():
                found = self._take(self._quick)
                if time.monotonic() - slow_s >= SLOW_S:
                    slow_s = time.monotonic()
                    self._take(self._slow)
                if not found:
                    self._closing.wait(PAUSE_S)
        except Exception as error:
            self.error = error
        finally:
            for source, _ in (*self._quick, *self._slow):
                source.close()

    def _take(self, followed: Sequence[Followed]) -> bool:
        found = False
        for source, take in followed:
            if records := source.poll(MOST, 0):
                with self._lock:
                    take(records, time.time() * 1000)
                found = True
        if found and self.first_prediction_s is None and any(t.predictions for t in self._tallies):
            self.first_prediction_s = time.monotonic()
        return found
