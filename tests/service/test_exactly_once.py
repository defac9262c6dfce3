"""One life of a learner after the other: each goes on where the ledger ends, or says why not."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.stream.audit.verify import verify
from headrace.stream.errors import DeliveryError, FencedError, HistoryError, RecoveryError
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.sink import Sink
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.ledger import ledger
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service import run as runs
from headrace.stream.service.learn import learn
from headrace.stream.service.plan import Plan, plan
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good, task_text
from tests.support.learners import checkpoints, last_state, life, records_of
from tests.support.topics import read, send

NUMBERS = """
name = "%s"
[input]
topic = "%s"
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[features]
x = { kind = "number" }
y = { kind = "number" }
"""


@pytest.fixture
def task(kafka: KafkaConnection) -> Task:
    name = f"once-{uuid.uuid4().hex[:8]}"
    made = parse(NUMBERS % (name, f"{name}.events"), "t")
    ensure(kafka, topic_specs(made))
    return made


def test_three_lives_are_one(kafka: KafkaConnection, task: Task, tmp_path: Path) -> None:
    """Three starts with three batch sizes lead to what one start leads to, and publish once."""
    for part in range(3):
        send(kafka, task.input.topic, [good(n) for n in range(100 * part, 100 * part + 100)])
        done = life(task, kafka, micro_batch=(7, 64, 33)[part])
        assert done.events == 100 * (part + 1)
    offsets = [line["offset"] for line in read(kafka, task.output("predictions"))]
    assert offsets == list(range(300))
    lives = last_state(task, kafka)
    life(task, kafka, state=str(tmp_path / "another"), from_scratch=True)
    assert last_state(task, kafka) == lives
    audit = verify(task, kafka, deep=True)
    assert audit.findings == []
    assert (audit.counts.events, audit.predictions, audit.recomputed) == (600, 600, 300)
    assert (audit.runs, audit.epochs) == (2, 4)


def test_a_life_that_met_other_scalars_first_comes_to_the_same_rows(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    """`true`, 1 and 1.0 are equal to Python: whichever came first used to stand for all."""
    name = f"scalars-{uuid.uuid4().hex[:8]}"
    made = parse(task_text(name), "t")
    ensure(kafka, topic_specs(made))
    state, old = Path(os.environ["HEADRACE_STATE"]), tmp_path / "old"
    send(kafka, name, [good(n, color=True) for n in range(200)])
    life(made, kafka)
    shutil.copytree(state, old)
    send(kafka, name, [good(n, color=(1, 1.0, True, 0, -0.0)[n % 5]) for n in range(200, 300)])
    life(made, kafka)
    assert life(made, kafka, state=str(old)).events == 300  # it meets 1 before true
    assert verify(made, kafka, deep=True).findings == []


def test_a_client_that_gives_up_without_a_word_is_told_as_a_failure() -> None:
    def call(timeout_s: float) -> None:
        raise SystemError("returned NULL without setting an exception")

    with pytest.raises(DeliveryError, match="gave up: returned NULL"):
        Sink(KafkaConnection("127.0.0.1:1")).poll_delivery_reports(0.1, call)


def test_the_tip_is_the_last_word_only_when_all_is_decided(
    kafka: KafkaConnection, task: Task
) -> None:
    """A record in a transaction that is still open counts for those who have fenced its writer."""
    life(task, kafka)
    topic = task.output("ledger")
    before = ledger.tip(kafka, topic)
    assert before
    late = msgspec.structs.replace(before.record, seq=before.record.seq + 1)
    writer = kafka.transactions(f"{task.name}.somebody")
    writer.begin()
    writer.send(topic, [ledger.encode(late)])
    writer._sink.flush(10)
    with ThreadPoolExecutor(1) as pool:
        tip = pool.submit(ledger.tip, kafka, topic, decided=True)
        with pytest.raises(TimeoutError):
            tip.result(1.0)
        assert ledger.tip(kafka, topic) == before
        writer.commit()
        writer.await_commit()
        found = tip.result(10)
    writer.close()
    assert found
    assert found.record == late


def test_without_checkpoints_history_leads_to_the_same_state(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    send(kafka, task.input.topic, [good(n) if n % 9 else b"poison" for n in range(200)])
    life(task, kafka, micro_batch=16)
    before = last_state(task, kafka)
    lost = str(tmp_path / "lost")
    send(kafka, task.input.topic, [good(200)])
    assert life(task, kafka, state=lost).events == 178
    audit = verify(task, kafka, deep=True)
    assert (audit.findings, audit.checkpoints) == ([], 2)
    assert last_state(task, kafka) != before
    assert len(read(kafka, task.output("predictions"))) == 178


def test_a_rotten_checkpoint_is_passed_over(kafka: KafkaConnection, task: Task) -> None:
    state = Path(os.environ["HEADRACE_STATE"])
    for start in (0, 50):
        send(kafka, task.input.topic, [good(n) for n in range(start, start + 50)])
        life(task, kafka)
    older, newer = checkpoints(state, task)
    arrays = newer.with_suffix(".safetensors")
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[:-1] + bytes([whole[-1] ^ 0xFF]))
    notes: list[str] = []
    learn(
        task,
        kafka,
        origin="events",
        safety=Safety(str(state)),
        drain=True,
        on_note=notes.append,
    )
    assert any(f"checkpoint of record {int(older.stem)} is sound" in note for note in notes)
    assert any(newer.stem in note for note in notes)
    assert verify(task, kafka, deep=True).findings == []


def test_classes_that_came_are_kept(kafka: KafkaConnection, task: Task) -> None:
    target = task.target.model_copy(update={"classes": (), "max_classes": 3})
    task = task.model_copy(update={"target": target})
    for labels, numbers in (
        (("no", "yes"), range(40)),
        (("no", "yes", "so", "never"), range(40, 200)),
    ):
        events = [good(n, label=labels[n % len(labels)]) for n in numbers]
        send(kafka, task.input.topic, events)
        life(task, kafka)
    assert verify(task, kafka, deep=True).findings == []
    said = read(kafka, task.output("predictions"))
    letters = read(kafka, task.output("dead-letter"))
    assert {line["prediction"] for line in said} == {None, "no", "yes", "so"}
    assert [letter["offset"] for letter in letters] == [*range(43, 200, 4)]


def test_a_changed_task_is_told_and_nothing_is_touched(kafka: KafkaConnection, task: Task) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(30)])
    life(task, kafka)
    changed = task.model_copy(
        update={"model": task.model.model_copy(update={"learning_rate": 0.01, "chunk": 4})}
    )
    for state in (None, "/tmp/nowhere-yet"):  # with a checkpoint, and without
        with pytest.raises(RecoveryError) as error:
            life(changed, kafka, state=state)
        assert "model.chunk: 1 -> 4" in str(error.value)
        assert "model.learning_rate: [0.001, 0.005] -> 0.01" in str(error.value)
        assert "--from-scratch" in str(error.value)
    assert life(changed, kafka, from_scratch=True).events == 30
    topics = task.topics.model_copy(update={"retention_hours": 24})
    assert life(changed.model_copy(update={"topics": topics}), kafka).events == 30


def test_other_code_must_come_to_the_same_or_be_accepted(
    kafka: KafkaConnection, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(40)])
    life(task, kafka, micro_batch=8)
    place = str(tmp_path / "empty")
    real = Normalizer._numeric

    def other(*given: Any) -> Any:
        return real(*given) ** 3

    with monkeypatch.context() as patch:
        patch.setattr(Normalizer, "_numeric", other)
        with pytest.raises(RecoveryError, match="record 1 of the ledger comes out otherwise"):
            life(task, kafka, state=place)
        assert life(task, kafka, state=place, accept_recompute=True).events == 40
        send(kafka, task.input.topic, [good(40)])
        life(task, kafka, state=place)
        assert verify(task, kafka, deep=True).findings == []
    opening = [r.session_start for r in records_of(task, kafka) if r.session_start][1]
    assert opening.recomputed == (1, 6)
    assert verify(task, kafka, deep=True).findings  # the code of before is now the other one


def test_what_was_deleted_before_it_was_learned_is_told(kafka: KafkaConnection, task: Task) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    send(kafka, task.input.topic, [good(n) for n in range(10)])
    life(task, kafka)
    send(kafka, task.input.topic, [good(n) for n in range(10, 30)])
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_records({TopicPartition(task.input.topic, 0): 25})
    with pytest.raises(HistoryError, match="offsets 10 to 24 were deleted"):
        life(task, kafka)
    assert life(task, kafka, accept_loss=True).events == 15
    audit = verify(task, kafka)
    assert (audit.findings, audit.absent) == ([], 15)
    with pytest.raises(HistoryError, match="needed again and were deleted"):
        life(task, kafka, state="/tmp/nowhere-yet")


def test_gaps_and_garbage_among_features_are_healed_from_the_events(
    kafka: KafkaConnection, task: Task, tmp_path: Path
) -> None:
    values: list[bytes | None] = [good(n) if n % 10 else b"poison" for n in range(120)]
    send(kafka, task.input.topic, values)
    raw = Records(task.input.topic, values, [b""] * 120, [0] * 120, list(range(120)), [1] * 120)
    timed = read_timestamps(kafka, task.input.topic)
    features, _ = Normalizer(task).features(raw._replace(timestamps_ms=timed))
    rows = list(map(msgspec.msgpack.encode, features))
    forged = msgspec.structs.replace(features[3], offset=10**9)
    foreign = msgspec.structs.replace(features[3], numeric=b"1234")
    pictured = msgspec.structs.replace(features[3], image=b"1")
    sent = [
        *rows[5:20],  # 0 to 4 never came
        b"garbage",
        *rows[10:25],  # 10 to 19 again
        msgspec.msgpack.encode(foreign),
        msgspec.msgpack.encode(pictured),
        msgspec.msgpack.encode(forged),
        *rows[60:100],  # 25 to 59 never came
        rows[119],  # nor did 100 to 118
    ]
    send(kafka, task.output("features"), sent)
    done = life(task, kafka, origin="features", micro_batch=16)
    assert (done.events, done.rejected, done.healed) == (108, 12, 5 + 35 + 19)
    assert done.duplicates == 10
    healed = last_state(task, kafka)
    assert [line["offset"] for line in read(kafka, task.output("predictions"))] == [
        n for n in range(120) if n % 10
    ]
    assert verify(task, kafka, deep=True).findings == []
    life(task, kafka, state=str(tmp_path / "fused"), from_scratch=True)
    assert last_state(task, kafka) == healed


def read_timestamps(kafka: KafkaConnection, topic: str) -> list[int]:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=kafka.servers, enable_auto_commit=False)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end, found = consumer.end_offsets([place])[place], list[int]()
    while len(found) < end:
        for records in consumer.poll(timeout_ms=500).values():
            found += [record.timestamp for record in records]
    consumer.close()
    return found


def test_records_that_nobody_may_see_are_no_events(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw topic written in transactions has offsets without records, at its end too."""
    # a learner that takes longer than that to start would pass over the last marker as well
    monkeypatch.setattr("headrace.stream.service.service.PASS_OVER_S", math.inf)
    writer = kafka.transactions(f"{task.name}.writer")
    for part in range(3):
        writer.begin()
        writer.send(task.input.topic, [good(n) for n in range(10 * part, 10 * part + 10)])
        writer.commit()
        writer.await_commit()
    writer.close()
    assert life(task, kafka).events == 30
    audit = verify(task, kafka, deep=True)
    assert (audit.findings, audit.absent) == ([], 2)


