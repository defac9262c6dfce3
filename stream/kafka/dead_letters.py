"""Refused events: shown with their reason, and sent to their topic once more on request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import msgspec

from headrace.stream.errors import RecoveryError
from headrace.stream.events import DeadLetter, Reject, dead_letter
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range, TopicHistory
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task

BATCH = 1000
WAIT_S = 0.2
_CODED = "base64:"


class Mailbox:
    """Read a task's dead letters, and send some of them back where they came from."""

    def __init__(self, task: Task, kafka: KafkaConnection) -> None:
        self._task, self._kafka = task, kafka
        self._source = kafka.source(task.output("dead-letter"))
        self._sink = kafka.sink(batched=False)  # the raw topic's limit is its user's
        topics = [task.input.topic, *([task.labels.topic] if task.labels else [])]
        self._sources = {topic: TopicHistory(kafka, topic) for topic in topics}
        self._sent = self._kept = 0

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()
        for history in self._sources.values():
            history.close()

    def letters(
        self,
        *,
        follow: bool,
        code: str | None,
        stop: Callable[[], bool],
        on_note: Callable[[str], None] = lambda line: None,
    ) -> Iterator[DeadLetter]:
        """Yield the letters from the beginning; with `follow`, go on until `stop`.

        Args:
            on_note: called with a line about each record that is no dead letter of ours.
        """
        ends = self._source.ends()
        while not stop():
            if not follow and all(self._source.position[p] >= end for p, end in ends.items()):
                return
            records = self._source.poll(BATCH, WAIT_S)
            if records is None:
                continue
            places = zip(records.values, records.partitions, records.offsets, strict=True)
            for value, partition, offset in places:
                try:
                    letter = msgspec.json.decode(value or b"", type=DeadLetter)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    why = "it is empty" if not value else str(error)
                    on_note(f"{records.topic}/{partition}/{offset} is no dead letter: {why}")
                    continue
                if code in (None, letter.code):
                    yield letter

    @cached_property
    def _places(self) -> set[tuple[str, int]]:
        """Return the task's topics with each partition: a forged letter may name others."""
        found = set[tuple[str, int]]()
        for topic in self._sources:
            source = self._kafka.source(topic)
            source.close()
            found |= {(topic, partition) for partition in source.partitions}
        return found

    def requeue(self, letter: DeadLetter) -> None:
        """Send an event or a label to where it came from, if that is a topic of the task.

        What its letter does not hold, or not whole, is read there again while Kafka has it.

        Raises:
            TopicError: the topic is not there.
        """
        event = None
        if (letter.topic, letter.partition) in self._places:
            event = self._whole(letter)
        if event is None:
            self._kept += 1
            return
        key, raw = event
        self._sink.send(letter.topic, [raw], keys=[key], partitions=[letter.partition])
        self._sent += 1

    def _whole(self, letter: DeadLetter) -> tuple[bytes | None, bytes] | None:
        """Return key and value of a refused event; None where they are not to be had any more."""
        if letter.raw is not None and letter.raw_bytes is None and letter.key_bytes is None:
            return letter.key, letter.raw
        at = letter.offset
        try:
            found = self._sources[letter.topic].read([Range(letter.partition, at, at + 1)])
        except RecoveryError:
            return None
        for key, raw in zip(found.keys, found.values, strict=True):
            again = dead_letter(Reject(letter.code, ""), letter.topic, 0, at, key, raw)
            told = letter.raw is not None  # a learner's letter has no bytes to compare
            same = (again.raw, again.raw_sha256) == (letter.raw, letter.raw_sha256)
            if raw is not None and (same or not told):
                return key, raw
        return None

    def await_delivery(self) -> tuple[int, int]:
        """Wait for the acknowledgements; count what was sent, and what could not be.

        Raises:
            DeliveryError: one was not acknowledged.
        """
        self._sink.flush()
        return self._sent, self._kept


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter as JSON; bytes that are UTF-8 as text, others as base64."""
    return msgspec.structs.asdict(letter) | {"key": _text(letter.key), "raw": _text(letter.raw)}


def as_text(letter: DeadLetter) -> str:
    """Return a letter as one line."""
    raw = _text(letter.raw)
    shown = "" if raw is None else raw if len(raw) <= 120 else f"{raw[:120]}…"
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    return visible(f"{place} {letter.code}: {letter.detail} | {shown!r}", keep="")


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    with suppress(UnicodeDecodeError):
        text = data.decode()
        if not text.startswith(_CODED):
            return text
    return f"{_CODED}{base64.b64encode(data).decode()}"
