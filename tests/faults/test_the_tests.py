"""The judge is judged: bugs that are known are put in, and it has to find each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from tests.faults.case import Case
from tests.faults.oracle import Oracle, Violation
from tests.faults.reading import Found
from tests.faults.traffic import Feeder, Seen, Witness


@pytest.fixture
def fed(kafka: KafkaConnection, make_case: Callable[..., Case]) -> Case:
    """Return a task with 1,200 events."""
    case = make_case(kafka)
    with Feeder(case.kafka, case.task.input.topic, case.acks, rate=2_000) as feeder:
        while feeder.sent < 1_200:
            time.sleep(0.05)
    return case


def judged(case: Case) -> str:
    """Return the name of the first invariant that does not hold; "" if all do."""
    try:
        Oracle(case.kafka, case.task.name, case.task.input.topic).judge(case.acks)
    except Violation as found:
        return found.name
    return ""


def test_a_commit_that_lies_is_read_back_and_ends_the_learner(fed: Case) -> None:
    liar = fed.learn(
        *("--micro-batch", "64", "--drain"),
        mutants=("lying_commit",),
        settings={"headrace.stream.ledger.ledger.BACK_S": 2.0},
    )
    assert liar.wait() == 5, liar.errors
    assert "cannot be read back" in liar.errors
    fed.drain()
    assert judged(fed) == ""


def test_without_reading_back_the_lie_is_a_loss_that_the_judge_finds(fed: Case) -> None:
    fed.drain("--micro-batch", "64", mutants=("lying_commit", "no_read_back"))
    assert judged(fed) == "I6"
    oracle = Oracle(fed.kafka, fed.task.name, fed.task.input.topic)
    records = [json.loads(each.value or b"") for each in oracle.ledger]
    with pytest.raises(Violation, match=r"I1: |I6: .* after"):  # no record speaks of them
        oracle.accounted(records, fed.acks)


def test_a_chain_that_seals_nothing_is_found(fed: Case) -> None:
    fed.drain("--micro-batch", "64", mutants=("hollow_chain",))
    assert judged(fed) == "I6"


def test_predictions_beside_the_transaction_are_found(fed: Case) -> None:
    killed = fed.learn(
        "--micro-batch", "64", failpoint="before commit:4", mutants=("loose_outputs",)
    )
    assert killed.wait() == -9, killed.errors
    fed.drain("--micro-batch", "64", mutants=("loose_outputs",))
    assert judged(fed) in ("I2", "I4")  # by where the second life cuts what the first one said


def test_offsets_that_move_on_before_the_commit_are_found(fed: Case) -> None:
    killed = fed.learn(
        "--micro-batch", "64", failpoint="before commit:4", mutants=("offsets_first",)
    )
    assert killed.wait() == -9, killed.errors
    fed.drain("--micro-batch", "64", mutants=("offsets_first",))
    assert judged(fed) in ("I6", "I1")


def test_each_thing_done_to_a_good_run_is_found(fed: Case) -> None:
    outputs = [fed.task.output(stage) for stage in ("predictions", "ledger")]
    with Witness(fed.kafka, outputs) as witness:
        fed.drain("--micro-batch", "64")
        while len(witness.seen.get((outputs[1], 0), ())) < 9:
            assert witness.alive
    oracle = Oracle(fed.kafka, fed.task.name, fed.task.input.topic)
    verdict = oracle.judge(fed.acks, witness)
    assert verdict.used + verdict.rejected + verdict.repeated == verdict.acknowledged >= 1_200

    predictions, ledger, letters = (
        oracle.predictions[1],
        oracle.ledger,
        max(oracle.letters.values(), key=len),
    )
    again = Found(predictions[-1].offset + 1, predictions[7].value)
    spaced = Found(predictions[7].offset, (predictions[7].value or b"").replace(b":", b": ", 1))
    grown = Found(ledger[3].offset, (ledger[3].value or b"").replace(b'"used":', b'"used":1'))
    tampered: list[tuple[str, list[Found], list[Found]]] = [
        ("I1", predictions, [*predictions[:7], *predictions[8:]]),
        ("I2", predictions, [*predictions, again]),
        ("I2", predictions, [predictions[1], predictions[0], *predictions[2:]]),
        ("I4", predictions, [*predictions[:7], spaced, *predictions[8:]]),
        ("I6", ledger, [*ledger[:3], *ledger[4:]]),
        ("I6", ledger, [*ledger[:3], ledger[4], ledger[3], *ledger[5:]]),
        ("I6", ledger, [*ledger[:3], grown, *ledger[4:]]),
        ("I2", ledger, ledger[:-3]),
        ("I10", letters, letters[1:]),
        ("I10", letters, [*letters, letters[0]]),
    ]
    for name, place, changed in tampered:
        kept = place[:]
        place[:] = changed
        with pytest.raises(Violation) as found:
            oracle.judge(fed.acks)
        assert found.value.name == name, found.value
        place[:] = kept
    with fed.acks.open("a") as acks:
        acks.write("1000000 0 1000000\n")
    with pytest.raises(Violation, match=r"I1: .*gone"):
        oracle.judge(fed.acks)
    witness.seen[outputs[1], 0].append(Seen(10**6, b"{}"))
    with pytest.raises(Violation, match="I7"):
        oracle.judge(None, witness)
