"""Read a topic as a person would: the last records, decoded, then those to come."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from headrace.stream.events import Feature, Records
from headrace.stream.formats.codec import depth
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.terminal import as_json

BATCH = 1000
WAIT_S = 0.2
DEEPEST = 500  # levels of JSON that are shown: its encoder recurses


class Record(NamedTuple):
    """Hold a decoded record and where it stands."""

    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: Any

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return self._asdict()

    def as_text(self) -> str:
        """Return it as one line."""
        return f"{self.partition}:{self.offset} {as_json(self.value)}"


def tail(
    kafka: KafkaConnection,
    topic: str,
    *,
    lines: int,
    follow: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Yield the last `lines` records of each partition; with `follow`, go on until `stop`.

    Raises:
        BrokerError: no broker, or no such topic.
    """
    shown, ends = _last(kafka, topic, lines)
    yield from shown
    source = kafka.source(topic, offsets=ends, timestamps=True) if follow else None
    try:
        while source and not stop():
            if records := source.poll(BATCH, WAIT_S):
                yield from _decoded(records)
    finally:
        if source:
            source.close()


def _last(kafka: KafkaConnection, topic: str, lines: int) -> tuple[list[Record], dict[int, int]]:
    """Read the last records of each partition, and where it ends.

    Offsets of transactions' markers hold no record: what is looked at grows until there is enough.
    """
    looked = lines
    while True:
        probe = kafka.source(topic)
        begins, ends = probe.begins, probe.ends()
        probe.close()
        start = {p: max(end - looked, begins[p]) for p, end in ends.items()}
        source, found = kafka.source(topic, offsets=start, timestamps=True), list[Record]()
        while any(source.position[p] < end for p, end in ends.items()):
            if records := source.poll(BATCH, WAIT_S):
                found += _decoded(records)
        source.close()
        by_partition = {
            p: [r for r in found if r.partition == p and r.offset < end] for p, end in ends.items()
        }
        if all(len(rs) >= lines or start[p] == begins[p] for p, rs in by_partition.items()):
            return [r for rs in by_partition.values() for r in rs[max(len(rs) - lines, 0) :]], ends
        looked *= 4


def _decoded(records: Records) -> Iterator[Record]:
    for value, key, partition, offset, timestamp_ms in zip(*records[1:], strict=True):
        shown = None if key is None else key.decode("utf-8", "replace")
        yield Record(partition, offset, timestamp_ms, shown, decode(records.topic, value))


def decode(topic: str, value: bytes | None) -> Any:
    """Decode a record of any of our topics; what is neither ours nor JSON becomes base64."""
    if value is None:
        return None
    try:
        if topic.endswith(".features"):
            feature = msgspec.msgpack.decode(value, type=Feature)
            return (
                msgspec.structs.asdict(feature)
                | {
                    name: _numbers(getattr(feature, name), kind)
                    for name, kind in (("numeric", "f8"), ("ids", "u4"), ("entity", "u4"))
                }
                | {"label": feature.label if math.isfinite(feature.label) else None}
                | {"image": base64.b64encode(feature.image).decode()}
            )
        found = msgspec.json.decode(value)
        if value.count(b"[") + value.count(b"{") <= DEEPEST or depth(found) <= DEEPEST:
            return found
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return {"base64": base64.b64encode(value).decode()}


def _numbers(data: bytes, kind: str) -> list[float | None]:
    values = np.frombuffer(data, f"<{kind}").tolist()
    return [value if math.isfinite(value) else None for value in values]
