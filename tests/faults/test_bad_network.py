"""T6: replies of EndTxn and Produce come late or never; the client retries, or nobody knows."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.case import Case
from tests.faults.nodes import free_ports, make_nodes
from tests.faults.proxy import END_TRANSACTION, PRODUCE, Proxy
from tests.faults.supervisor import Supervisor
from tests.faults.traffic import Witness


def test_replies_that_never_come_lose_and_double_nothing(
    make_case: Callable[..., Case],
    tmp_path: Path,
    late: bool,
    thorough: bool,
    tell: Callable[[str], None],
) -> None:
    (transactions, late_s), chance = (200, 5.0) if thorough else (12, 3.0), random.Random(6)
    (port,) = free_ports(1)
    (node,) = make_nodes(tmp_path / "kafka", 1, advertised=port)
    good = False

    def hurts(key: int) -> str:
        share = {END_TRANSACTION: 0.3, PRODUCE: 0.1}.get(key, 0)
        return chance.choice(("late", "cut")) if not good and chance.random() < share else ""

    try:
        with Proxy(port, node.port, hurts, late_s=late_s) as proxy:
            case = make_case(KafkaConnection(f"127.0.0.1:{port}"), late=late)
            outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
            with (
                Witness(case.kafka, outputs) as witness,
                case.feeder(rate=100) as feeder,
                Supervisor(
                    case,
                    "--micro-batch",
                    "64",
                    settings={"headrace.stream.kafka.transactions.COMMIT_S": 2.5},
                ) as supervisor,
            ):
                give_up_s = time.monotonic() + 40 * transactions
                while proxy.requests[END_TRANSACTION] < transactions or not all(
                    proxy.hurt[END_TRANSACTION, how] for how in ("late", "cut")
                ):
                    assert time.monotonic() < give_up_s, proxy.requests
                    time.sleep(0.1)
                good = True
                feeder.close()
            assert set(supervisor.codes) <= {3, 5, 6}, (supervisor.codes, supervisor.errors)
            case.drain()
            case.judge(witness)
            case.same_state_from_zero()
            assert proxy.hurt[END_TRANSACTION, "cut"]
            assert proxy.hurt[END_TRANSACTION, "late"]
    finally:
        node.close()
    tell(
        f"T6: {proxy.requests[END_TRANSACTION]} transactions, hurt: {dict(proxy.hurt)}; learners "
        f"ended with {dict(Counter(supervisor.codes))}"
    )
