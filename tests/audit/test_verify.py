"""What an audit has to find: each of it is done to a sound run, and found."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from headrace import Service
from headrace.stream.audit.verify import verify
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Consumed, Entry, Record
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service import checkpointer
from headrace.stream.service.plan import plan
from headrace.stream.service.run import open_checkpoints, run_of
from headrace.stream.task import Task, parse
from headrace.stream.training.snapshot import digest
from tests.support.checkpoints import resealed
from tests.support.events import TASK, good, task_text
from tests.support.learners import checkpoints, life, records_of
from tests.support.memory_kafka import MemoryKafka
from tests.support.running import Running
from tests.support.topics import read, send


@pytest.fixture
def task(kafka: KafkaConnection) -> Task:
    name = f"audit-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(kafka, topic_specs(made))
    return made


@pytest.fixture
def lived(kafka: KafkaConnection, task: Task) -> Task:
    """Return a task that has learned 60 events in two lives, soundly."""
    for first in (0, 30):
        send(kafka, task.input.topic, [good(n) for n in range(first, first + 30)])
        life(task, kafka, micro_batch=16)
    assert verify(task, kafka, deep=True).findings == []
    return task


def test_events_that_come_while_a_checkpoint_is_told_of_do_not_count_before_their_record(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, and checkpoints all the while: each is told of when the next event may come."""
    monkeypatch.setattr(checkpointer, "EVERY_S", 0.0)
    with (
        KafkaProducer(bootstrap_servers=kafka.servers) as producer,
        Running(task, kafka) as learner,
    ):
        for number in range(300):
            producer.send(task.input.topic, good(number)).get(20)
            time.sleep(number % 10 / 1_000)
        learner.wait(lambda progress: progress.events == 300)
    assert sum(record.saved is not None for record in records_of(task, kafka)) > 10
    assert verify(task, kafka, deep=True).findings == []


def findings(task: Task, kafka: KafkaConnection, **options: Any) -> str:
    return "\n".join(verify(task, kafka, **options).findings)


def write(kafka: KafkaConnection, topic: str, value: bytes, partition: int = 0) -> None:
    with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
        producer.send(topic, value, partition=partition).get(20)


def forge(kafka: KafkaConnection, task: Task, **said: Any) -> None:
    """Append a record with a chain as good as any, as one who may write to the ledger can."""
    tip = ledger.tip(kafka, task.output("ledger"))
    assert tip
    bare = Record(
        seq=tip.record.seq + 1, run=tip.record.run, epoch=tip.record.epoch, time_ms=0, **said
    )
    write(kafka, task.output("ledger"), ledger.encode(ledger.seal(bare, tip.record.chain)))


def test_a_doubled_prediction(kafka: KafkaConnection, lived: Task) -> None:
    topic = lived.output("predictions")
    write(kafka, topic, json.dumps(read(kafka, topic)[7]).encode())
    assert findings(lived, kafka) == f"{topic}/0: 1 predictions that the ledger does not know"


def test_a_missing_record(kafka: KafkaConnection, lived: Task) -> None:
    entries = list(ledger.read(kafka, lived.output("ledger")))
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        place = TopicPartition(lived.output("ledger"), 0)
        admin.delete_records({place: entries[2].offset})
    assert "record 2: expected record 0" in findings(lived, kafka)


@pytest.mark.parametrize(
    ("consumed", "line"),
    [
        (Consumed(0, 70, 80, 0), "takes offsets 70 to 80 of partition 0, where 60 was next"),
        (Consumed(0, 50, 60, 0), "takes offsets 50 to 60 of partition 0, where 60 was next"),
        (Consumed(7, 0, 10, 0), "the ledger takes from partition 7, there is none"),
    ],
)
def test_offsets_that_were_never_there(
    kafka: KafkaConnection, lived: Task, consumed: Consumed, line: str
) -> None:
    forge(kafka, lived, consumed=(consumed,))
    assert line in findings(lived, kafka)


def test_predictions_of_a_partition_that_is_none(kafka: KafkaConnection, lived: Task) -> None:
    forge(kafka, lived, consumed=(Consumed(7, 0, 10, 10),), predicted=10, predictions="00")
    assert f"predicts partition 7, which {lived.output('predictions')} has not" in findings(
        lived, kafka
    )


def test_a_position_that_was_changed(kafka: KafkaConnection, lived: Task) -> None:
    forge(kafka, lived, position="0123456789abcdef")
    assert "the learner stood elsewhere than its records lead to" in findings(lived, kafka)


def test_a_record_that_was_changed(kafka: KafkaConnection, lived: Task) -> None:
    tip = ledger.tip(kafka, lived.output("ledger"))
    assert tip
    changed = msgspec.structs.replace(tip.record, seq=tip.record.seq + 1, predicted=1)
    write(kafka, lived.output("ledger"), ledger.encode(changed))
    assert "its chain does not follow" in findings(lived, kafka)


