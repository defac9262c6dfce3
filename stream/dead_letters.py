"""Refused events: shown with their reason, and sent to their topic once more on request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from stream.events import DeadLetter
from stream.kafka import Sink, Source
from stream.task import Task
from stream.terminal import visible

BATCH = 1000
WAIT_S = 0.2


class Mailbox:
    """Read a task's dead letters, and send some of them back where they came from."""

    def __init__(self, task: Task, bootstrap: str) -> None:
        self._source = Source(bootstrap, task.output("dead-letter"))
        self._sink = Sink(bootstrap)
        self._sent = self._kept = 0

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()

    def letters(
        self, *, follow: bool, code: str | None, stop: Callable[[], bool]
    ) -> Iterator[DeadLetter]:
        """Yield the letters from the beginning; with `follow`, go on until `stop`."""
        ends = self._source.ends()
        while not stop():
            if not follow and all(self._source.position[p] >= end for p, end in ends.items()):
                return
            records = self._source.poll(BATCH, WAIT_S)
            for value in records.values if records else ():
                letter = msgspec.json.decode(value or b"null", type=DeadLetter)
                if code in (None, letter.code):
                    yield letter

    def requeue(self, letter: DeadLetter) -> None:
        """Send the raw bytes to the topic and partition they came from."""
        if letter.raw is None:
            self._kept += 1
            return
        self._sink.send(
            letter.topic, [letter.raw], keys=[letter.key], partitions=[letter.partition]
        )
        self._sent += 1

    def settle(self) -> tuple[int, int]:
        """Wait for the acknowledgements; count what was sent, and what had no bytes to send.

        Raises:
            DeliveryError: one was not acknowledged.
        """
        self._sink.flush()
        return self._sent, self._kept


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """Give a letter as JSON; bytes that are UTF-8 as text, others as base64."""
    return msgspec.structs.asdict(letter) | {"key": _text(letter.key), "raw": _text(letter.raw)}


def as_text(letter: DeadLetter) -> str:
    """Give a letter as one line."""
    raw = _text(letter.raw)
    shown = "" if raw is None else raw if len(raw) <= 120 else f"{raw[:120]}…"
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    return visible(f"{place} {letter.code}: {letter.detail} | {shown!r}", keep="")


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(data).decode()}"
