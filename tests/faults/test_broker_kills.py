"""T4: Kafka itself is killed with -9; learners end or wait, are started again, and lose nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.stream.broker.embedded import embedded
from headrace.stream.broker.secure import client
from headrace.stream.kafka.acls import acls, grant
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from tests.faults.case import Case
from tests.faults.nodes import Node, free_ports, make_nodes
from tests.faults.reading import read
from tests.faults.supervisor import Supervisor
from tests.faults.traffic import Witness
from tests.support.hostile import Run

ENDS = {3, 5}  # no broker, a commit in doubt


def test_a_broker_that_dies_takes_nothing_along(
    make_case: Callable[..., Case],
    tmp_path: Path,
    late: bool,
    thorough: bool,
    tell: Callable[[str], None],
) -> None:
    (node,) = make_nodes(tmp_path / "kafka", 1)
    kafka = KafkaConnection(f"127.0.0.1:{node.port}")
    case = make_case(kafka, late=late)
    (rounds, down_s), chance = (5, 20.0) if thorough else (2, 3.0), random.Random(4)

    def kill() -> None:
        node.kill()
        time.sleep(chance.uniform(0, down_s))
        node.start()
        node.wait_started()

    try:
        codes = live_through(case, kill, rounds)
    finally:
        node.close()
    tell(f"T4: {rounds} kills of the broker; learners ended with {codes}")


@pytest.mark.long
def test_nor_does_a_secure_one(
    make_case: Callable[..., Case],
    tmp_path: Path,
    thorough: bool,
    tell: Callable[[str], None],
    run: Run,
) -> None:
    """Each learner logs in anew: users and what they may do are of the data that stays."""
    home, (port,) = tmp_path / "kafka", free_ports(1)
    (rounds, down_s), chance = (5, 20.0) if thorough else (3, 3.0), random.Random(5)
    with ExitStack() as stack:
        broker = stack.enter_context(embedded(home, port=port, secured=True))
        case = make_case(broker.kafka)
        grant(broker.kafka, acls([case.task]))
        case.config = client(home, "learner")

        def kill() -> None:
            nonlocal broker
            os.kill(broker.pid, signal.SIGKILL)
            time.sleep(chance.uniform(0, down_s))
            stack.pop_all().close()  # it is gone
            broker = stack.enter_context(embedded(home, port=port, secured=True))

        codes = live_through(case, kill, rounds)
        reader = ("--kafka-config", client(home, "reader"))
        done = run("verify", case.path, "--deep", "--json", *reader)
        assert (done.code, done.err) == (0, ""), done.err
        assert done.values[-1]["sound"], done.out
    tell(f"T4: {rounds} kills of a secure broker; learners ended with {codes}")


@pytest.mark.long
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_leaders_that_are_chased_take_nothing_along(
    make_case: Callable[..., Case],
    tmp_path: Path,
    tell: Callable[[str], None],
    fault: str,
) -> None:
    nodes = make_nodes(tmp_path / "kafka", 3)
    case = make_case(KafkaConnection(",".join(f"127.0.0.1:{node.port}" for node in nodes)))

    def kill() -> None:
        leader = nodes[leader_of(case.kafka, case.task.output("ledger")) - 1]
        leader.kill() if fault == "kill" else os.kill(leader.pid, signal.SIGSTOP)
        time.sleep(23)  # as Kafka's own tests: 18 s of a session, and 5 s of grace
        if fault == "kill":
            leader.start()
            leader.wait_started()
        else:
            os.kill(leader.pid, signal.SIGCONT)
        wait_in_sync(nodes, case)

    try:
        codes = live_through(case, kill, 5)
    finally:
        for node in nodes:
            node.close()
    tell(f"T4: {fault} of 5 leaders in a cluster of 3; learners ended with {codes}")


def live_through(case: Case, kill: Callable[[], None], rounds: int) -> list[int]:
    """Have Kafka killed while events come and are learned; give the codes that learners gave."""
    ledger = case.task.output("ledger")
    with Witness(case.kafka, [case.task.output("predictions"), ledger]) as witness:
        with (
            case.feeder(rate=150),
            Supervisor(case, "--micro-batch", "64") as supervisor,
        ):
            for _ in range(rounds):
                wait_for_news(witness, case, supervisor)
                kill()
            wait_for_news(witness, case, supervisor)
        assert set(supervisor.codes) <= ENDS, story(case, supervisor)
        case.drain()
    case.judge(witness)
    case.same_state_from_zero()
    return supervisor.codes


def wait_for_news(witness: Witness, case: Case, supervisor: Supervisor) -> None:
    """Wait until three more records are seen: a silent hang would end here."""
    ledger = case.task.output("ledger")
    seen = len(witness.seen.get((ledger, 0), ()))
    give_up_s = time.monotonic() + 120
    while len(witness.seen.get((ledger, 0), ())) < seen + 3:
        assert set(supervisor.codes) <= ENDS, story(case, supervisor)
        assert time.monotonic() < give_up_s, story(case, supervisor)
        time.sleep(0.05)


def story(case: Case, supervisor: Supervisor) -> str:
    """Tell how the learners ended, and what lies in the ledger, committed or not."""
    lives = zip(supervisor.codes, supervisor.errors, strict=False)
    found = read(case.kafka, case.task.output("ledger"), committed=False)[0]
    return "\n".join(
        (
            *(f"ended with {code}: {said}" for code, said in lives),
            *(f"at {at}: {value!r}" for at, value, _ in found[:40]),
        )
    )


def leader_of(kafka: KafkaConnection, topic: str) -> int:
    """Ask which node leads the one partition of a topic."""
    from kafka import KafkaAdminClient

    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        (found,) = admin.describe_topics([topic])
    leader: int = found["partitions"][0]["leader_id"]
    return leader


def wait_in_sync(nodes: list[Node], case: Case, timeout_s: float = 120.0) -> None:
    """Wait until every partition of the task has all its copies again."""
    from kafka import KafkaAdminClient

    give_up_s = time.monotonic() + timeout_s
    topics = [spec.name for spec in topic_specs(case.task)]
    while True:
        with KafkaAdminClient(bootstrap_servers=case.kafka.servers) as admin:
            found = admin.describe_topics(topics)
        if all(len(p["isr_nodes"]) == len(nodes) for t in found for p in t["partitions"]):
            return
        assert time.monotonic() < give_up_s, found
        time.sleep(0.5)
