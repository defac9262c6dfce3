"""Late labels: a stream of them, good and bad, and the judge of what became of each.

The judge is a model of `policy = "ignore"` that knows no order but that of the ledger: the first
label of an event scores it, as soon as both are there; whatever comes after is told as such.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.reading import read
from tests.support.events import good

LATER = 40  # events after its own a label comes
PARTITIONS = 4
SPOILED: dict[bytes | None, str] = {
    None: "tombstone",
    b"hello": "json",
    b'{"label":"yes"}': "schema",
    b'{"id":"e-1","label":"maybe"}': "label",
    b'{"id":"e-1","label":null}': "label",
    b'{"id":"e-1","id":"e-2","label":"yes"}': "duplicate_key",
    b'{"id":"e-1","label":"yes","x":"' + b"x" * 5000 + b'"}': "too_large",
}


def bare(value: bytes | None, number: int) -> bytes | None:
    """Take the label out of a good event; 1 in 13 brings it along, and it comes again."""
    if value != good(number) or number % 13 == 0:
        return value
    event = json.loads(value)
    del event["label"]
    return json.dumps(event).encode()


def late_label(number: int) -> bytes | None:
    """Make label `number`: 1 in 53 a poison, 1 in 64 says otherwise of the event before."""
    if number % 53 == 9:
        return [*SPOILED][number // 53 % len(SPOILED)]
    other = number % 64 == 37
    number -= other
    label = json.loads(good(number))["label"]
    if other:
        label = "yes" if label == "no" else "no"
    return json.dumps({"id": f"e-{number}", "label": label}).encode()


def partition_of(number: int) -> int:
    """Return where a label goes: not beside its event, but with those right before it."""
    return number // 8 % PARTITIONS


class Label(NamedTuple):
    """Hold a record of the labels topic."""

    partition: int
    offset: int
    value: bytes | None
    time_ms: int


Topic = dict[int, dict[int, Label]]  # by partition and offset


def topic_of(kafka: KafkaConnection, topic: str) -> Topic:
    """Read a topic of labels."""
    found = read(kafka, topic)
    return {p: {each.offset: Label(p, *each) for each in f} for p, f in found.items()}


class Used(NamedTuple):
    """Hold what a label needs to know of an event that was predicted."""

    id: Any
    time_ms: int  # Kafka's
    label: str | None  # that it brought


Demand = Callable[[str, object, str], None]


class LabelJudge:
    """Follow the ledger, and check what it says of labels.

    Args:
        topics: what stands in the labels topic, and before it in those of the same name.
        demand: called with "I11", whether something holds, and what it is.
    """

    def __init__(self, topics: list[Topic], demand: Demand) -> None:
        self._rest, self._demand = [*topics], demand
        self._topic: Topic = {}
        self._position: dict[int, int] = {}
        self._known: dict[Any, str] = {}  # the first label of each id
        self._predicted: set[Any] = set()
        self.placed: list[tuple[int, Label]] = []  # good ones: how many events come before each
        self.letters: Counter[tuple[int, int, str]] = Counter()

    def take(self, record: dict[str, Any], used: list[Used]) -> None:
        """Check one record of the ledger; `used` are the events that it predicted, in order."""
        if (begins := record.get("opening", {}).get("label_begins")) is not None:
            self.end()
            self._topic = self._rest.pop(0)
            self._position = {int(p): at for p, at in begins.items()}
        labels = self._taken(record)
        counts: Counter[str] = Counter()
        for label in labels:
            self._count(label, counts)
        for event in used:
            if event.id in self._known:
                counts["held"] -= 1
                counts["scored"] += 1
            self._predicted.add(event.id)
            if event.label:
                counts["labels"] += 1
                counts["repeated" if event.id in self._known else "scored"] += 1
                self._known.setdefault(event.id, event.label)
        said = {name: count for name, count in record.get("truth", {}).items() if count}
        found = {name: count for name, count in counts.items() if count}
        self._demand("I11", said == found, f"record {record['seq']}: {found}, it says {said}")
        base, times = len(self._predicted) - len(used), [each.time_ms for each in used]
        placed = [
            (
                base + max((n + 1 for n, t in enumerate(times) if t <= label.time_ms), default=0),
                label,
            )
            for label in labels
            if label.value not in SPOILED
        ]
        self.placed += sorted(placed, key=lambda pair: pair[0])

    def end(self) -> None:
        """Check that every label of the topic that there was until now was taken."""
        for partition, found in self._topic.items():
            end, at = max(found, default=-1) + 1, self._position.get(partition, 0)
            self._demand("I11", at == end, f"{partition}: {end - at} labels were never taken")

    def _taken(self, record: dict[str, Any]) -> list[Label]:
        labels = []
        for partition, start, stop in record.get("labels", ()):
            where = f"record {record['seq']}, labels partition {partition}"
            at = self._position.get(partition, 0)
            self._demand("I11", at == start < stop, f"{where}: {start}..{stop} after {at}")
            self._position[partition] = stop
            for offset in range(start, stop):
                there = offset in self._topic[partition]
                self._demand("I11", there, f"{where}: no label at {offset}")
                labels.append(self._topic[partition][offset])
        return labels

    def _count(self, label: Label, counts: Counter[str]) -> None:
        counts["labels"] += 1
        code = SPOILED.get(label.value)
        if code is None:
            told = json.loads(label.value or b"")
            id, known = told["id"], self._known.get(told["id"])
            if known is None:
                self._known[id] = told["label"]
                counts["scored" if id in self._predicted else "held"] += 1
            elif known == told["label"]:
                counts["repeated"] += 1
            else:
                code = "corrected"
        if code:
            counts["refused"] += 1
            self.letters[label.partition, label.offset, code] += 1
