"""Follow the releases on a task's topic, from the newest one on."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.ledger.release import Collector, Release, records_of
from headrace.stream.storage.tensors import most_bytes
from headrace.stream.task import Task
from headrace.stream.training.snapshot import released_shapes

BATCH = 64  # records, of which a release may have many
FETCH_S = 0.5


class Follower:
    """Give the newest release of a task, then each that comes.

    Args:
        key: of the seals: without its HMAC none is given.

    Attributes:
        problems: what was wrong with releases that are not given; the caller may clear it.

    Raises:
        TopicError: there is no such topic.
        BrokerError: no broker. After this, or any error of `poll`, a new one goes on.
    """

    def __init__(self, task: Task, kafka: KafkaConnection, key: bytes | None = None) -> None:
        self._kafka, self._topic = kafka, task.output("models")
        self._code = fingerprint.of_code()
        self._print = fingerprint.of_task(task)
        wanted = released_shapes(task)
        self._collector = Collector(wanted, key, self._refusal)
        self.problems = self._collector.problems
        try:
            self._first = self._catch_up(records_of(most_bytes(wanted)))
        except HeadraceError:
            if hasattr(self, "_source"):
                self._source.close()
            raise

    def poll(self, timeout_s: float) -> Release | None:
        """Return the newest release since the last call; wait so long at most if there is none.

        Raises:
            HeadraceError: the topic cannot be read on; see above.
        """
        first, self._first = self._first, None
        return self._read(0.0 if first else timeout_s) or first

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()

    def _read(self, timeout_s: float) -> Release | None:
        found = None
        for key, value in self._records(timeout_s):
            found = self._collector.add(key, value) or found
        return found

    def _records(self, timeout_s: float) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Yield key and value of the next records; none if none comes in time."""
        if records := self._source.poll(BATCH, timeout_s):
            yield from zip(records.keys, records.values, strict=True)

    def _catch_up(self, size: int) -> Release | None:
        """Read the newest release: those before it are not fetched, if all goes well.

        Of one before it that began further back, or that compaction took chunks of, nothing is
        told: nothing is wrong with it.
        """
        looked = 3 * (size + 1)  # the newest one, one that was cut off behind it, and markers
        while True:
            watch = self._kafka.watch(self._topic)
            watch.confirm(watch.ask())  # that topic alone, from now on
            self._source = self._kafka.source(self._topic, prompt=True, watch=watch)
            begin, end = self._source.begins[0], self._source.ends()[0]
            start = max(end - looked, begin)
            self._source.close()
            self._source = self._kafka.source(
                self._topic, offsets={0: start}, or_later=True, prompt=True, watch=watch
            )
            found: Release | None = None
            while self._source.position[0] < end:
                for key, value in self._records(FETCH_S):
                    if release := self._collector.add(key, value):
                        found = release
                        self.problems.clear()
            if found or start == begin:
                return found
            self._source.close()
            self.problems.clear()  # of what began before
            looked *= 4

    def _refusal(self, manifest: Manifest) -> str | None:
        if manifest.task != self._print:
            return "it is of another task: is the task file here that of the learner?"
        if manifest.code != self._code:
            return "it was learned by another version of headrace: expected the learner's here"
        return None
