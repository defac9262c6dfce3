"""A Kafka in memory, with transactions: a connection that needs no broker.

It keeps what a learner relies on: offsets with gaps, records that readers of committed ones see or
don't see, transactional ids that fence, retention. Nothing waits, and nothing happens beside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.stream.errors import BrokerError, FencedError
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import Topic

OPEN, ABORTED = "open", "aborted"


@dataclass
class Partition:
    """Hold the records of a partition: ascending offsets, with gaps, before `end`."""

    offsets: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    keys: dict[int, bytes | None] = field(default_factory=dict)  # by offset; others have none
    begin: int = 0
    end: int = 0
    hidden: dict[int, str] = field(default_factory=dict)  # OPEN or ABORTED, by offset
    times_ms: dict[int, int] = field(default_factory=dict)  # by offset; others have 1

    def append(self, value: bytes, skip: int = 0, key: bytes | None = b"", time_ms: int = 1) -> int:
        """Add a record after `skip` offsets that nobody sees, and return its offset."""
        offset = self.end + skip
        self.offsets.append(offset)
        self.values.append(value)
        self.keys[offset] = key
        self.times_ms[offset] = time_ms
        self.end = offset + 1
        return offset

    @property
    def stable(self) -> int:
        """Return the offset up to which all is decided: of the first open record, or the end."""
        return min((at for at, state in self.hidden.items() if state == OPEN), default=self.end)


@dataclass
class Message:
    """Be a record as confluent_kafka gives it."""

    topic_name: str
    at: int
    place: int
    content: bytes
    its_key: bytes | None

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return self.at

    def offset(self) -> int:
        return self.place

    def value(self) -> bytes:
        return self.content

    def key(self) -> bytes | None:
        return self.its_key


class MemoryKafka(KafkaConnection):
    """Hold topics, and count who reads them.

    Args:
        topics: partitions by number, by topic.
        block: says how many records the next poll finds there.
        reached: called with the name of each step of a transaction; may raise, as a crash does.
    """

    def __init__(
        self,
        topics: dict[str, dict[int, Partition]] | None = None,
        block: Callable[[], int] = lambda: 100,
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        super().__init__("memory")
        self.topics = topics or {}
        self.block, self.reached = block, reached
        self.opened: Counter[str] = Counter()
        self.given: Counter[str] = Counter()  # records
        self.asked: Counter[str] = Counter()  # for the ends
        self.late = 0  # polls in which nothing comes although something is there
        self.epochs: Counter[str] = Counter()  # of transactional ids
        self.transaction: dict[str, list[tuple[str, int, int]]] = {}  # what is open, by id

    def make(self, specs: Sequence[TopicSpec], partitions: int) -> None:
        """Create topics; the input and the outputs beside it have so many partitions."""
        for spec in specs:
            count = partitions if spec.role == "input" or spec.beside else 1
            self.topics[spec.name] = {p: Partition() for p in range(count)}

    def source(self, topic: str, **settings: Any) -> Any:
        """Open a source."""
        return MemorySource(self, topic, **settings)

    def ends(self, topics: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
        """Return the ends of partitions."""
        return {
            (topic, p): each.stable if committed else each.end
            for topic in topics
            for p, each in self.topics[topic].items()
        }

    def end_reader(self, *, committed: bool) -> Any:
        """Ask for ends again and again."""
        return MemoryEndReader(self, committed)

    def sink(self, **settings: Any) -> Any:
        """Write records without a transaction."""
        return MemorySink(self)

    def transactions(self, transactional_id: str, **settings: Any) -> Any:
        """Take a transactional id over."""
        return MemoryTransactions(self, transactional_id)

    def watch(self, topic: str, identity: str = "") -> Any:
        """Watch a topic that is never made again."""
        return MemoryWatch(self, topic)

    def prepare(
        self, specs: Sequence[TopicSpec], *, needs: Mapping[str, Sequence[str]] | None = None
    ) -> list[Topic]:
        """Describe topics; everything is allowed."""
        return self.describe_existing([spec.name for spec in specs])

    def describe_existing(self, names: Sequence[str]) -> list[Topic]:
        """Describe topics as they are."""
        return [
            Topic(
                *(name, f"id-of-{name}"),
                begin=tuple(each.begin for each in self.topics[name].values()),
                end=tuple(each.end for each in self.topics[name].values()),
                cleanup_policy="delete",
                retention_ms=-1,
                retention_bytes=-1,
                max_message_bytes=1 << 20,
            )
            for name in sorted(set(names))
        ]

    def decide(self, transactional_id: str, state: str | None) -> None:
        """End the transaction that is open, with a marker in each of its partitions."""
        touched = set()
        for topic, at, offset in self.transaction.pop(transactional_id, []):
            hidden = self.topics[topic][at].hidden
            del hidden[offset]
            if state:
                hidden[offset] = state
            touched.add((topic, at))
        for topic, at in touched:
            self.topics[topic][at].end += 1


class MemorySource:
    """Read a topic; see `headrace.stream.kafka.source.Source`."""

    def __init__(
        self,
        kafka: MemoryKafka,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        or_later: bool = False,
        partitions: Sequence[int] | None = None,
        timestamps: bool = False,
        prompt: bool = False,
        watch: object = None,
    ) -> None:
        kafka.opened[topic] += 1
        self.topic, self._kafka, self._of = topic, kafka, kafka.topics[topic]
        self.partitions = sorted(self._of if partitions is None else partitions)
        self.begins = {p: self._of[p].begin for p in self.partitions}
        self.position = self.begins | (offsets or {})
        self._or_later = or_later
        self.ended: set[int] = set()
        self.closed = False

    def poll(self, most: int, timeout_s: float) -> Records | None:
        """Return a block of one partition."""
        messages = self.messages(most, timeout_s)
        if not messages:
            return None
        keys = self._of[messages[0].at].keys
        return Records(
            self.topic,
            [each.content for each in messages],
            [keys.get(each.place, b"") for each in messages],
            [each.at for each in messages],
            [each.place for each in messages],
            [self._of[each.at].times_ms.get(each.place, 1) for each in messages],
        )

    def messages(self, most: int, timeout_s: float) -> list[Message]:
        """Return a block of one partition, as the client has it."""
        assert not self.closed
        if self._kafka.late:
            self._kafka.late -= 1
            return []
        for at in self.partitions:
            of, position, stable = self._of[at], self.position[at], self._of[at].stable
            if position < of.begin and self._or_later:
                position = self.position[at] = of.begin
            if position < of.begin:
                raise BrokerError(f"{self.topic}: Broker: Offset out of range")
            low = bisect_left(of.offsets, position)
            high = min(low + min(most, self._kafka.block()), bisect_left(of.offsets, stable))
            if offsets := of.offsets[low:high]:
                self.position[at] = offsets[-1] + 1
                self.ended.discard(at)
                self._kafka.given[self.topic] += len(offsets)
                found = zip(offsets, of.values[low:high], strict=True)
                seen = [
                    Message(self.topic, at, offset, value, of.keys.get(offset))
                    for offset, value in found
                    if offset not in of.hidden
                ]
                if seen:
                    return seen
            if high == bisect_left(of.offsets, stable):
                self.position[at] = max(self.position[at], stable)
                self.ended.add(at)
        return []

    def ends(self) -> dict[int, int]:
        """Return the ends as they are now."""
        assert not self.closed
        self._kafka.asked[self.topic] += 1
        return {p: self._of[p].stable for p in self.partitions}

    def offsets_for_time(self, time_ms: int) -> dict[int, int]:
        """Return the first offset with this timestamp or a later one, where there is any."""
        found = {}
        for p in self.partitions:
            of = self._of[p]
            places = (at for at in of.offsets if of.times_ms[at] >= time_ms and at >= of.begin)
            if (first := next(places, None)) is not None:
                found[p] = first
        return found

    def lag(self) -> int:
        """Count what is there and was not given."""
        return sum(self._of[p].stable - at for p, at in self.position.items())

    def close(self) -> None:
        """Read no more."""
        self.closed = True


class MemoryEndReader:
    """Ask for ends; see `headrace.stream.kafka.metadata.EndReader`."""

    def __init__(self, kafka: MemoryKafka, committed: bool) -> None:
        kafka.opened["ends"] += 1
        self._kafka, self._committed = kafka, committed

    def read(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Return the ends as they are now."""
        self._kafka.asked.update(topics)
        return self._kafka.ends(topics, committed=self._committed)

    def close(self) -> None:
        """Ask no more."""


