"""Read what is in Kafka with another client than the product's."""

from __future__ import annotations

from typing import NamedTuple

from headrace.stream.kafka.connection import KafkaConnection

Raw = dict[int, dict[int, bytes | None]]  # values by partition and offset


class Found(NamedTuple):
    """Hold a record as it stands in a topic."""

    offset: int
    value: bytes | None
    time_ms: int = 0


def read(kafka: KafkaConnection, topic: str, *, committed: bool = True) -> dict[int, list[Found]]:
    """Read a whole topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        **kafka.kafka_python(),
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found: dict[int, list[Found]] = {place.partition: [] for place in places}
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(timeout_ms=500, max_records=10_000).items():
            found[place.partition] += [Found(r.offset, r.value, r.timestamp) for r in records]
    consumer.close()
    return found


def ends(kafka: KafkaConnection, topic: str, *, committed: bool) -> dict[int, int]:
    """Ask for the ends of a topic's partitions as readers of one kind see them."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        **kafka.kafka_python(),
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    found = {place.partition: end for place, end in consumer.end_offsets(places).items()}
    consumer.close()
    return found


def by_offset(found: dict[int, list[Found]]) -> Raw:
    """Return the values of a topic by partition and offset."""
    return {p: {each.offset: each.value for each in records} for p, records in found.items()}
