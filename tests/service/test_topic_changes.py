"""Topics that are deleted, made again, grown, and overtaken by retention, before and while."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from headrace.stream.audit.replay import replay
from headrace.stream.audit.verify import verify
from headrace.stream.errors import HistoryError, RecoveryError, TopicError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.service import checkpointer
from headrace.stream.service.plan import plan
from headrace.stream.service.run import open_checkpoints, run_of
from headrace.stream.task import Task, parse
from tests.support.events import good, task_text
from tests.support.learners import life, records_of
from tests.support.running import Running
from tests.support.topics import forget, make_again, read, send


@pytest.fixture
def task(kafka: KafkaConnection) -> Task:
    name = f"change-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(kafka, topic_specs(made))
    return made


def grow(kafka: KafkaConnection, topic: str, partitions: int) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.create_partitions({topic: partitions})


def send_to(kafka: KafkaConnection, topic: str, partition: int, values: list[bytes]) -> None:
    with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
        for value in values:
            producer.send(topic, value, partition=partition).get(30)


def said(kafka: KafkaConnection, task: Task) -> list[tuple[int, int]]:
    lines = read(kafka, task.output("predictions"))
    return [(line["partition"], line["offset"]) for line in lines]


@pytest.mark.parametrize("more", [300, 100, 20])
def test_a_topic_made_again_while_stopped_is_not_taken_for_the_old_one(
    kafka: KafkaConnection, task: Task, more: int
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(100)])
    life(task, kafka)
    make_again(kafka, task.input.topic, [good(n) for n in range(1000, 1000 + more)])
    for _ in range(2):
        with pytest.raises(
            RecoveryError, match=r"made again: .*--accept-new-topic.*--from-scratch"
        ):
            life(task, kafka)
    audit = verify(task, kafka)
    assert audit.findings == [
        f"{task.input.topic}: it was deleted and made again since the last start"
    ]
    with pytest.raises(RecoveryError, match="made again"):
        replay(task, kafka)
    assert life(task, kafka, accept_new_topic=True).events == 100 + more
    assert life(task, kafka).events == 100 + more
    assert said(kafka, task) == [(0, n) for n in [*range(100), *range(more)]]
    assert verify(task, kafka).findings == []
    send(kafka, task.input.topic, [good(n) for n in range(5000, 5010)])
    assert life(task, kafka).events == 110 + more
    with pytest.raises(HistoryError, match=r"record #\d+ went on with a raw topic .* made again"):
        verify(task, kafka, deep=True)


def test_a_topic_made_again_is_gone_on_with_only_from_a_checkpoint(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(50)])
    life(task, kafka)
    make_again(kafka, task.input.topic, [good(n) for n in range(1000, 1080)])
    lost = str(tmp_path / "lost")
    with pytest.raises(RecoveryError, match=r"50 events .* learned again: begin --from-scratch"):
        life(task, kafka, state=lost, accept_new_topic=True)
    state = Path(os.environ["HEADRACE_STATE"])
    shutil.copytree(state, tmp_path / "old")
    life(task, kafka, accept_new_topic=True)
    before = [record.saved for record in records_of(task, kafka) if record.saved][-1]
    # The old checkpoint leads over the change of topics, to the very same state.
    assert life(task, kafka, state=str(tmp_path / "old")).events == 130
    kept = open_checkpoints(task, str(tmp_path / "old"), run_of(task, kafka), None)
    manifest = plan(task, kafka, kept, run_of(task, kafka)).manifest
    assert manifest
    assert manifest.state == before.state
    with pytest.raises(RecoveryError, match="went on with a raw topic that was made again"):
        life(task, kafka, state=lost)


@pytest.mark.parametrize("more", [0, 30, 300])
def test_a_topic_made_again_while_learning_ends_the_learner(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.3)
    send(kafka, task.input.topic, [good(n) for n in range(100)])
    with Running(task, kafka) as learner:
        learner.wait(lambda progress: progress.events == 100)
        learner.wait(lambda progress: progress.checkpoint_age_s is not None)
        make_again(kafka, task.input.topic, [good(n) for n in range(1000, 1000 + more)])
        error = learner.wait_error()
    assert isinstance(error, RecoveryError)
    assert "made again" in str(error)
    assert len(said(kafka, task)) == 100  # of the new topic, nothing was committed
    assert life(task, kafka, accept_new_topic=True).events == 100 + more
    assert verify(task, kafka).findings == []


def test_a_topic_that_is_deleted_while_learning_is_said_to_be_gone(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(10)])
    with Running(task, kafka) as learner:
        learner.wait(lambda progress: progress.events == 10)
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.delete_topics([task.input.topic])
        error = learner.wait_error()
    assert isinstance(error, TopicError)
    assert f"{task.input.topic} is not there any more" in str(error)
    with pytest.raises(TopicError, match=f"no topic {task.input.topic} at .*topics create"):
        life(task, kafka)
    assert (
        f"{task.input.topic}: it was deleted since the last start" in verify(task, kafka).findings
    )


@pytest.mark.parametrize("stage", ["predictions", "ledger"])
def test_a_missing_output_is_named(kafka: KafkaConnection, task: Task, stage: str) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_topics([task.output(stage)])
    with pytest.raises(TopicError, match=f"no topic {task.output(stage)} at .*topics create"):
        life(task, kafka)


def test_a_ledger_made_again_is_no_new_beginning(kafka: KafkaConnection, task: Task) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    make_ledger_again(kafka, task)
    with pytest.raises(RecoveryError, match=r"ledger was deleted, .*begin --from-scratch"):
        life(task, kafka)
    assert life(task, kafka, from_scratch=True).events == 20


def make_ledger_again(kafka: KafkaConnection, task: Task) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_topics([task.output("ledger")])
    give_up_s = time.monotonic() + 30
    while True:
        try:
            ensure(kafka, topic_specs(task))
            return
        except Exception:
            assert time.monotonic() < give_up_s
            time.sleep(0.05)


def test_outputs_made_again_are_noted_and_found_by_verify(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_topics([task.output("predictions")])
    with pytest.raises(TopicError):
        life(task, kafka)
    time.sleep(0.5)
    ensure(kafka, topic_specs(task))
    assert any(
        "predictions: it was deleted and made again" in f for f in verify(task, kafka).findings
    )
    with Running(task, kafka) as learner:
        pass
    assert f"{task.output('predictions')} was deleted and made again: what it held is gone" in (
        learner.notes
    )


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("origin", ["events", "features"])
def test_partitions_that_are_added_are_learned_from_their_start(
    kafka: KafkaConnection, task: Task, running: bool, origin: Any
) -> None:
    """The outputs grow with the raw topic; the ledger knows of each new partition."""
    topic, features = task.input.topic, task.output("features")
    feed = events_to if origin == "events" else rows_to
    feed(kafka, task, 0, [good(n) for n in range(30)])
    if running:
        with Running(task, kafka, origin) as learner:
            learner.wait(lambda progress: progress.events == 30)
            grow(kafka, topic, 3)
            grow(kafka, features, 3) if origin == "features" else None
            feed(kafka, task, 2, [good(n) for n in range(100, 140)])
            learner.wait(lambda progress: progress.events == 70)
            feed(kafka, task, 0, [good(n) for n in range(200, 210)])
            feed(kafka, task, 1, [good(n) for n in range(300, 320)])
            learner.wait(lambda progress: progress.events == 100 and progress.lag == 0)
    else:
        life(task, kafka, origin=origin)
        grow(kafka, topic, 3)
        for partition, count in ((2, 40), (1, 20), (0, 10)):
            first = 1000 * partition + 500
            feed(kafka, task, partition, [good(first + n) for n in range(count)])
        assert life(task, kafka, origin=origin).events == 100
    assert sorted(said(kafka, task)) == [
        (partition, n) for partition, count in ((0, 40), (1, 20), (2, 40)) for n in range(count)
    ]
    outputs = ["predictions", "dead-letter"] + (["features"] if origin == "features" else [])
    for found in describe(kafka, map(task.output, outputs)):
        assert found.partitions == 3
    assert verify(task, kafka, deep=True).findings == []
    assert life(task, kafka, origin=origin).events == 100


@pytest.mark.parametrize("running", [True, False])
def test_rows_made_again_are_read_from_their_beginning(
    kafka: KafkaConnection, task: Task, running: bool
) -> None:
    """More of them than were read before: nothing in the topic says that they are others."""
    features = task.output("features")
    rows_to(kafka, task, 0, [good(n) for n in range(30)])

    def again() -> None:
        make_again(kafka, features, [])
        rows_to(kafka, task, 0, [good(n) for n in range(30, 70)])

    if running:
        with Running(task, kafka, "features") as learner:
            learner.wait(lambda progress: progress.events == 30)
            again()
            error = learner.wait_error()
        assert (error.exit_code, "start again" in str(error)) == (5, True)
    else:
        life(task, kafka, origin="features")
        again()
    assert life(task, kafka, origin="features").events == 70
    assert life(task, kafka, origin="features").events == 70
    assert verify(task, kafka, deep=True).findings == []


def events_to(kafka: KafkaConnection, task: Task, partition: int, values: list[bytes]) -> None:
    send_to(kafka, task.input.topic, partition, values)


def rows_to(kafka: KafkaConnection, task: Task, partition: int, values: list[bytes]) -> None:
    """Send events, and the rows that a normaliser would make of them."""
    import msgspec

    from headrace.stream.events import Records
    from headrace.stream.rows.normalizer import Normalizer

    (raw,) = describe(kafka, [task.input.topic])
    first = raw.end[partition]
    send_to(kafka, task.input.topic, partition, values)
    count = len(values)
    offsets = list(range(first, first + count))
    records = Records(
        task.input.topic, [*values], [None] * count, [partition] * count, offsets, [0] * count
    )
    features, _ = Normalizer(task).features(records)
    ensure(kafka, topic_specs(task))
    rows = list(map(msgspec.msgpack.encode, features))
    send_to(kafka, task.output("features"), partition, rows)


def test_a_quiet_stream_is_kept_and_retention_may_overtake_it(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Events of transactions, whose last offsets hold markers; refused ones after a checkpoint."""
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.5)
    writer = kafka.transactions(f"{task.name}.writer")

    def write(values: list[bytes]) -> None:
        writer.begin()
        writer.send(task.input.topic, values)
        writer.commit()
        writer.await_commit()

    state, killed = Path(os.environ["HEADRACE_STATE"]), tmp_path / "killed"
    with Running(task, kafka) as learner:
        for last, end in ((good(0), 21), (b"refused", 42)):  # with a marker after each
            write([*[good(n) for n in range(1, 20)], last])
            wait_until(lambda end=end: newest(task, kafka, state) == {0: end})  # type: ignore[misc]
        forget(kafka, task.input.topic)
        assert learner.error is None
        shutil.copytree(state, killed)  # as kill -9 would leave it
    assert life(task, kafka, state=str(killed)).events == 20
    assert [record.predicted for record in records_of(task, kafka) if record.predicted] == [20]
    writer.close()


def newest(task: Task, kafka: KafkaConnection, state: Path) -> dict[int, int] | None:
    kept = open_checkpoints(task, str(state), run_of(task, kafka), None)
    found = plan(task, kafka, kept, run_of(task, kafka)).manifest
    return found.positions if found else None


def wait_until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < give_up_s
        time.sleep(0.1)


def test_retention_that_overtakes_a_learner_is_told_as_such(
    kafka: KafkaConnection, task: Task
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    send(kafka, task.input.topic, [good(n) for n in range(20, 30)])
    forget(kafka, task.input.topic)
    line = "offsets 20 to 29 were deleted .retention. before they were learned"
    with pytest.raises(HistoryError, match=line):
        life(task, kafka)
    send(kafka, task.input.topic, [good(n) for n in range(30, 35)])
    assert life(task, kafka, accept_loss=True).events == 25
    audit = verify(task, kafka)
    assert (audit.findings, audit.absent) == ([], 10)


def test_a_topic_that_is_not_there_is_no_broker_that_is_not_there(kafka: KafkaConnection) -> None:

    with pytest.raises(TopicError, match=r"nowhere: .*topics create") as caught:
        kafka.source("nowhere")
    assert caught.value.exit_code == 2
