"""A normaliser that runs beside a test, and what it wrote."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headrace.stream.kafka.connection import KafkaConnection

OWNER = """
import signal, sys, threading
from pathlib import Path
from headrace.stream.engines.faust import run
from headrace.stream.kafka.connection import KafkaConnection
ended = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: ended.set())
run([Path(path) for path in sys.argv[3:]], KafkaConnection(sys.argv[1]), workers=int(sys.argv[2]),
    stop=ended.is_set, on_ready=lambda: print("ready", flush=True))
"""


class Record(NamedTuple):
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@contextmanager
def owner(
    kafka: KafkaConnection, paths: list[Path], workers: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Run the normaliser; it is ready inside the block, and ends politely after it."""
    command = [sys.executable, "-c", OWNER, kafka.servers, str(workers), *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode in (0, -signal.SIGKILL)


def read(kafka: KafkaConnection, topic: str) -> list[Record]:
    """Read all that a topic holds now, by kafka-python, in order of partition and offset."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(**kafka.kafka_python(), enable_auto_commit=False)
    try:
        parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        ends = consumer.end_offsets(parts)
        consumer.assign(parts)
        consumer.seek_to_beginning()
        found: list[Record] = []
        while any(consumer.position(part) < end for part, end in ends.items()):
            for records in consumer.poll(500).values():
                found += [
                    Record(r.partition, r.offset, r.timestamp, r.key, r.value) for r in records
                ]
        return sorted(found, key=lambda r: (r.partition, r.offset))
    finally:
        consumer.close()


def read_until(
    kafka: KafkaConnection, topic: str, done: Callable[[list[Record]], bool]
) -> list[Record]:
    give_up = time.monotonic() + 120
    while not done(found := read(kafka, topic)):
        assert time.monotonic() < give_up, f"{topic}: {len(found)} records"
        time.sleep(0.2)
    return found