def test_a_second_learner_fences_the_first(kafka: KafkaConnection, task: Task) -> None:
    first = kafka.transactions(f"{task.name}.learn")
    first.begin()
    first.send(task.output("predictions"), [b"{}"])
    send(kafka, task.input.topic, [good(n) for n in range(5)])
    assert life(task, kafka).events == 5
    first.commit()
    with pytest.raises(FencedError):
        first.await_commit()
    first.close()
    assert len(read(kafka, task.output("predictions"))) == 5
    assert verify(task, kafka).findings == []


def test_one_state_directory_holds_one_learner(kafka: KafkaConnection, task: Task) -> None:
    place = os.environ["HEADRACE_STATE"]
    run = runs.run_of(task, kafka)
    held = runs.open_checkpoints(task, place, run, None).lock()
    with held, pytest.raises(RecoveryError, match=task.name):
        life(task, kafka)


def test_an_audit_names_what_is_wrong(kafka: KafkaConnection, task: Task) -> None:
    send(kafka, task.input.topic, [good(n) for n in range(50)])
    life(task, kafka, micro_batch=10)
    sink = kafka.sink()
    sink.send(task.output("predictions"), [b"{}"])
    sink.flush()
    (finding,) = verify(task, kafka).findings
    assert "1 predictions that the ledger does not know" in finding
    last = records_of(task, kafka)[-1]
    forged = msgspec.structs.replace(last, seq=last.seq + 1, predicted=3)
    sink.send(task.output("ledger"), [ledger.encode(forged)])
    sink.flush()
    found = "\n".join(verify(task, kafka).findings)
    assert "its chain does not follow" in found
    assert "3 events answered of 0" in found


