"""What tests do to topics, with another client than the product's."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from headrace.stream.kafka.connection import KafkaConnection


def send(
    kafka: KafkaConnection,
    topic: str,
    values: Sequence[bytes | None],
    headers: int = 0,
    keys: Sequence[bytes | None] = (),
) -> None:
    """Send with kafka-python: what the learner reads was written by another client."""

    producer = KafkaProducer(**kafka.kafka_python())
    many = [(f"h{n}", b"v") for n in range(headers)]
    futures = [
        producer.send(topic, value, key=keys[n] if keys else b"", headers=many)
        for n, value in enumerate(values)
    ]
    producer.flush()
    for future in futures:
        future.get(timeout=10)
    producer.close()


def read(kafka: KafkaConnection, topic: str) -> list[Any]:
    """Read the JSON that is committed of a whole topic, with kafka-python."""
    return [json.loads(value) for _, value in read_raw(kafka, topic)]


def read_raw(kafka: KafkaConnection, topic: str) -> list[tuple[bytes | None, bytes]]:
    """Read the keys and values that are committed of a whole topic, with kafka-python."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        **kafka.kafka_python(), enable_auto_commit=False, isolation_level="read_committed"
    )
    places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found: list[tuple[bytes | None, bytes]] = []
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(timeout_ms=500).values():
            found += [(record.key, record.value) for record in records]
    consumer.close()
    return found


def make_again(kafka: KafkaConnection, topic: str, values: list[bytes | None]) -> None:
    """Delete a topic, make it again at once, and fill it."""
    with KafkaAdminClient(**kafka.kafka_python()) as admin:
        admin.delete_topics([topic])
        give_up_s = time.monotonic() + 30
        while True:
            try:
                ensure_raw(admin, topic)
                break
            except Exception:
                assert time.monotonic() < give_up_s
                time.sleep(0.01)
    send(kafka, topic, values)


def ensure_raw(admin: Any, topic: str) -> None:
    admin.create_topics({topic: {"num_partitions": 1}})


def forget(kafka: KafkaConnection, topic: str, partition: int = 0) -> None:
    """Remove all records of a partition, as retention does."""
    with KafkaAdminClient(**kafka.kafka_python()) as admin:
        admin.delete_records({TopicPartition(topic, partition): -1})
