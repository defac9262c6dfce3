"""Read a topic as a person would: the last records, decoded, then those to come."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from stream.events import Feature, Records
from stream.kafka import Source

BATCH = 1000
WAIT_S = 0.2


class Record(NamedTuple):
    """Hold a decoded record and where it stands."""

    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: Any

    def as_json(self) -> dict[str, Any]:
        """Give it as one JSON object."""
        return self._asdict()

    def as_text(self) -> str:
        """Give it as one line."""
        return f"{self.partition}:{self.offset} {json.dumps(self.value, ensure_ascii=False)}"


def tail(
    bootstrap: str, topic: str, *, lines: int, follow: bool, stop: Callable[[], bool]
) -> Iterator[Record]:
    """Yield the last `lines` records of each partition; with `follow`, go on until `stop`.

    Raises:
        BrokerError: no broker, or no such topic.
    """
    probe = Source(bootstrap, topic)
    begins, ends = dict(probe.position), probe.ends()
    probe.close()
    start = {p: max(end - lines, begins[p]) for p, end in ends.items()}
    source = Source(bootstrap, topic, offsets=start, timestamps=True)
    try:
        while not stop():
            if records := source.poll(BATCH, WAIT_S):
                yield from _decoded(records)
            if not follow and all(source.position[p] >= end for p, end in ends.items()):
                return
    finally:
        source.close()


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
                    for name, kind in (("numeric", "f4"), ("ids", "u4"), ("entity", "u4"))
                }
                | {"label": None if feature.label != feature.label else feature.label}
            )
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"base64": base64.b64encode(value).decode()}


def _numbers(data: bytes, kind: str) -> list[float | None]:
    values = np.frombuffer(data, f"<{kind}").tolist()
    return [None if value != value else value for value in values]