def test_a_transaction_that_hangs_is_found(
    kafka: KafkaConnection, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.stream.audit.verify.TRANSACTION_S", -10)
    life(task, kafka)
    other = kafka.transactions(f"{task.name}.other")
    other.begin()
    other.send(task.output("drift"), [b"{}"])
    other._sink.flush()
    assert any("left open" in finding for finding in verify(task, kafka).findings)
    other.commit()
    other.await_commit()
    other.close()


def test_the_dry_run_tells_and_changes_nothing(kafka: KafkaConnection, task: Task) -> None:
    def planned() -> Plan:
        run = runs.run_of(task, kafka)
        place = os.environ["HEADRACE_STATE"]
        kept = runs.open_checkpoints(task, place, run, None)
        return plan(task, kafka, kept, run)

    assert "a new run begins" in planned().describe()[0]
    send(kafka, task.input.topic, [good(n) for n in range(20)])
    life(task, kafka)
    before = records_of(task, kafka)
    words = "\n".join(planned().describe())
    assert f"ends with record {len(before) - 1}" in words
    assert "is sound" in words
    assert records_of(task, kafka) == before


def test_excluded_entities_are_refused(kafka: KafkaConnection) -> None:
    name = f"without-{uuid.uuid4().hex[:8]}"
    text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    made = parse(
        text.replace('entity = "entity"', 'entity = "entity"\nexclude = ["station-1"]'), ""
    )
    ensure(kafka, topic_specs(made))
    send(kafka, made.input.topic, [good(n) for n in range(9)])
    assert life(made, kafka).rejected == 3
    letters = read(kafka, made.output("dead-letter"))
    assert {letter["code"] for letter in letters} == {"excluded"}
    assert [json.loads(good(n))["entity"] for n in (1, 4, 7)] == ["station-1"] * 3
    assert [letter["offset"] for letter in letters] == [1, 4, 7]
