"""Which topics a task has, and the largest record that each of them has to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from headrace.model.spec import METRIC_BYTES
from headrace.stream.events import LETTER_BYTES
from headrace.stream.task import Task
from headrace.stream.task.features import LONGEST_NAME
from headrace.stream.task.schema import LONGEST_ID, LONGEST_KEY
from headrace.stream.task.target import LONGEST_CLASS, MOST_NAMED

KAFKA_BYTES = 1_048_588  # Kafka's own default of max.message.bytes, that all clients know
BATCH_BYTES = 131_072  # of the records that we send together; a larger record goes alone
ESCAPED = 6  # bytes that JSON may take for a character
FRAME = 1_024  # for the names of fields, coordinates, counts, and Kafka's own head of a record

RELEASE_BYTES = (1 << 19) + FRAME  # of a chunk of a learner's state, or of its manifest

_COMPACTED = {  # soon: who begins to follow it reads what is left
    "cleanup.policy": "compact",
    "segment.bytes": str(16 << 20),
    "min.cleanable.dirty.ratio": "0.1",
}

Role = Literal["input", "output", "models", "ledger"]


@dataclass(frozen=True)
class TopicSpec:
    """Say what a topic must be, and how it is made if it is not there.

    Args:
        partitions: that it is made with.
        retention_ms: that it is made with; -1 keeps records for ever, None is the broker's.
        record_bytes: the largest record that it must take.
        role: an `input` belongs to its user and is taken as it is, an `output` is ours to grow,
            `models` keeps the newest of each key, a `ledger` is read from its beginning, years
            later.
        beside: the topic of which it needs as many partitions at least.
    """

    name: str
    partitions: int = 1
    retention_ms: int | None = None
    record_bytes: int = 0
    role: Role = "input"
    beside: str | None = None

    @property
    def max_message_bytes(self) -> int:
        """Return the limit that it is made with: no lower than what clients expect."""
        return max(self.record_bytes, KAFKA_BYTES)

    @property
    def configs(self) -> dict[str, str]:
        """Return the settings that it is made with."""
        found = {"max.message.bytes": str(self.max_message_bytes), "cleanup.policy": "delete"}
        if self.role == "models":
            found |= _COMPACTED
        if self.retention_ms is not None:
            found["retention.ms"] = str(self.retention_ms)
        if self.role == "ledger":
            found["retention.bytes"] = "-1"
        return found


def topic_specs(task: Task) -> list[TopicSpec]:
    """List the topics that a task reads and writes, the raw one first."""
    raw, partitions = task.input.topic, task.topics.partitions
    hours = 3_600_000 * task.topics.retention_hours
    event_bytes = task.input.max_bytes + LONGEST_KEY + FRAME

    def output(stage: str, record_bytes: int, *, single: bool = False) -> TopicSpec:
        name, count = task.output(stage), 1 if single else partitions
        beside = None if single else raw
        return TopicSpec(name, count, hours, record_bytes, role="output", beside=beside)

    late = []
    if task.labels:
        late = [
            TopicSpec(task.labels.topic, partitions, hours, event_bytes),
            output("expired", FRAME + ESCAPED * (LONGEST_ID + LONGEST_CLASS)),
        ]
    return [
        TopicSpec(raw, partitions, hours, event_bytes),
        *late,
        output("features", LONGEST_KEY + _row_bytes(task)),
        output("predictions", LONGEST_KEY + _prediction_bytes(task)),
        output("dead-letter", LETTER_BYTES),
        output("metrics", _metrics_bytes(task), single=True),
        output("drift", FRAME + ESCAPED * (LONGEST_ID + 5 * LONGEST_NAME), single=True),
        TopicSpec(task.output("models"), 1, record_bytes=RELEASE_BYTES, role="models"),
        TopicSpec(task.output("ledger"), 1, -1, _ledger_bytes(task), role="ledger"),
    ]


def _row_bytes(task: Task) -> int:
    return task.row_bytes + ESCAPED * LONGEST_ID + LONGEST_CLASS + FRAME


def _prediction_bytes(task: Task) -> int:
    numbers = max(task.spec.classes, 3)
    return FRAME + 25 * numbers + ESCAPED * (LONGEST_ID + LONGEST_CLASS)


def _metrics_bytes(task: Task) -> int:
    named = task.spec.classes if task.spec.classes <= MOST_NAMED else 0
    further = len(task.metrics) * (METRIC_BYTES + FRAME)
    return 65_536 + 2 * named * (ESCAPED * LONGEST_CLASS + 128) + further


def _ledger_bytes(task: Task) -> int:
    """Return room for a session's start, which holds the task, and for 10,000 partitions."""
    return len(msgspec.json.encode(task.model_dump(mode="json"))) + 10_000 * 100 + FRAME