def test_a_forged_row(kafka: KafkaConnection, task: Task) -> None:
    """Rows are believed while they are learned; from the raw events all comes out otherwise."""
    values: list[bytes | None] = [good(n) for n in range(40)]
    forged = [good(n, x=9) if n == 33 else good(n) for n in range(40)]
    send(kafka, task.input.topic, values)
    records = Records(task.input.topic, [*forged], [None] * 40, [0] * 40, list(range(40)), [0] * 40)
    features, _ = Normalizer(task).features(records)
    send(kafka, task.output("features"), [msgspec.msgpack.encode(row) for row in features])
    life(task, kafka, origin="features", micro_batch=8)
    assert findings(task, kafka) == ""
    assert "comes out otherwise when it is learned again" in findings(task, kafka, deep=True)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: m["positions"].update({"0": 50}), "stands elsewhere than the ledger does"),
        (lambda m: m["counts"].update(events=61), "stands elsewhere than the ledger does"),
        (lambda m: m.update(state="0" * 64), "holds another state than it says"),
        (lambda m: m.update(chain="0" * 64), "is not the ledger's"),
        (lambda m: m.update(ledger_offset=0), "is not the ledger's"),
        (lambda m: m.update(ledger_offset=10**6), "is not the ledger's"),
        (lambda m: m.update(ledger_offset=2**70), "it is no manifest of format"),
    ],
)
def test_a_checkpoint_that_was_changed_and_sealed_again(
    kafka: KafkaConnection, lived: Task, change: Any, line: str
) -> None:
    """Without a key anybody can seal a manifest; the ledger knows better."""
    state = Path(os.environ["HEADRACE_STATE"])
    older, newest = checkpoints(state, lived)
    newest.write_bytes(resealed(newest.read_bytes(), lambda file: change(file["manifest"])))
    kept = open_checkpoints(lived, str(state), run_of(lived, kafka), None)
    found = plan(lived, kafka, kept, run_of(lived, kafka))
    assert found.manifest
    assert found.manifest.seq == int(older.stem)
    assert any(line in problem for problem in found.problems), found.problems
    assert life(lived, kafka).events == 60
    assert verify(lived, kafka, deep=True).findings == []


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (False, "holds another state than it says"),
        (True, "holds another state than the ledger announced"),
    ],
)
def test_tensors_that_were_changed_and_sealed_again(
    kafka: KafkaConnection, lived: Task, told: bool, line: str
) -> None:
    state = Path(os.environ["HEADRACE_STATE"])
    older, newest = checkpoints(state, lived)
    file = newest.with_suffix(".safetensors")
    tensors = safetensors.numpy.load_file(file)
    name = next(n for n, tensor in tensors.items() if tensor.dtype == np.float32 and tensor.size)
    tensors[name] = tensors[name] + np.float32(0.25)
    safetensors.numpy.save_file(tensors, file)
    data = file.read_bytes()
    vouched = {"tensors_bytes": len(data), "tensors_sha256": hashlib.sha256(data).hexdigest()}
    vouched |= {"state": digest(tensors)} if told else {}
    newest.write_bytes(resealed(newest.read_bytes(), lambda file: file["manifest"].update(vouched)))
    kept = open_checkpoints(lived, str(state), run_of(lived, kafka), None)
    found = plan(lived, kafka, kept, run_of(lived, kafka))
    assert found.manifest
    assert found.manifest.seq == int(older.stem)
    assert any(line in problem for problem in found.problems)


def test_a_reader_may_take_its_time(
    kafka: KafkaConnection, lived: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only while nothing comes may a transaction be blamed."""
    monkeypatch.setattr(ledger, "UNDECIDED_S", 0.2)
    found = []
    for entry in ledger.read(kafka, lived.output("ledger")):
        time.sleep(0.1)
        found.append(entry)
    assert len(found) > 3


def test_a_ledger_that_was_given_partitions_is_one_sequence_still(
    kafka: KafkaConnection, lived: Task
) -> None:
    name = lived.output("ledger")
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.create_partitions({name: 4})
    send(kafka, lived.input.topic, [good(n) for n in range(60, 200)])
    assert life(lived, kafka, micro_batch=8).events == 200
    assert verify(lived, kafka, deep=True).findings == []
    (topic,) = describe(kafka, [name])
    assert [topic.end[partition] for partition in (1, 2, 3)] == [0, 0, 0]


def test_a_ledger_that_is_none(kafka: KafkaConnection, lived: Task) -> None:
    from headrace.stream.errors import AuditError

    write(kafka, lived.output("ledger"), b"hello")
    with pytest.raises(AuditError, match="somebody else wrote to it"):
        verify(lived, kafka)


def test_predictions_that_retention_took_are_no_fault(kafka: KafkaConnection, lived: Task) -> None:
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_records({TopicPartition(lived.output("predictions"), 0): -1})
    audit = verify(lived, kafka)
    assert (audit.findings, audit.expired, audit.predictions) == ([], 60, 0)
    assert [record.predicted for record in records_of(lived, kafka) if record.predicted]


def test_the_oldest_form_of_a_record_is_read(kafka: KafkaConnection, lived: Task) -> None:
    """Records of earlier versions say neither topics nor positions."""
    entries = list(ledger.read(kafka, lived.output("ledger")))
    bare = msgspec.structs.replace(entries[1].record, position="")
    assert b"position" not in ledger.encode(bare)
    assert b"topics" in ledger.encode(entries[0].record)
    assert Entry(0, msgspec.json.decode(ledger.encode(bare), type=Record)).record == bare


def test_a_dead_letter_that_is_gone_is_found() -> None:
    task, kafka = parse(TASK, "t"), MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    for number in range(20):
        kafka.topics[task.input.topic][0].append(b"poison" if number % 5 == 0 else good(number))
    with TemporaryDirectory() as state:
        Service(task, kafka, state=state).run(drain=True)
    assert verify(task, kafka).findings == []
    letters = kafka.topics[task.output("dead-letter")][0]
    del letters.offsets[1], letters.values[1]
    (finding,) = verify(task, kafka).findings
    assert "1 of the 4 dead letters in the ledger are gone" in finding
