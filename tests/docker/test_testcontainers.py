"""The command line against the public Kafka image: a broker of the test's own, on a random port."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection

Read = Callable[[KafkaConnection, str, int], list[dict[str, Any]]]

SPAM = Path(__file__).parents[2] / "examples" / "spam.toml"
HEADRACE = [sys.executable, "-c", "from headrace.cli import main; main()"]
EVENTS = 500
START = "/tmp/start.sh"
LISTENERS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "HOST://:9092,INTERNAL://:9094,CONTROLLER://:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": (
        "HOST:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
    ),
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
}


@pytest.fixture
def own_kafka() -> Iterator[KafkaConnection]:
    """Yield the address of an apache/kafka container.

    Its port is known only once it runs, and what it advertises only then: so the container begins
    by waiting for a script that has it.
    """
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    wait = f"until [ -f {START} ]; do sleep 0.05; done; exec sh {START}"
    container = DockerContainer("apache/kafka:4.3.1", entrypoint="sh")
    container.with_command(["-c", wait]).with_exposed_ports(9092).with_envs(**LISTENERS)
    with container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(9092)}"
        advertised = f"HOST://{address},INTERNAL://localhost:9094"
        script = f"export KAFKA_ADVERTISED_LISTENERS={advertised}\nexec /etc/kafka/docker/run\n"
        whole = f"cat >{START}.tmp <<'END'\n{script}END\nmv {START}.tmp {START}"
        assert container.exec(["sh", "-c", whole]).exit_code == 0
        ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(120)
        ready.wait_until_ready(container)
        yield KafkaConnection(address)


def headrace(kafka: KafkaConnection, *arguments: str) -> list[dict[str, Any]]:
    """Run a command to its end and give the JSON lines that it printed."""
    done = subprocess.run(
        [*HEADRACE, *arguments, "--bootstrap", kafka.servers, "--json"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(600)
def test_create_produce_learn_on_the_public_image(own_kafka: KafkaConnection, read: Read) -> None:
    created = headrace(own_kafka, "topics", "create", str(SPAM))
    assert {"topic": "events.text", "action": "created"} in created

    [sent] = headrace(own_kafka, "produce", "text", "--limit", str(EVENTS))
    assert (sent["acknowledged"], sent["failed"]) == (EVENTS, 0)

    headrace(own_kafka, "learn", str(SPAM), "--from", "events", "--drain")
    [audit] = headrace(own_kafka, "verify", str(SPAM), "--deep")
    assert audit["sound"]
    assert audit["predictions"] == audit["recomputed"] == EVENTS
    events = read(own_kafka, "events.text", EVENTS)
    predictions = read(own_kafka, "spam.predictions", EVENTS)
    assert [each["id"] for each in predictions] == [each["id"] for each in events]
    assert {each["prediction"] for each in predictions} == {"ham", "spam"}
    accuracy = sum(p["prediction"] == e["label"] for p, e in zip(predictions, events, strict=True))
    assert accuracy > 0.8 * EVENTS
