"""What somebody deletes that a learner needs: of its ledger, of the events, of its checkpoints."""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition

from headrace.stream.audit.replay import replay
from headrace.stream.audit.verify import verify
from headrace.stream.errors import AuditError, RecoveryError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.ledger import ledger
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from tests.support.commands import await_line, headrace
from tests.support.events import good, task_text
from tests.support.learners import life, records_of
from tests.support.topics import forget, send


@pytest.fixture
def task(kafka: KafkaConnection) -> Task:
    name = f"lost-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(kafka, topic_specs(made))
    return made


def test_a_ledger_that_was_emptied_is_no_new_beginning(kafka: KafkaConnection, task: Task) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(100)])
    life(task, kafka)
    forget(kafka, task.output("ledger"))
    forget(kafka, task.output("predictions"))  # as its retention does while nothing comes
    for _ in range(2):
        with pytest.raises(RecoveryError, match=r"ledger is empty, and was not always.*scratch"):
            life(task, kafka)
    assert life(task, kafka, from_scratch=True).events == 100


def test_a_ledger_that_lost_its_beginning_is_told_as_such(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(100)])
    life(task, kafka)
    entries = list(ledger.read(kafka, task.output("ledger")))
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_records({TopicPartition(task.output("ledger"), 0): entries[1].offset})
    gone = f"records before offset {entries[1].offset} were deleted"
    notes: list[str] = []
    safety = Safety(os.environ["HEADRACE_STATE"])
    send(kafka, task.input.topic, [good(n) for n in range(100, 150)])
    after = learn(
        task,
        kafka,
        origin="events",
        safety=safety,
        micro_batch=64,
        drain=True,
        on_note=notes.append,
    )
    assert after.events == 150  # its checkpoint is as good as before
    assert any(gone in note for note in notes)
    with pytest.raises(RecoveryError, match=f"{gone}.*--from-scratch"):
        life(task, kafka, state=str(tmp_path / "none"))
    assert verify(task, kafka).findings[0] == f"{task.output('ledger')}: {gone}"
    with pytest.raises(AuditError, match=f"{gone}.*beginning of run"):
        replay(task, kafka)


def test_a_loss_is_accepted_once(kafka: KafkaConnection, task: Task) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    send(kafka, task.input.topic, [good(n) for n in range(20, 50)])
    forget(kafka, task.input.topic)
    with pytest.raises(RecoveryError, match="--accept-loss"):
        life(task, kafka)
    assert life(task, kafka, accept_loss=True).events == 20
    assert life(task, kafka).events == 20
    assert [each for r in records_of(task, kafka) for each in r.consumed][-1] == (0, 20, 50, 0)
    assert verify(task, kafka).findings == []


def test_a_drain_tells_of_records_that_an_open_transaction_hides(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(10)])
    life(task, kafka)  # compiled: the transaction must not time out meanwhile
    with closing(kafka.transactions(f"{task.name}.stranger")) as stranger:
        stranger.begin()
        stranger.send(task.input.topic, [good(n) for n in range(10, 15)])
        stranger._sink.flush()
        notes: list[str] = []
        learn(
            task,
            kafka,
            origin="events",
            safety=Safety(os.environ["HEADRACE_STATE"]),
            drain=True,
            on_note=notes.append,
        )
        assert "5 records wait and cannot be read" in notes[-1]
        stranger.commit()
        stranger.await_commit()
    assert life(task, kafka).events == 15


def test_a_second_signal_ends_at_once_and_in_doubt(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    path = tmp_path / "task.toml"
    path.write_text(task_text(task.name))
    send(kafka, task.input.topic, [good(n) for n in range(50)])
    with headrace("learn", str(path), "-b", kafka.servers, "--json") as learner:
        await_line(learner, '"events": 50')
        learner.send_signal(signal.SIGTERM)
        time.sleep(0.01)
        learner.send_signal(signal.SIGINT)
        assert learner.stderr
        said = learner.stderr.read()
        code = learner.wait(10)
    assert code in (0, 5), said  # 0 where the first was quicker
    assert "Traceback" not in said
    assert code == 0 or "the last commit is in doubt, start again" in said
    assert life(task, kafka).events == 50
    assert verify(task, kafka).findings == []
