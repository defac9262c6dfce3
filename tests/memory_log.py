"""Topics in memory, and a source that reads them as `stream.kafka.source.Source` reads Kafka's."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.stream.errors import BrokerError
from headrace.stream.events import Records


@dataclass
class Partition:
    """Hold the visible records of a partition: ascending offsets, with gaps, before `end`."""

    offsets: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    begin: int = 0
    end: int = 0

    def append(self, value: bytes, skip: int = 0) -> int:
        """Add a record after `skip` offsets that nobody sees, and give its offset."""
        offset = self.end + skip
        self.offsets.append(offset)
        self.values.append(value)
        self.end = offset + 1
        return offset


@dataclass
class Log:
    """Hold topics, and count who reads them."""

    topics: dict[str, dict[int, Partition]]
    block: Callable[[], int] = lambda: 100  # how many records the next poll finds there
    opened: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)  # records
    asked: Counter[str] = field(default_factory=Counter)  # for the ends
    late: int = 0  # polls in which nothing comes although something is there

    def source(self, bootstrap: str, topic: str, **settings: Any) -> Source:
        """Open a source."""
        return Source(self, topic, **settings)


class Source:
    """Read a topic of a log; see `headrace.stream.kafka.source.Source`."""

    def __init__(
        self,
        log: Log,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        or_later: bool = False,
        partitions: Sequence[int] | None = None,
        timestamps: bool = False,
        watch: object = None,
    ) -> None:
        log.opened[topic] += 1
        self._log, self._topic, self._of = log, topic, log.topics[topic]
        self.partitions = sorted(self._of if partitions is None else partitions)
        self.begins = {p: self._of[p].begin for p in self.partitions}
        self.position = self.begins | (offsets or {})
        self.ended: set[int] = set()
        self.closed = False

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Give a block of one partition."""
        assert not self.closed
        if self._log.late:
            self._log.late -= 1
            return None
        for at in self.partitions:
            of, position = self._of[at], self.position[at]
            if position < of.begin:
                raise BrokerError(f"{self._topic}: Broker: Offset out of range")
            low = bisect_left(of.offsets, position)
            high = low + min(most, self._log.block())
            if offsets := of.offsets[low:high]:
                self.position[at] = offsets[-1] + 1
                self.ended.discard(at)
                count = len(offsets)
                self._log.given[self._topic] += count
                values: list[bytes | None] = [*of.values[low:high]]
                return Records(
                    *(self._topic, values, [b""] * count, [at] * count, offsets, [1] * count)
                )
            self.position[at] = max(position, of.end)
            self.ended.add(at)
        return None

    def ends(self) -> dict[int, int]:
        """Give the ends as they are now."""
        assert not self.closed
        self._log.asked[self._topic] += 1
        return {p: self._of[p].end for p in self.partitions}

    def lag(self) -> int:
        """Count what is there and was not given."""
        return sum(self._of[p].end - at for p, at in self.position.items())

    def close(self) -> None:
        """Read no more."""
        self.closed = True
