"""The mailbox alone, on topics in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from headrace.stream.events import (
    LETTER_KEY_BYTES,
    LETTER_RAW_BYTES,
    DeadLetter,
    Reject,
    dead_letter,
)
from headrace.stream.kafka.dead_letters import Mailbox
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.task import parse
from tests.support.events import TASK
from tests.support.memory_kafka import MemoryKafka

task = parse(TASK, "t")
RAW, LETTERS = task.input.topic, task.output("dead-letter")


@pytest.fixture
def kafka() -> MemoryKafka:
    made = MemoryKafka()
    made.make(topic_specs(task), 2)
    return made


@pytest.fixture
def mailbox(kafka: MemoryKafka) -> Iterator[Mailbox]:
    with Mailbox(task, kafka) as made:
        yield made


def refused(
    kafka: MemoryKafka, raw: bytes, key: bytes | None = b"k", code: str = "json", at: int = 0
) -> DeadLetter:
    """Put an event into the raw topic, and its letter into the dead letters'."""
    offset = kafka.topics[RAW][at].append(raw, key=key)
    letter = dead_letter(Reject(code, "why"), RAW, at, offset, key, raw)
    kafka.topics[LETTERS][0].append(msgspec.json.encode(letter))
    return letter


def raws(kafka: MemoryKafka, at: int = 0) -> list[tuple[bytes | None, bytes]]:
    of = kafka.topics[RAW][at]
    return [(of.keys[offset], raw) for offset, raw in zip(of.offsets, of.values, strict=True)]


def requeued(mailbox: Mailbox, *letters: DeadLetter) -> tuple[int, int]:
    for letter in letters:
        mailbox.requeue(letter)
    return mailbox.await_delivery()


def drained(mailbox: Mailbox, **settings: Any) -> list[DeadLetter]:
    settings = {"follow": False, "code": None, "stop": lambda: False} | settings
    return list(mailbox.letters(**settings))


def test_letters_come_by_code_and_what_is_none_is_told(
    kafka: MemoryKafka, mailbox: Mailbox
) -> None:
    kafka.block = lambda: 2
    first, second = refused(kafka, b"{"), refused(kafka, b"[]", code="schema")
    strange = b'{"code":"\xff"}'
    for foreign in (b"", b"\xff", strange, b"{}", b'{"x":' + b"[" * 5000):
        kafka.topics[LETTERS][0].append(foreign)
    third = refused(kafka, b"]")
    notes: list[str] = []
    assert drained(mailbox, on_note=notes.append) == [first, second, third]
    assert [note.split(" is no dead letter: ")[0] for note in notes] == [
        f"{LETTERS}/0/{offset}" for offset in (2, 3, 4, 5, 6)
    ]
    assert notes[0].endswith("it is empty")
    with Mailbox(task, kafka) as again:
        assert drained(again, code="schema") == [second]


def test_who_follows_gets_what_comes_until_they_stop(kafka: MemoryKafka, mailbox: Mailbox) -> None:
    stopped: list[bool] = []
    sent = [refused(kafka, b"{")]
    letters = mailbox.letters(follow=True, code=None, stop=lambda: bool(stopped))
    assert next(letters) == sent[0]
    later = refused(kafka, b"[")
    assert next(letters) == later
    stopped.append(True)
    assert list(letters) == []


@pytest.mark.parametrize("key", [b"k", None, b"", b"k" * (LETTER_KEY_BYTES + 1)])
@pytest.mark.parametrize("size", [3, LETTER_RAW_BYTES, LETTER_RAW_BYTES + 1])
def test_an_event_goes_back_whole_under_its_key_to_its_partition(
    kafka: MemoryKafka, mailbox: Mailbox, key: bytes | None, size: int
) -> None:
    letter = refused(kafka, b"x" * size, key, at=1)
    refused(kafka, b"y" * size, key, at=1)
    assert requeued(mailbox, letter) == (1, 0)
    assert raws(kafka, 1)[2:] == [(key, b"x" * size)]
    assert raws(kafka, 0) == []


def test_of_an_event_that_is_gone_only_a_whole_letter_is_sent(
    kafka: MemoryKafka, mailbox: Mailbox
) -> None:
    whole = refused(kafka, b"{")
    cut = refused(kafka, b"x" * (LETTER_RAW_BYTES + 1))
    kafka.topics[RAW][0].begin = kafka.topics[RAW][0].end
    assert requeued(mailbox, whole, cut) == (1, 1)
    assert raws(kafka)[2:] == [(b"k", b"{")]


def test_another_event_at_its_offset_is_not_sent_for_it(
    kafka: MemoryKafka, mailbox: Mailbox
) -> None:
    """The topic was made again, and has other events at the same offsets."""
    cut = refused(kafka, b"x" * (LETTER_RAW_BYTES + 1))
    kafka.topics[RAW][0].values[0] = b"x" * LETTER_RAW_BYTES + b"y"
    assert requeued(mailbox, cut) == (0, 1)
    learners = DeadLetter("class", "no room", RAW, 0, 0, b"k", None)  # it had a row, no bytes
    assert requeued(mailbox, learners) == (1, 1)
    assert raws(kafka)[1:] == [(b"k", b"x" * LETTER_RAW_BYTES + b"y")]


def test_a_forged_letter_sends_nothing_elsewhere(kafka: MemoryKafka, mailbox: Mailbox) -> None:
    other = task.output("predictions")
    forged = [
        DeadLetter("json", "", topic, partition, 0, b"k", b"evil")
        for topic, partition in ((other, 0), (RAW, 2), (RAW, -1), ("t", 0))
    ]
    assert requeued(mailbox, *forged) == (0, 4)
    assert not any(kafka.topics[topic][0].values for topic in (other, RAW))
