"""The hot loop's way out of Kafka: whole batches, by confluent_kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from operator import methodcaller
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from headrace.stream.errors import (
    BrokerError,
    HeadraceError,
    HistoryError,
    RecoveryError,
)
from headrace.stream.events import Records
from headrace.stream.kafka.access import GROUP_REFUSED, TOPIC_REFUSED, lacking
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.diagnosis import explain
from headrace.stream.kafka.metadata import ANSWER_S, answer, described, leave, watermarks
from headrace.stream.kafka.watch import LOOK_S, TopicWatch

GATHER_MS, GATHER_BYTES = 20, 16_384
PROMPT_MS = 500
_ERROR = methodcaller("error")


class Source:
    """Read one topic from given offsets, all partitions, without group membership.

    Args:
        kafka: where it is.
        topic: must exist.
        offsets: first offset to read by partition; partitions not named start at the beginning.
        or_later: read on at what is there where an offset was deleted; else `poll` raises.
        partitions: the ones to read; default: all, also those that are added later.
        timestamps: whether records carry Kafka's timestamps.
        prompt: give each record at once; else a few may gather for up to 20 ms, which spares the
            broker a request for each.
        watch: knows which topic it has to be; default: the one that is there.

    Only committed records are given. `position` holds by partition the offset to be read next;
    at the end of a partition it is the end, whatever invisible records stand before it.

    Raises:
        TopicError: there is no such topic.
        BrokerError: the broker does not answer.
        AccessError: it does not let us in, or not read this.
    """

    def __init__(
        self,
        kafka: ClientSettings,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        or_later: bool = False,
        partitions: Sequence[int] | None = None,
        timestamps: bool = False,
        prompt: bool = False,
        watch: TopicWatch | None = None,
    ) -> None:
        self.topic, self._timestamps, self._or_later = topic, timestamps, or_later
        self._kafka, self._watch, self._grows = kafka, watch, partitions is None
        self._opened_s = time.monotonic()
        self._said: list[Any] = []  # errors of the client that no call returns
        self._consumer = Consumer(
            kafka.confluent()
            | {
                "group.id": "headrace",  # demanded by the client; we assign and never commit
                "enable.auto.commit": False,
                "auto.offset.reset": "error",  # a position that retention overtook is no beginning
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16_384,
                # Also how late the end of a partition is noticed.
                "fetch.wait.max.ms": PROMPT_MS if prompt else GATHER_MS,
                "fetch.min.bytes": 1 if prompt else GATHER_BYTES,
                "fetch.queue.backoff.ms": 5,
                "fetch.error.backoff.ms": 100,
                "error_cb": self._said.append,
            }
        )
        try:
            metadata = described(self._consumer, kafka, topic)
        except HeadraceError:
            leave(self._consumer)
            raise
        self.partitions = sorted(metadata.partitions if partitions is None else partitions)
        try:
            self.begins = {p: self._watermarks(p)[0] for p in self.partitions}
        except BrokerError:
            leave(self._consumer)
            raise
        self.position = self.begins | (offsets or {})
        if or_later:
            self.position = {p: max(at, self.begins[p]) for p, at in self.position.items()}
        self.ended: set[int] = set()  # partitions of which nothing more was there
        self._consumer.assign([TopicPartition(topic, p, at) for p, at in self.position.items()])

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Take what is there, `most` records at most; wait `timeout_s` at most for the first.

        Records come ordered by partition and offset. None when nothing came.
        """
        messages = self.messages(most, timeout_s)
        if not messages:
            return None
        return Records(
            topic=self.topic,
            values=[m.value() for m in messages],
            keys=[m.key() for m in messages],
            partitions=[m.partition() for m in messages],
            offsets=[m.offset() for m in messages],
            timestamps_ms=[m.timestamp()[1] for m in messages] if self._timestamps else [],
        )

    def messages(self, most: int, timeout_s: float) -> list[Any]:
        """Take what is there, as the client has it: for those who want little of each record."""
        self._look()
        first = self._consumer.poll(timeout_s)
        if self._said:
            self._listen()
        if first is None:
            return []
        messages: list[Any] = [first]
        if most > 1:
            messages += self._consumer.consume(most - 1, 0)
        if any(map(_ERROR, messages)):
            messages = self._without_ends(messages)
            if not messages:
                return []
        if len(self.partitions) > 1:
            messages.sort(key=lambda m: (m.partition(), m.offset()))
            stops = {m.partition(): m.offset() + 1 for m in messages}
        else:
            stops = {self.partitions[0]: messages[-1].offset() + 1}
        for partition, stop in stops.items():
            if stop > self.position[partition]:  # else the end that was noted comes after it
                self.position[partition] = stop
                self.ended.discard(partition)
        return messages

    def _without_ends(self, messages: list[Any]) -> list[Any]:
        """Note the ends of partitions, raise real errors, and give the records among messages."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._overtaken(message.partition())
            elif error.code() == GROUP_REFUSED:  # the client asks, although we are in no group
                continue
            elif error.code() == TOPIC_REFUSED:
                raise lacking(self._kafka, "READ", f"topic {self.topic}")
            elif error.code() == KafkaError._AUTHENTICATION:
                self._said.append(error)
            elif error.code() != KafkaError._PARTITION_EOF:
                raise BrokerError(f"{self.topic}: {error.str()}")
            else:
                partition, end = message.partition(), message.offset()
                self.position[partition] = max(self.position[partition], end)
                self.ended.add(partition)
        return records

    def _listen(self) -> None:
        """Raise if Kafka does not let us in any more.

        An open connection is asked again who it is, and its token may just have expired: the
        client connects again by itself with the next one, if that is let in.
        """
        refused = any(error.code() == KafkaError._AUTHENTICATION for error in self._said)
        self._said.clear()
        if refused and (wrong := explain(self._kafka)):
            raise wrong

    def _look(self) -> None:
        """Follow the topic: read partitions that were added; raise if it is another one now."""
        if time.monotonic() - self._opened_s < LOOK_S:
            return
        self._watch = self._watch or TopicWatch(self._kafka, self.topic)
        count = self._watch.look() or 0
        if not self._grows:
            return
        if count > len(self.partitions):  # the client has to hear of them, too
            count = len(described(self._consumer, self._kafka, self.topic).partitions)
        for partition in range(len(self.partitions), count):
            self.begins[partition] = self.position[partition] = self._watermarks(partition)[0]
            at = TopicPartition(self.topic, partition, self.position[partition])
            self._consumer.incremental_assign([at])
            self.partitions.append(partition)

    def _overtaken(self, partition: int) -> None:
        """Read on where an offset is not there any more, if that was asked for; else say why."""
        begin, end = self._watermarks(partition)
        at, name = self.position[partition], f"{self.topic}/{partition}"
        if self._or_later and not begin <= at <= end:
            if self._watch:
                self._watch.confirm(self._watch.ask())
            self.position[partition] = begin  # the client cannot seek where it met an error
            self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
            self._consumer.incremental_assign([TopicPartition(self.topic, partition, begin)])
        elif at < begin:
            raise HistoryError(
                f"{name}: offsets {at:,} to {begin - 1:,} were deleted (retention) before they "
                "were read; `learn` goes on without them (--accept-loss), or begins --from-scratch"
            )
        else:
            if self._watch:
                self._watch.confirm(self._watch.ask())
            if at <= end:
                raise BrokerError(f"{name}: offset {at:,} was out of range for a moment; run again")
            raise cut_off(name, end, at)

    def ends(self) -> dict[int, int]:
        """Ask for the end of each partition: the offset that the next record will get."""
        return {p: self._watermarks(p)[1] for p in self.partitions}

    def offsets_for_time(self, time_ms: int) -> dict[int, int]:
        """Ask each partition that has any for its first offset with this timestamp or a later one,
        which may be that of a record that is not given."""
        at = [TopicPartition(self.topic, p, max(time_ms, 0)) for p in self.partitions]
        ask = partial(self._consumer.offsets_for_times, at, timeout=ANSWER_S)
        found = answer(self.topic, ask)
        if wrong := next((each.error for each in found if each.error), None):
            raise BrokerError(f"{self.topic}: {wrong.str()}")
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def lag(self) -> int:
        """Count the records known to wait, as of the last fetch; asks nobody."""
        lag = 0
        for partition, position in self.position.items():
            _, end = self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, partition), cached=True
            )
            lag += max(end - position, 0)
        return lag

    def close(self) -> None:
        """Leave the broker."""
        leave(self._consumer)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        return watermarks(self._consumer, TopicPartition(self.topic, partition))


def cut_off(name: str, end: int, at: int) -> RecoveryError:
    """Say that a partition ends before an offset up to which it was read."""
    return RecoveryError(
        f"{name} ends at offset {end:,}, and was read up to {at:,}: its log was cut off, as by an "
        "unclean election, or it was deleted and made again; `learn` can begin --from-scratch"
    )
