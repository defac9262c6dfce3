"""Questions and answers over Kafka, for those who have no HTTP: `<task>.requests`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.inbox import TOO_LARGE, Inbox, Message
from headrace.stream.kafka.sink import Sink
from headrace.stream.serve.events import events_of, said
from headrace.stream.serve.predictor import Predictor
from headrace.stream.serve.problems import MISTAKE, Problem

REPLY_TOPIC, CORRELATION = "reply-topic", "correlation-id"
MOST = 64  # requests that are answered at once
MOST_KNOWN, KNOWN_S = 1000, 10.0  # topics for answers that are remembered, and for how long
WAIT_S, AGAIN_S = 0.2, 1.0
DELETED_S = 1.0  # that a topic for answers is waited for which was there and is not


class _Asked(NamedTuple):
    message: Message
    topic: str
    events: list[bytes]
    several: bool
    problem: Problem | None


class Requests:
    """Answer the requests of a topic on a thread, as one of a group, from `start` to `stop`.

    A request is an event or an array of events, as for HTTP; its header `reply-topic` names
    `<task>.replies`, or a topic whose name begins so and goes on with a dot. The answer goes there,
    with the request's key and its header `correlation-id`. Each is answered once at least.

    Args:
        on_note: called with a line for a person, from that thread.
    """

    def __init__(
        self, predictor: Predictor, kafka: KafkaConnection, on_note: Callable[[str], None]
    ) -> None:
        task = predictor.task
        self._predictor, self._kafka, self._on_note = predictor, kafka, on_note
        self._topic, self._replies = task.output("requests"), task.output("replies")
        self._group, self._told = f"{task.name}.serve", ""
        self._encode = msgspec.json.Encoder().encode
        self._known: dict[
            str, tuple[bool, float]
        ] = {}  # topics, and until when that is taken for true
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self.dropped = 0
        """How many requests could not be answered, as they named no topic for it."""

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what was taken, and no more."""
        self._ended.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                inbox = Inbox(self._kafka, self._topic, self._group)
                try:
                    sink = self._kafka.sink(batched=False, unknown_s=DELETED_S)
                    while not self._ended.is_set():
                        self._turn(inbox, sink)
                finally:
                    inbox.close()
            except Exception as error:  # whatever a stranger's request does: it must go on
                told = str(error) if isinstance(error, HeadraceError) else repr(error)
                self._tell(told)
                self._ended.wait(AGAIN_S)

    def _turn(self, inbox: Inbox, sink: Sink) -> None:
        messages = inbox.take(MOST, WAIT_S)
        while messages and self._predictor.release is None:
            if self._ended.wait(WAIT_S):
                return  # they come again, to the next service
        if not messages:
            return
        asked = [each for each in map(self._asked, messages) if each]
        for each, found in self._answered(asked):
            if each.problem:
                self._reply(sink, each, each.problem.as_json())
            else:
                self._reply(sink, each, found if each.several else found[0])
        sink.flush()
        inbox.commit()

    def _answered(self, asked: list[_Asked]) -> list[tuple[_Asked, list[Any]]]:
        """Answer requests together; each alone if that fails, so that one spoils no other."""
        try:
            answers = iter(self._predictor.answer([raw for each in asked for raw in each.events]))
        except Exception as error:  # a mistake of ours; to try again would not end
            if len(asked) > 1:
                return [pair for each in asked for pair in self._answered([each])]
            self._tell(f"a request of {self._topic} is answered with an error: {error!r}")
            return [(each._replace(problem=MISTAKE), []) for each in asked]
        return [(each, [said(next(answers)) for _ in each.events]) for each in asked]

    def _asked(self, message: Message) -> _Asked | None:
        topic = (message.headers.get(REPLY_TOPIC) or b"").decode(errors="replace")
        ours = topic == self._replies or topic.startswith(f"{self._replies}.")
        if not ours or not self._exists(topic):
            self.dropped += 1
            expected = "a topic that exists" if ours else f"{self._replies}, or {self._replies}.…"
            self._tell(
                f"a request of {self._topic} is not answered: its header {REPLY_TOPIC} is "
                f"{topic[:80]!r}, expected {expected}"
            )
            return None
        try:
            events, several = events_of(message.value or b"")
            return _Asked(message, topic, events, several, None)
        except Problem as problem:
            return _Asked(message, topic, [], several=False, problem=problem)

    def _exists(self, topic: str) -> bool:
        """Return whether a topic exists, as of a short while ago: a client would wait for it."""
        there, until_s = self._known.get(topic, (False, 0.0))
        if until_s < time.monotonic():
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            there = bool(self._kafka.describe_existing([topic]))
            self._known[topic] = there, time.monotonic() + KNOWN_S
        return there

    def _reply(self, sink: Sink, asked: _Asked, body: Any) -> None:
        headers: list[tuple[str, str | bytes | None]] = []
        if (correlation := asked.message.headers.get(CORRELATION)) is not None:
            headers.append((CORRELATION, correlation))
        try:
            sink.producer.produce(
                asked.topic,
                self._encode(body),
                asked.message.key,
                headers=headers,
                on_delivery=partial(self._delivered, sink, asked),
            )
        except BufferError:
            sink.flush()
            self._reply(sink, asked, body)

    def _delivered(self, sink: Sink, asked: _Asked, error: Any, message: Any) -> None:
        if error is None:
            return
        self._known.pop(asked.topic, None)  # it may be gone
        self._tell(f"an answer to {message.topic()} did not arrive: {error.str()}")
        if error.code() == TOO_LARGE and not asked.problem:
            problem = Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the answer has {len(message.value())} bytes, more than {asked.topic} takes: "
                "ask about fewer events",
            )
            self._reply(sink, asked._replace(problem=problem), problem.as_json())

    def _tell(self, line: str) -> None:
        """Tell a person, but not the same thing again and again."""
        if line != self._told:
            self._told = line
            self._on_note(line)
