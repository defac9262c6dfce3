"""The Kafka that many still run: the newest of the 3rd generation."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.fencing import abort_hanging, owner_of
from tests.faults.case import Case
from tests.faults.nodes import Node, make_nodes
from tests.faults.oracle import Oracle
from tests.faults.traffic import Feeder, Witness

OLDER = "org.apache.kafka:kafka_2.13:3.9.1+org.slf4j:slf4j-simple:1.7.36"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Yield a node of an older Kafka, fetched once for this machine's user."""
    import jgo

    try:
        jars = [Path(jar) for jar in jgo.build(OLDER).all_jars]
    except Exception as error:  # whatever a registry, or the way to it, has to say
        pytest.skip(f"{OLDER} cannot be fetched, so that no older Kafka was tried: {error}")
    (node,) = make_nodes(tmp_path_factory.mktemp("older") / "kafka", 1, jars=jars)
    yield node
    node.close()


def test_exactly_once_holds_on_an_older_kafka(
    older: Node, make_case: Callable[[KafkaConnection], Case], tell: Callable[[str], None]
) -> None:
    """Kills, a rival that takes over, and partitions that are added."""
    from kafka import KafkaAdminClient

    case = make_case(KafkaConnection(f"127.0.0.1:{older.port}"))
    topic = case.task.input.topic
    with Witness(case.kafka, [case.task.output("predictions")]) as witness:
        with Feeder(case.kafka, topic, case.acks, rate=200):
            for _ in range(4):
                learner = case.learn("--micro-batch", "64")
                assert learner.wait_ready(), learner.errors
                time.sleep(0.5)
                assert learner.kill() == -9
            fenced = case.learn("--micro-batch", "64")
            assert fenced.wait_ready(), fenced.errors
            heir = case.learn("--micro-batch", "64", state="heir")
            assert heir.wait_ready(), heir.errors
            assert fenced.wait() == 6, fenced.errors
            with KafkaAdminClient(bootstrap_servers=case.kafka.servers) as admin:
                admin.create_partitions({topic: 6})
            time.sleep(3)
            heir.send(signal.SIGTERM)
            assert heir.wait() == 0, heir.errors
        case.drain(state="heir")
    verdict = Oracle(case.kafka, case.task.name, topic).judge(case.acks, witness)
    owner = owner_of(case.kafka, f"{case.task.name}.learn")
    assert abort_hanging(case.kafka, owner, [case.task.output("ledger")]) == []
    with KafkaAdminClient(bootstrap_servers=case.kafka.servers) as admin:
        admin.delete_topics([topic])
    gone = case.learn("--drain", state="heir")
    assert gone.wait() == 2, gone.errors
    tell(f"Kafka 3.9.1: {verdict.events} events, {verdict.epochs} starts, none lost or doubled")