class MemorySink:
    """Write records; see `headrace.stream.kafka.sink.Sink`. They are there once it is flushed."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka
        self._waiting: list[tuple[str, int, bytes, bytes | None]] = []

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None],
        partitions: Sequence[int],
    ) -> None:
        """Queue records."""
        self._waiting += zip([topic] * len(values), partitions, values, keys, strict=True)

    def flush(self) -> None:
        """Write what was queued."""
        while self._waiting:
            topic, at, value, key = self._waiting.pop(0)
            self._kafka.topics[topic][at].append(value, key=key)


class MemoryTransactions:
    """Write records that appear together; see `headrace.stream.kafka.transactions.Transactions`.

    A commit happens when it is waited for: until then, a crash leaves it undone.
    """

    def __init__(self, kafka: MemoryKafka, transactional_id: str) -> None:
        self._kafka, self._id = kafka, transactional_id
        kafka.epochs[transactional_id] += 1
        self._epoch = kafka.epochs[transactional_id]
        kafka.decide(transactional_id, ABORTED)  # of the owner before
        self._ending: Callable[[], Any] | None = None

    @property
    def settled(self) -> bool:
        """Return whether no commit is under way."""
        return True

    def begin(self) -> None:
        """Open a transaction."""
        self._check()
        self._kafka.transaction[self._id] = []
        self._kafka.reached("transaction begun")

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        """Put records into the transaction."""
        self._check()
        for n, value in enumerate(values):
            at = partitions[n] if partitions else 0
            partition = self._kafka.topics[topic][at]
            offset = partition.append(value, key=keys[n] if keys else None)
            partition.hidden[offset] = OPEN
            self._kafka.transaction.setdefault(self._id, []).append((topic, at, offset))

    def commit(
        self, *, check: Callable[[], Any] = lambda: None, confirm: Callable[[], Any] = lambda: None
    ) -> None:
        """Begin to end the transaction."""
        self._kafka.reached("before commit")

        def commit() -> Any:
            self._check()
            check()
            self._kafka.reached("flushed")
            self._check()  # a broker asks when it is told to commit
            self._kafka.decide(self._id, None)
            self._kafka.reached("committed")
            return confirm()

        self._ending = commit
        self._kafka.reached("commit begun")

    def await_commit(self) -> Any:
        """End the transaction, and return what `confirm` does."""
        ending, self._ending = self._ending, None
        return ending() if ending else None

    def refresh(self, topic: str) -> None:
        """Know of all partitions anyway."""

    def close(self) -> None:
        """Leave it as it is."""

    def _check(self) -> None:
        if self._kafka.epochs[self._id] != self._epoch:
            raise FencedError(f"{self._id}: another learner of this task took over")


class MemoryWatch:
    """Watch a topic; see `headrace.stream.kafka.watch.TopicWatch`."""

    def __init__(self, kafka: MemoryKafka, topic: str) -> None:
        self._kafka, self.topic, self.identity = kafka, topic, f"id-of-{topic}"

    def ask(self) -> int:
        """Ask how many partitions there are."""
        return len(self._kafka.topics[self.topic])

    def confirm(self, asked: int) -> int:
        """Return the answer."""
        return asked

    def look(self) -> int | None:
        """Return the number of partitions."""
        return self.ask()
