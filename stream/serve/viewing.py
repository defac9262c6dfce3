"""Keep what the page shows of a task up to date, and bring back how it was at a past moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from typing import Any

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.source import Source
from headrace.stream.serve.past import PastTopic
from headrace.stream.serve.truths import Events, Truths
from headrace.stream.serve.view import STAGES, View
from headrace.stream.task import Task

TURN_S, LOOK_S, AGAIN_S = 0.25, 1.0, 2.0
SPAN_S = 60.0  # from one look at where the topics begin to the next
IDLE_S = 30.0  # after which nobody looks any more, and nothing is read
NEWEST = {"metrics": 1_000, "drift": 300, "predictions": 100, "dead-letter": 300}  # offsets
MOST = 5_000  # records of a turn; what lies further behind is passed over
PAST_S = 5.0  # that a past moment may take to read


class Viewing:
    """Follow the topics of one task on a thread of its own while anybody looks.

    Args:
        archive: where `headrace archive` keeps topics, for moments that Kafka holds no more.
    """

    def __init__(self, task: Task, kafka: KafkaConnection, archive: str | None = None) -> None:
        self._task, self._kafka, self._archive = task, kafka, archive
        self._ended, self._wanted = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._view, self._first_ms = View(task), 0
        self._looked_s, self._turn = 0.0, 0
        self.trouble = ""
        """Why nothing comes, if that is so."""
        self.fresh = False
        """Whether what is shown is as the topics are."""

    def start(self) -> None:
        """Be ready to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._ended.set()
        self._wanted.set()
        self._thread.join(5.0)

    def look(self) -> tuple[Any, ...]:
        """Return what changes with what is shown; whoever calls it keeps this going."""
        self._looked_s = time.monotonic()
        self._wanted.set()
        return self._turn, self.trouble, self.fresh

    def as_json(self, after_ms: float = -float("inf")) -> dict[str, Any]:
        """Return what is shown now; of the time line what came after a moment."""
        return self._view.as_json(after_ms) | self._around()

    def summary(self) -> dict[str, Any]:
        """Return whether it is right, and what may be the matter."""
        return self._view.summary() | self._around()

    def at(self, moment_ms: int) -> dict[str, Any]:
        """Return what was shown at a moment, as far as topics or archives hold it.

        Raises:
            HeadraceError: Kafka does not answer, or an archive is damaged.
        """
        view, give_up_s = View(self._task), time.monotonic() + PAST_S
        for stage in STAGES:
            with closing(self._topic(stage)) as topic:
                view.take(stage, topic.newest(moment_ms, NEWEST[stage], give_up_s))
        with closing(self._events()) as events:
            Truths(self._task, events).tell(view)
        return view.as_json() | self._around() | {"at_ms": moment_ms}

    def _around(self) -> dict[str, Any]:
        return {
            "now_ms": time.time_ns() // 1_000_000,
            "first_ms": self._first_ms or None,
            "trouble": self.trouble or None,
            "fresh": self.fresh,
        }

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wanted.wait()
            try:
                with ExitStack() as stack:
                    self._follow(stack)
            except Exception as error:  # whatever a topic holds: it must go on
                self.trouble = str(error) if isinstance(error, HeadraceError) else repr(error)
                self._ended.wait(AGAIN_S)
            self.fresh = False

    def _follow(self, stack: ExitStack) -> None:
        """Follow until nobody looks."""
        sources = dict[str, Source]()
        stack.callback(_close, sources)
        view, events = View(self._task), stack.enter_context(closing(self._events()))
        truths = Truths(self._task, events)
        for stage in STAGES:
            sources[stage] = self._newest(stage)
            self._catch_up(view, stage, sources[stage])
        told_s = span_s = 0.0
        while not self._ended.is_set():
            before = view.version
            for stage in ("metrics", "drift", "dead-letter"):
                self._read(view, stage, sources)
            if time.monotonic() - told_s > LOOK_S:
                told_s = time.monotonic()
                self._read(view, "predictions", sources)
                with suppress(HeadraceError):  # what is shown does not wait for it
                    truths.tell(view)
            if time.monotonic() - span_s > SPAN_S:
                span_s = time.monotonic()
                self._first_ms = self._oldest_ms()
            if self._view is not view or view.version != before:
                self._view, self._turn = view, self._turn + 1
            self.trouble, self.fresh = "", True
            if time.monotonic() - self._looked_s > IDLE_S:
                self._wanted.clear()
                return
            self._ended.wait(TURN_S)

    def _read(self, view: View, stage: str, sources: dict[str, Source]) -> None:
        """Take what came on a topic, or the newest of it if that is too much."""
        if sources[stage].lag() > MOST:
            sources[stage].close()
            sources[stage] = self._newest(stage)
        if records := sources[stage].poll(MOST, 0.0):
            view.take(stage, records)

    def _catch_up(self, view: View, stage: str, source: Source) -> None:
        """Read up to what was the end."""
        ends = source.ends()
        while not self._ended.is_set() and _behind(source, ends):
            if records := source.poll(MOST, 0.2):
                view.take(stage, records)

    def _newest(self, stage: str) -> Source:
        """Read one of the task's topics from shortly before its end."""
        topic = self._task.output(stage)
        with closing(self._kafka.source(topic)) as probe:
            ends, begins = probe.ends(), probe.begins
        start = {at: max(end - NEWEST[stage], begins[at]) for at, end in ends.items()}
        return self._kafka.source(topic, offsets=start, or_later=True, timestamps=True)

    def _oldest_ms(self) -> int:
        """Return since when moments can be shown; 0: none can."""
        with closing(self._topic("metrics")) as topic:
            return topic.first_ms() or 0

    def _topic(self, stage: str) -> PastTopic:
        return PastTopic(self._kafka, self._task.output(stage), self._archive)

    def _events(self) -> Events:
        return Events(self._kafka, self._task.input.topic, self._archive)


def _behind(source: Source, ends: Mapping[int, int]) -> bool:
    return any(source.position[at] < end for at, end in ends.items())


def _close(sources: Mapping[str, Source]) -> None:
    for source in sources.values():
        source.close()
