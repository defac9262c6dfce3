"""What an engine does with the records of a topic: rows and dead letters for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from headrace.stream.events import Records
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task
from headrace.stream.task.schema import LONGEST_KEY

OUTPUTS = ("features", "dead-letter")


class Output(Protocol):
    """Take records and wait for Kafka; `headrace.stream.kafka.sink.Sink` does."""

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None: ...

    def flush(self) -> None: ...

    def refresh(self, topic: str) -> None: ...


class Stage:
    """Normalise the records of one topic for every task that reads it.

    Args:
        make_room: gives outputs the partitions that the topic has, and says how many these are.
    """

    def __init__(self, tasks: Iterable[Task], output: Output, make_room: Callable[[], int]) -> None:
        self._tasks = [(task, Normalizer(task)) for task in tasks]
        self._output, self._make_room = output, make_room
        self._partitions = make_room()
        self._pack = msgspec.msgpack.Encoder().encode
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, records: Records) -> None:
        """Publish the rows and dead letters of records; all are acknowledged when this returns.

        Raises:
            DeliveryError: one was not acknowledged.
        """
        if max(records.partitions) >= self._partitions:
            self._partitions = self._make_room()
            for topic in [task.output(stage) for task, _ in self._tasks for stage in OUTPUTS]:
                self._output.refresh(topic)
        for task, normalizer in self._tasks:
            features, letters = normalizer.features(records)
            self._output.send(
                task.output("features"),
                list(map(self._pack, features)),
                keys=[key if len(key or b"") <= LONGEST_KEY else None for key in records.keys],
                partitions=records.partitions,
            )
            if letters:
                self._output.send(
                    task.output("dead-letter"),
                    list(map(self._encode, letters)),
                    keys=[letter.key for letter in letters],
                    partitions=[letter.partition for letter in letters],
                )
        self._output.flush()
