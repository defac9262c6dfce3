"""What needs a docker engine; where none answers, each of these tests says so and is skipped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.stream.kafka.connection import KafkaConnection

Read = Callable[[KafkaConnection, str, int], list[dict[str, Any]]]

READ_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies here: `-m "not docker"` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("docker")


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip, with what `docker info` said, when there is no engine to test with."""
    command = ["docker", "info", "--format", "{{.ServerVersion}}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    else:
        if found.returncode == 0:
            return
        why = found.stderr.strip()
    pytest.skip(f"NO DOCKER ENGINE ANSWERS: Dockerfile and compose.yaml are NOT tested: {why}")


@pytest.fixture
def read() -> Read:
    """Return a function that reads the first `count` records of a one-partition topic, as JSON."""
    from kafka import KafkaConsumer, TopicPartition

    def read(kafka: KafkaConnection, topic: str, count: int) -> list[dict[str, Any]]:
        consumer = KafkaConsumer(
            **kafka.kafka_python(), auto_offset_reset="earliest", enable_auto_commit=False
        )
        try:
            assert consumer.partitions_for_topic(topic) == {0}
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            found: list[dict[str, Any]] = []
            give_up = time.monotonic() + READ_S
            while len(found) < count and time.monotonic() < give_up:
                for record in consumer.poll(timeout_ms=500).get(place, ()):
                    found.append(msgspec.json.decode(record.value))
            return found[:count]
        finally:
            consumer.close()

    return read
