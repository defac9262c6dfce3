"""Random schedules of faults; the judge looks after each. A seed repeats its schedule."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.campaign import Campaign
from tests.faults.case import Case
from tests.faults.nodes import Node, make_nodes

SEEDS = 200


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Yield a Kafka that may be frozen and killed."""
    (made,) = make_nodes(tmp_path / "kafka", 1)
    yield made
    made.close()


def test_no_schedule_of_faults_leaves_a_trace(
    node: Node,
    make_case: Callable[[KafkaConnection, int, bool], Case],
    late: bool,
    thorough: bool,
    tell: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """Ten schedules, or as many as SEEDS; HEADRACE_SEEDS=17,23 goes through those alone."""
    asked = os.environ.get("HEADRACE_SEEDS", "")
    seeds = [int(seed) for seed in asked.split(",") if seed] or range(SEEDS if thorough else 10)
    kinds: Counter[str] = Counter()
    events = refused = repeated = epochs = 0
    for seed in seeds:
        case = make_case(KafkaConnection(f"127.0.0.1:{node.port}"), 1 + seed % 2, late)
        campaign = Campaign(case, node, seed)
        try:
            verdict = campaign.run(30 if thorough else 9)
        except BaseException:
            print(campaign.story)  # noqa: T201
            raise
        kinds[campaign.kind] += 1
        events += verdict.events
        refused += verdict.rejected
        repeated += verdict.repeated
        epochs += verdict.epochs
    told = "late labels: " if late else ""
    told += ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
    tell(
        f"campaign: seeds {min(seeds)} to {max(seeds)} ({told}): {events} events, "
        f"{refused} refused, {repeated} repeated, {epochs} starts; no violation"
    )
