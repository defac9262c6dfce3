"""T3: a learner that stood still while another took over, or while Kafka gave up on it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.faults.case import Case
from tests.faults.reading import ends
from tests.faults.supervisor import Supervisor
from tests.faults.traffic import Witness

PLACES = (
    "predictions sent:3",
    "flushed:2",
    "committed:2",
    "record sent:2",
    "before commit:3",
    "commit begun:2",
    "taken:4",
    "confirmed:3",
)


def test_a_zombie_is_fenced_and_writes_nothing_that_shows(
    each_case: Case, thorough: bool, tell: Callable[[str], None]
) -> None:
    case = each_case
    outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
    codes = []
    with Witness(case.kafka, outputs) as witness:
        with case.feeder():
            places = PLACES if thorough else PLACES[:3]
            for at, place in enumerate(places):
                zombie = case.learn(
                    "--micro-batch", "64", failpoint=place, stops=True, state=f"state-{at}"
                )
                zombie.wait_stopped()
                heir = case.learn("--micro-batch", "64", state="state")
                assert heir.wait_ready(), heir.errors
                time.sleep(0.5)
                zombie.send(signal.SIGCONT)
                codes.append(zombie.wait(60))
                assert codes[-1] == 6, f"{place}: {zombie.errors}"
                assert heir.code is None, heir.errors
                heir.send(signal.SIGTERM)
                assert heir.wait() == 0, heir.errors
        case.drain()
    verdict = case.judge(witness)
    case.same_state_from_zero()
    tell(f"T3: zombies at {places} ended with {codes}; {verdict.events} events")


def test_one_that_slept_through_its_transaction_starts_again(each_case: Case) -> None:
    case = each_case
    ledger = case.task.output("ledger")
    with case.feeder():
        sleeper = case.learn(
            *("--micro-batch", "64"),
            failpoint="flushed:5",
            stops=True,
            settings={"headrace.stream.kafka.sink.TRANSACTION_S": 2.0},
        )
        sleeper.wait_stopped()
        undecided = ends(case.kafka, ledger, committed=False)
        assert ends(case.kafka, ledger, committed=True) != undecided
        give_up_s = time.monotonic() + 60  # Kafka looks for what is overdue every 10 s
        while ends(case.kafka, ledger, committed=True) != ends(case.kafka, ledger, committed=False):
            assert time.monotonic() < give_up_s
            time.sleep(0.5)
        sleeper.send(signal.SIGCONT)
        assert sleeper.wait(60) == 5, sleeper.errors  # nobody took over: it may start again
    case.drain()
    case.judge()
    case.same_state_from_zero()


def test_learners_under_supervisors_come_down_to_one(each_case: Case) -> None:
    """Each is started again a second after it ended, if its exit code lets it be (operations.md).

    One that another has fenced must not be, or they would fence each other for ever.
    """
    case = each_case
    options = ("--micro-batch", "64")
    with (
        case.feeder(),
        ExitStack() as stack,
    ):
        kept = [
            stack.enter_context(
                Supervisor(case, *options, state=f"state-{at}", again={3, 4, 5, 70}, pause_s=1.0)
            )
            for at in range(3)
        ]
        give_up_s = time.monotonic() + 120
        while sum(each.running for each in kept) > 1:
            assert time.monotonic() < give_up_s, [each.codes for each in kept]
            time.sleep(0.2)
        (last,) = [each for each in kept if each.running]
        assert last.learner.wait_ready()
        time.sleep(5)
        assert last.running, last.errors
        ended = [each.codes[-1] for each in kept if not each.running]
        assert ended == [6, 6], [each.codes for each in kept]
    case.drain(state=f"state-{kept.index(last)}")
    case.judge()
