"""Keep what the page shows of a task up to date, and bring back how it was at a past moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any

from headrace.stream.errors import HeadraceError
from headrace.stream.events import Records
from headrace.stream.formats.codec import Codec
from headrace.stream.formats.scalars import scalar_text
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range, TopicHistory
from headrace.stream.kafka.source import Source
from headrace.stream.serve.view import STAGES, View
from headrace.stream.task import Task

TURN_S, LOOK_S, AGAIN_S = 0.25, 1.0, 2.0
BACK_MS = 15 * 60_000  # of metrics that are shown
NEWEST = {"metrics": 1000, "drift": 300, "predictions": 60, "dead-letter": 300}
MOST = 5_000  # records of a turn; what lies further behind is passed over
PAST_S = 5.0  # that a past moment may take to read


class Viewing:
    """Follow the topics of one task on a thread of its own, from `start` to `stop`."""

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self._task, self._kafka, self._codec = task, kafka, Codec(task)
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._view, self._first_ms = View(task), 0
        self.trouble: str | None = None
        """Why nothing comes, if that is so."""

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._ended.set()
        self._thread.join(5.0)

    @property
    def version(self) -> tuple[int, str | None]:
        """Return what changes with what is shown."""
        return self._view.version, self.trouble

    def as_json(self, after_ms: float = -float("inf")) -> dict[str, Any]:
        """Return what is shown now; of the time line what came after a moment."""
        with self._lock:
            found = self._view.as_json(after_ms)
        return found | self._around()

    def at(self, moment_ms: int) -> dict[str, Any]:
        """Return what was shown at a moment, as far as the topics still hold it.

        Raises:
            HeadraceError: Kafka does not say.
        """
        view, give_up_s = View(self._task), time.monotonic() + PAST_S
        for stage in STAGES:
            for records in self._until(stage, moment_ms, give_up_s):
                view.take(stage, records)
        self._know(view)
        return view.as_json() | self._around() | {"at_ms": moment_ms}

    def _around(self) -> dict[str, Any]:
        return {
            "now_ms": time.time_ns() // 1_000_000,
            "first_ms": self._first_ms or None,
            "trouble": self.trouble,
        }

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with ExitStack() as stack:
                    self._follow(stack)
            except Exception as error:  # whatever a topic holds: it must go on
                self.trouble = str(error) if isinstance(error, HeadraceError) else repr(error)
                self._ended.wait(AGAIN_S)

    def _follow(self, stack: ExitStack) -> None:
        sources, looked_s = {stage: self._newest(stage) for stage in STAGES}, 0.0
        stack.callback(_close, sources)
        self._first_ms = self._first()
        history = stack.enter_context(closing(TopicHistory(self._kafka, self._task.input.topic)))
        while not self._ended.wait(TURN_S):
            for stage, source in sources.items():
                if source.lag() > MOST:
                    source.close()
                    source = sources[stage] = self._newest(stage)
                if records := source.poll(MOST, 0.0):
                    with self._lock:
                        self._view.take(stage, records)
            self.trouble = None
            if time.monotonic() - looked_s > LOOK_S:
                looked_s = time.monotonic()
                with suppress(HeadraceError):
                    self._know(self._view, history)

    def _newest(self, stage: str) -> Source:
        """Read one of the task's topics from shortly before its end."""
        topic = self._task.output(stage)
        with closing(self._kafka.source(topic)) as probe:
            ends, begins = probe.ends(), probe.begins
        start = {at: max(end - NEWEST[stage], begins[at]) for at, end in ends.items()}
        return self._kafka.source(topic, offsets=start, or_later=True, timestamps=True)

    def _first(self) -> int:
        """Return the time of the oldest record of metrics, 0 without any."""
        topic = self._task.output("metrics")
        with closing(self._kafka.source(topic, timestamps=True)) as source:
            records = source.poll(1, 1.0)
        return records.timestamps_ms[0] if records else 0

    def _until(self, stage: str, moment_ms: int, give_up_s: float) -> Iterator[Records]:
        """Yield the newest records of a topic that were there at a moment."""
        topic = self._task.output(stage)
        with closing(self._kafka.source(topic)) as probe:
            ends = probe.ends() | probe.offsets_for_time(moment_ms + 1)
            begins = probe.begins
        start = {at: max(end - NEWEST[stage], begins[at]) for at, end in ends.items()}
        with closing(
            self._kafka.source(topic, offsets=start, or_later=True, timestamps=True)
        ) as source:
            while any(source.position[at] < end for at, end in ends.items()):
                if time.monotonic() > give_up_s:
                    break
                if records := source.poll(MOST, 0.1):
                    yield _only(records, moment_ms)

    def _know(self, view: View, history: TopicHistory | None = None) -> None:
        """Look up the events of the predictions that are shown: their labels, when they came."""
        with self._lock:
            asked = sorted(view.choose())
        own = history or TopicHistory(self._kafka, self._task.input.topic)
        try:
            records = own.read([Range(at, offset, offset + 1) for at, offset in asked])
        finally:
            if not history:
                own.close()
        places = zip(records.partitions, records.offsets, strict=True)
        told = zip(self._labels(records.values), records.timestamps_ms, strict=True)
        with self._lock:
            view.know(dict(zip(places, told, strict=True)))

    def _labels(self, values: Sequence[bytes | None]) -> list[Any]:
        """Return the label in each event, if it is that of the event's own prediction."""
        if self._task.target.horizon or self._task.labels:
            return [None] * len(values)
        columns, refused = self._codec.decode_all(list(values))
        told = iter(columns[1])
        return [None if at in refused else _label(next(told)) for at in range(len(values))]


def _label(label: Any) -> Any:
    if label is None or isinstance(label, float):
        return label
    return scalar_text(label)


def _only(records: Records, moment_ms: int) -> Records:
    """Leave out what came after a moment."""
    kept = [at for at, time_ms in enumerate(records.timestamps_ms) if time_ms <= moment_ms]
    columns: list[Any] = [[column[at] for at in kept] for column in records[1:]]
    return Records(records.topic, *columns)


def _close(sources: dict[str, Source]) -> None:
    for source in sources.values():
        source.close()
