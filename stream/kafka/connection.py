"""A connection to Kafka: everything that reads or writes topics is opened here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.stream.kafka import properties
from headrace.stream.kafka.client_settings import ClientSettings
from headrace.stream.kafka.metadata import EndReader, ends
from headrace.stream.kafka.sink import UNKNOWN_S, Sink
from headrace.stream.kafka.source import Source
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import Topic, describe_existing, prepare
from headrace.stream.kafka.transactions import Transactions
from headrace.stream.kafka.watch import TopicWatch


class KafkaConnection(ClientSettings):
    """Open sources, sinks and transactions on one Kafka.

    `KafkaConnection("broker:9092")`, or with properties as librdkafka calls them:
    `KafkaConnection("broker:9093", {"security.protocol": "ssl", "ssl.ca.location": "ca.pem"})`.

    A learner knows Kafka by these methods alone: who gives it another connection with the same
    methods, such as one to topics in memory, gives it another Kafka.
    """

    def source(
        self,
        topic: str,
        *,
        offsets: dict[int, int] | None = None,
        or_later: bool = False,
        partitions: Sequence[int] | None = None,
        timestamps: bool = False,
        prompt: bool = False,
        watch: TopicWatch | None = None,
    ) -> Source:
        """Read a topic; see `Source`."""
        return Source(
            self,
            topic,
            offsets=offsets,
            or_later=or_later,
            partitions=partitions,
            timestamps=timestamps,
            prompt=prompt,
            watch=watch,
        )

    def ends(self, topics: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
        """Return the end of every partition of topics, asked for once; see `EndReader`."""
        return ends(self, topics, committed=committed)

    def end_reader(self, *, committed: bool) -> EndReader:
        """Ask for ends again and again; see `EndReader`."""
        return EndReader(self, committed=committed)

    def sink(self, *, batched: bool = True, unknown_s: float = UNKNOWN_S) -> Sink:
        """Write records; see `Sink`."""
        return Sink(self, batched=batched, unknown_s=unknown_s)

    def transactions(
        self,
        transactional_id: str,
        *,
        topics: Sequence[str] = (),
        on_note: Callable[[str], None] = lambda note: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Transactions:
        """Write records that appear together or not at all; see `Transactions`."""
        return Transactions(self, transactional_id, topics=topics, on_note=on_note, stop=stop)

    def watch(self, topic: str, identity: str = "") -> TopicWatch:
        """Watch which topic stands behind a name; see `TopicWatch`."""
        return TopicWatch(self, topic, identity)

    def prepare(
        self, specs: Sequence[TopicSpec], *, needs: Mapping[str, Sequence[str]] | None = None
    ) -> list[Topic]:
        """Make sure that topics are there and fit; see `stream.kafka.topics.prepare`."""
        return prepare(self, specs, needs=needs)

    def describe_existing(self, names: Sequence[str]) -> list[Topic]:
        """Describe those of some topics that exist; see `stream.kafka.topics`."""
        return describe_existing(self, names)


def connect(servers: str | None = None, config: Path | None = None) -> KafkaConnection:
    """Return the connection that is configured: by a file, and by the environment before it.

    Args:
        servers: stand before those of both; "" if none names any.
        config: the file; default: the one that HEADRACE_KAFKA_CONFIG names, if it does.

    Raises:
        UsageError: a setting is wrong, or a file cannot be used; see `stream.kafka.properties`.
    """
    named = os.environ.get(properties.CONFIG)
    place = config or (Path(named) if named else None)
    found = properties.read(place) if place else {}
    return KafkaConnection(servers or "", found | properties.from_environment(os.environ))
