"""T7: normalisers are killed, or wrote nonsense; what is double is dropped, the rest healed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import msgspec
import psutil
import pytest

from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows.normalizer import Normalizer
from tests.faults.case import Case
from tests.faults.forge import Forged
from tests.faults.oracle import Oracle, newest_state
from tests.faults.reading import ends, read
from tests.faults.traffic import Witness
from tests.support.events import good


def test_normalisers_that_are_killed_lose_nothing(
    case: Case, thorough: bool, tell: Callable[[str], None]
) -> None:
    kills, chance = (12 if thorough else 2), random.Random(7)
    outputs = [case.task.output(stage) for stage in ("predictions", "ledger")]
    with Witness(case.kafka, outputs) as witness:
        with case.feeder(rate=150) as feeder:
            learner = case.learn("--from", "features", "--micro-batch", "64")
            normaliser = normalise(case)
            for kill in range(kills):
                wait_for_rows(case, 200)
                time.sleep(chance.uniform(0, 1))
                if kill % 3 == 2:  # all of it; before, a worker, which it starts again
                    normaliser.kill()
                    normaliser = normalise(case)
                else:
                    (worker,) = psutil.Process(normaliser.pid).children()
                    worker.kill()
                if kill % 2:
                    assert learner.kill() == -9, learner.errors
                    learner = case.learn("--from", "features", "--micro-batch", "200")
            feeder.close()
            wait_until(lambda: covered(case))
            normaliser.send(signal.SIGTERM)
            assert normaliser.wait(30) == 0, normaliser.errors
        assert learner.wait_ready(), learner.errors  # else it is a start that is interrupted
        learner.send(signal.SIGTERM)
        assert learner.wait() == 0, learner.errors
        case.drain("--from", "features")
    verdict = case.judge(witness, fused=False)
    case.same_state_from_zero("--from", "features")
    tell(
        f"T7: {kills} kills of normalisers, {verdict.events} events, {verdict.duplicates} rows "
        f"dropped as double, {verdict.healed} healed, none lost"
    )


def normalise(case: Case) -> Forged:
    """Start `headrace normalize`."""
    started = case.forge.start("normalize", str(case.path), "-b", case.kafka.servers, "--json")
    assert started.wait_ready(120), started.errors
    return started


def covered(case: Case) -> bool:
    """Return whether the last event of each partition has its row."""
    rows = read(case.kafka, case.task.output("features"))
    last = {
        p: max((msgspec.msgpack.decode(each.value or b"")[2] for each in found), default=-1)
        for p, found in rows.items()
    }
    now = ends(case.kafka, case.task.input.topic, committed=True)
    return all(last[p] + 1 == end for p, end in now.items())


def wait_for_rows(case: Case, more: int) -> None:
    """Wait until so many more rows are there."""
    topic = case.task.output("features")

    def count() -> int:
        return sum(ends(case.kafka, topic, committed=True).values())

    wanted = count() + more
    wait_until(lambda: count() >= wanted)


def wait_until(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.2)


@pytest.mark.long
def test_rows_that_are_missing_double_or_nonsense_are_healed(
    kafka: KafkaConnection, make_case: Callable[..., Case]
) -> None:
    from kafka import KafkaProducer

    case, chance = make_case(kafka, partitions=1), random.Random(8)
    values: list[bytes | None] = [good(n) if n % 50 else b"hello" for n in range(500)]
    count = len(values)
    producer = KafkaProducer(bootstrap_servers=kafka.servers)
    for value in values:
        producer.send(case.task.input.topic, value)
    records = Records(
        case.task.input.topic, values, [None] * count, [0] * count, [*range(count)], []
    )
    rows, _ = Normalizer(case.task).features(records)
    missing = doubled = 0
    for at, row in enumerate(rows):
        raw, kind = msgspec.msgpack.encode(row), chance.random()
        if kind < 0.1 and at < count - 1:
            missing += 1
            if kind < 0.03:  # something else stands there
                nonsense = (
                    b"\xc1\x00garbage",
                    raw[: len(raw) // 2],
                    raw.replace(b"events.", b"strange"),
                )
                producer.send(case.task.output("features"), chance.choice(nonsense))
            continue
        producer.send(case.task.output("features"), raw)
        if kind > 0.9:
            doubled += 1
            producer.send(case.task.output("features"), raw)
    beyond = msgspec.structs.replace(rows[-1], offset=count + 5)  # of an event that never was
    producer.send(case.task.output("features"), msgspec.msgpack.encode(beyond))
    producer.close()

    broken = case.learn("--from", "features", "--micro-batch", "16", failpoint="before commit:9")
    assert broken.wait() == -9, broken.errors
    case.drain("--from", "features", "--micro-batch", "64")
    verdict = Oracle(kafka, case.task.name, case.task.input.topic).judge(fused=False)
    assert (verdict.healed, verdict.duplicates) == (missing, doubled)
    assert verdict.events == count
    state = case.same_state_from_zero("--from", "features")
    case.drain("--from", "events", "--from-scratch")
    assert newest_state(case.state(), case.task.name)[1] == state
