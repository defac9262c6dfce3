"""T1, T2, T10: a learner is killed with -9, at random and where it hurts; nothing shows of it."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from headrace import stream
from tests.faults.case import Case
from tests.faults.oracle import Oracle
from tests.faults.traffic import Feeder, Witness

SIZES = (16, 64, 200, 512)  # few, since each is compiled once
ONCE = ("fenced", "recovered")  # passed once in each start
AGAIN = (
    "taken",
    "submitted",
    "transaction begun",
    "record sent",
    "predictions sent",
    "drift sent",
    "dead-letter sent",
    "before commit",
    "commit begun",
    "flushed",
    "committed",
    "confirmed",
    "checkpoint: tensors written",
    "checkpoint: tensors synced",
    "checkpoint: tensors renamed",
    "checkpoint: manifest written",
    "checkpoint: manifest synced",
    "checkpoint: manifest renamed",
    "checkpoint: pruned",
)


def test_kills_at_random_moments_leave_no_trace(
    case: Case, thorough: bool, tell: Callable[[str], None]
) -> None:
    kill_at_random(case, 500 if thorough else 16, thorough, tell)


def test_nor_do_they_on_a_secure_broker(
    guarded_case: Case, thorough: bool, tell: Callable[[str], None]
) -> None:
    kill_at_random(guarded_case, 100 if thorough else 6, thorough, tell)


def kill_at_random(case: Case, kills: int, thorough: bool, tell: Callable[[str], None]) -> None:
    """Kill so many learners, at any moment, and check all invariants."""
    chance = random.Random(1)
    begun: list[float] = []
    outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
    with Witness(case.kafka, outputs) as witness:
        with Feeder(case.kafka, case.task.input.topic, case.acks, rate=200) as feeder:
            sizes = chance.choices(SIZES, k=kills)
            cold = (case.learn("--micro-batch", str(size)) for size in sizes)
            warm = case.relay({"size": size} for size in sizes)
            for learner in cold if thorough else warm:
                begun.append(learner.begun_s)
                early = chance.random() < 0.2
                if early or not learner.wait_ready():
                    time.sleep(chance.uniform(0, 1))
                else:
                    time.sleep(chance.uniform(0, 2 if thorough else 0.7))
                assert learner.kill() == -9, learner.errors
        over_s = time.time()
        case.drain()
    verdict = Oracle(case.kafka, case.task.name, case.task.input.topic).judge(case.acks, witness)
    assert verdict.acknowledged == feeder.sent
    case.same_state_from_zero()
    case.undisturbed(verdict)
    openings = witness.openings(case.task.output("ledger"))
    first_s = [at - max(s for s in begun if s < at) for at in openings if at < over_s]
    tell(
        f"T1: {kills} kills, {verdict.events} events ({verdict.rejected} poison, "
        f"{verdict.repeated} repeated), 0 duplicates, 0 losses, {verdict.epochs} epochs; from "
        f"{'the start' if thorough else 'a compiled learner'} to its first commit: median "
        f"{statistics.median(first_s):.2f} s, max {max(first_s):.2f} s"
    )


def test_kills_at_every_failpoint_leave_no_trace(
    each_case: Case, thorough: bool, tell: Callable[[str], None]
) -> None:
    case = each_case
    if thorough:
        points = [f"{name}:1" for name in ONCE] + [f"{n}:{h}" for n in AGAIN for h in (1, 2, 10)]
    else:
        points = [f"{name}:1" for name in ONCE]
        points += [f"{name}:{(1, 2, 10)[at % 3]}" for at, name in enumerate(AGAIN)]
    outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
    with Witness(case.kafka, outputs) as witness:
        with Feeder(case.kafka, case.task.input.topic, case.acks, rate=200) as feeder:
            lives = (
                {"size": SIZES[at % 2], "failpoint": point, "checkpoint_events": 20}
                for at, point in enumerate(points)
            )
            for point, learner in zip(points, case.relay(lives), strict=True):
                assert learner.wait(60) == -9, f"{point}: {learner.errors}"
        case.drain()
    verdict = Oracle(case.kafka, case.task.name, case.task.input.topic).judge(case.acks, witness)
    assert verdict.acknowledged == feeder.sent
    case.same_state_from_zero()
    tell(f"T2: {len(points)} kills at failpoints, {verdict.events} events, none lost or doubled")


def test_no_failpoint_of_the_learner_is_left_out() -> None:
    named = set()
    for path in Path(stream.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r'failpoint\("([^"]+)"\)', path.read_text()))
    # An archive's, and one that only a run with a saved learner passes: tests of their own.
    assert named - {"archive claimed", "start kept"} <= {*ONCE, *AGAIN}
