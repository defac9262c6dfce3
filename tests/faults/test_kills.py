"""T1, T2, T10: a learner is killed with -9, at random and where it hurts; nothing shows of it."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from headrace import stream
from headrace.producers.late_labels import LateLabels
from headrace.producers.publish import publish
from headrace.producers.sources import file
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows import label_delay
from tests.faults.case import Case
from tests.faults.oracle import newest_state
from tests.faults.reading import read
from tests.faults.traffic import Witness
from tests.support.events import good

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
RELEASING = ("release: chunks sent", "release: manifest sent", "release: committed")

AMID = (
    "recovered:1",
    "taken:2",
    "predictions sent:3",
    "flushed:2",
    "committed:1",
    "checkpoint: manifest renamed:1",
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
        with case.feeder() as feeder:
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
    verdict = case.judge(witness)
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
        points = [f"{name}:1" for name in (*ONCE, *RELEASING)]
        points += [f"{n}:{h}" for n in AGAIN for h in (1, 2, 10)]
    else:
        points = [f"{name}:1" for name in (*ONCE, *RELEASING)]
        points += [f"{name}:{(1, 2, 10)[at % 3]}" for at, name in enumerate(AGAIN)]
    outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
    with Witness(case.kafka, outputs) as witness:
        with case.feeder() as feeder:
            lives = (
                {"size": SIZES[at % 2], "failpoint": point, "checkpoint_events": 20}
                for at, point in enumerate(points)
            )
            for point, learner in zip(points, case.relay(lives), strict=True):
                assert learner.wait(60) == -9, f"{point}: {learner.errors}"
        case.drain()
    verdict = case.judge(witness)
    assert verdict.acknowledged == feeder.sent
    case.same_state_from_zero()
    tell(f"T2: {len(points)} kills at failpoints, {verdict.events} events, none lost or doubled")


def test_kills_amid_a_backlog_of_late_labels_end_as_if_there_were_none(
    kafka: KafkaConnection,
    make_case: Callable[..., Case],
    thorough: bool,
    tell: Callable[[str], None],
) -> None:
    """What was there before a start is learned in the order in which it came, by whoever does.

    So what is predicted is what `evaluate --label-delay` predicts, to the bit; and the state is
    that of a run that nothing disturbs.
    """
    case, chance = make_case(kafka, partitions=1, late=True), random.Random(9)
    path = case.home / "events.jsonl"
    lines = [good(number) for number in range(4_000 if thorough else 1_000)]
    path.write_bytes(b"\n".join(lines))
    late = LateLabels(case.task, label_delay.parse("exp(40)"))
    sent = publish(file(path), kafka=kafka, topic=case.task.input.topic, labels=late)
    assert sent.acknowledged == 2 * len(lines)
    points = [f"{name}:1" for name in (*ONCE, *AGAIN)] if thorough else [*AMID]
    points += [f"{name}:{chance.randint(2, 5)}" for name in AGAIN[:12] * 2 if thorough]
    lives = (
        {
            "size": 16,
            "failpoint": point,
            "checkpoint_events": 20,
            "settings": {"headrace.stream.service.service.GROUP_S": 0.0},
        }
        for point in points
    )
    for point, learner in zip(points, case.relay(lives), strict=True):
        assert learner.wait(60) == -9, f"{point}: {learner.errors}"
    small = ("--micro-batch", "16")  # compiled already
    assert case.drain(*small)["events"] == len(lines)
    verdict = case.judge()
    assert len(verdict.labels) == len(lines)
    trace = case.home / "trace.parquet"
    evaluate(case.task, path, label_delay="exp(40)", trace=trace)
    said = np.array([line["probabilities"] for line in verdict.lines], np.float32)
    wanted = np.array(pq.read_table(trace)["probabilities"].to_pylist(), np.float32)
    assert said.tobytes() == wanted.tobytes()
    state = case.same_state_from_zero(*small)
    case.drain(*small, "--from-scratch", state="undisturbed")
    assert newest_state(case.state("undisturbed"), case.task.name)[1] == state
    predictions = [each.value for each in read(kafka, case.task.output("predictions"))[0]]
    assert predictions[: len(lines)] == predictions[len(lines) :]
    tell(f"T2: {len(points)} kills amid {len(lines)} events and their late labels, as if none")


def test_no_failpoint_of_the_learner_is_left_out() -> None:
    named = set()
    for path in Path(stream.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r'failpoint\("([^"]+)"\)', path.read_text()))
    # An archive's, and one that only a run with a saved learner passes: tests of their own.
    assert named - {"archive claimed", "start kept"} <= {*ONCE, *AGAIN, *RELEASING}
