"""Spans of micro-batches, for OpenTelemetry: none, unless the program set up where they go.

`opentelemetry-instrument headrace learn …` does, by the environment. A span `micro-batch` holds
`poll`, `decode`, `learn`, `publish` and `commit`; those of one overlap with those of the next, as
XLA works on a micro-batch while the one before is published.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider

from headrace.stream.ledger.ledger import Entry

FLUSH_S = 1.0  # that the end of a learner waits for those who collect spans
_here = threading.local()  # `steps` of the micro-batch that this thread is at


class Step(NamedTuple):
    """Hold a part of what is done with a micro-batch: Unix times in nanoseconds."""

    name: str
    began: int
    ended: int


@contextmanager
def step(name: str) -> Iterator[None]:
    """Take the time of a part of what is done with the micro-batch that this thread is at."""
    steps: list[Step] | None = getattr(_here, "steps", None)
    if steps is None:
        yield
        return
    began = time.time_ns()
    yield
    steps.append(Step(name, began, time.time_ns()))


class Tracing:
    """Collect the steps of each micro-batch, and tell of it when its record is certain.

    Args:
        task: its name, the attribute `headrace.task`; others are `headrace.record`, the number of
            the ledger's record, and `headrace.events`.
    """

    def __init__(self, task: str) -> None:
        self._task, self._tracer = task, trace.get_tracer("headrace")
        self._provider = trace.get_tracer_provider()
        self._is_on = not isinstance(self._provider, ProxyTracerProvider)
        self._published: dict[int, tuple[list[Step], int]] = {}  # by record, with events

    def begin(self) -> list[Step] | None:
        """Begin with another micro-batch; return its steps, None if nobody asks for any."""
        _here.steps = [] if self._is_on else None
        return _here.steps  # type: ignore[no-any-return]

    def learned(self, steps: list[Step] | None) -> None:
        """Note that what was read is learned: XLA began when it was decoded."""
        if steps:
            steps.append(Step("learn", steps[-1].ended, time.time_ns()))

    def published(self, steps: list[Step] | None, record: int, events: int) -> None:
        """Note that a micro-batch is published with a record, which is to become certain."""
        if steps:
            steps.append(Step("publish", steps[-1].ended, time.time_ns()))
            self._published[record] = steps, events

    def on_certain(self, entry: Entry) -> None:
        """Tell of the micro-batch of a record that was committed."""
        record, now = entry.record.seq, time.time_ns()
        if record not in self._published:
            return
        steps, events = self._published.pop(record)
        steps.append(Step("commit", steps[-1].ended, now))
        attributes: dict[str, str | int] = {
            "headrace.task": self._task,
            "headrace.record": record,
            "headrace.events": events,
        }
        whole = self._tracer.start_span(
            "micro-batch", start_time=steps[0].began, attributes=attributes
        )
        within = trace.set_span_in_context(whole)
        for name, began, ended in steps:
            self._tracer.start_span(name, within, start_time=began).end(ended)
        whole.end(now)

    def close(self) -> None:
        """Have what was collected sent now, if that takes no longer than FLUSH_S.

        OpenTelemetry sends it every few seconds, and when the interpreter ends: which a command
        does not wait for.
        """
        if flush := getattr(self._provider, "force_flush", None):
            flushing = threading.Thread(target=flush, name="spans", daemon=True)
            flushing.start()
            flushing.join(FLUSH_S)
