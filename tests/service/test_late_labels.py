"""Labels of a topic of their own on a real Kafka: joined once, whatever becomes of the topics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient

from headrace.producers.late_labels import LateLabels
from headrace.producers.publish import publish
from headrace.producers.sources import file
from headrace.stream.audit.replay import replay
from headrace.stream.audit.verify import verify
from headrace.stream.errors import HistoryError, RecoveryError, TopicError
from headrace.stream.evaluation.evaluate import evaluate
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.rows.label_delay import parse as parse_delay
from headrace.stream.rows.late import Truth
from headrace.stream.service import progress, service
from headrace.stream.service.progress import Progress
from headrace.stream.task import Task, parse
from headrace.stream.training import label_join
from tests.support.events import good
from tests.support.learners import last_state, life, records_of
from tests.support.normaliser import owner
from tests.support.running import Running
from tests.support.topics import forget, make_again, read, send

TEXT = """
name = "{name}"
[input]
topic = "{name}.events"
time = "time"
entity = "entity"
max_bytes = 4096
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[features]
x = {{ kind = "number", min = -100, max = 100 }}
y = {{ kind = "number" }}
color = {{ kind = "category" }}
[labels]
topic = "{name}.labels"
max_pending = 700
in_memory = 30
[model]
hidden = [4]
neighbours = 20
embedding = 2
table_bits = 8
[drift]
ladder = []
"""
DELAY = 40  # events
COUNTS = set(Truth.__struct_fields__)


class Stream:
    """Hold a task with topics of its own, and send what it reads."""

    def __init__(
        self,
        kafka: KafkaConnection,
        home: Path,
        labels: int = 1,
        events: int = 1,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.kafka, self.path = kafka, home / "task.toml"
        text = TEXT.format(name=f"late-{uuid.uuid4().hex[:8]}")
        for table, lines in (changes or {}).items():
            text = text.replace(f"[{table}]", f"[{table}]\n{lines}")
        self.path.write_text(text)
        self.task = parse(self.path.read_text(), str(self.path))
        self.labels = f"{self.task.name}.labels"
        ensure(kafka, [TopicSpec(self.labels, labels), TopicSpec(self.task.input.topic, events)])
        ensure(kafka, topic_specs(self.task))
        self._home = home

    def produce(self, numbers: Iterable[int], delay: str = str(DELAY)) -> Path:
        """Send events, and their labels later; return them as a file."""
        path = self._home / f"{uuid.uuid4().hex}.jsonl"
        path.write_bytes(b"".join(good(n) + b"\n" for n in numbers))
        late = LateLabels(self.task, parse_delay(delay))
        events = file(path, time="time", key="color", id="id")
        sent = publish(events, kafka=self.kafka, topic=self.task.input.topic, labels=late)
        assert sent.failed == 0
        return path

    def send(self, numbers: Iterable[int]) -> None:
        """Send events that have no label yet."""
        send(self.kafka, self.task.input.topic, [good(n, label=None) for n in numbers])

    def tell(self, numbers: Iterable[int]) -> None:
        """Send the labels of events."""
        send(self.kafka, self.labels, list(map(told, numbers)))

    def life(self, **options: Any) -> Progress:
        """Learn up to the ends of both topics."""
        done = life(self.task, self.kafka, **options)
        balanced(done.labels, done.events)
        return done

    def sound(self, **counts: int) -> None:
        """Audit it deeply; of labels there must be so many."""
        audit = verify(self.task, self.kafka, deep=True)
        assert audit.findings == []
        assert audit.truth
        found = {name: getattr(audit.truth, name) for name in counts}
        assert found == counts

    def predictions(self) -> list[dict[str, Any]]:
        """Return what was predicted, by partition and offset."""
        lines = read(self.kafka, self.task.output("predictions"))
        return sorted(lines, key=lambda line: (line["partition"], line["offset"]))


def told(number: int, **changes: object) -> bytes:
    """Make the label of an event."""
    label: dict[str, object] = {
        "id": f"e-{number}",
        "label": json.loads(good(number))["label"],
        "time": "2024-05-01T12:00:00Z",
    }
    return json.dumps(label | changes).encode()


def balanced(truth: dict[str, Any] | None, events: int) -> None:
    """Make sure that all labels are accounted for, and all events that were predicted."""
    assert truth
    corrected = truth["rescored"] + truth["relearned"]
    kept = corrected + sum(truth[name] for name in ("repeated", "unasked", "refused", "held"))
    assert truth["labels"] == truth["scored"] - truth["implied"] + kept
    assert events == truth["scored"] + truth["expired"] + truth["pending"]


def evaluated(task: Task, path: Path, delay: str, home: Path) -> list[dict[str, Any]]:
    """Return what `evaluate --label-delay` predicts of a file."""
    trace = home / f"{uuid.uuid4().hex}.parquet"
    evaluate(task, path, label_delay=delay, trace=trace)
    found: list[dict[str, Any]] = pq.read_table(trace).to_pylist()
    return found


def the_same(said: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Make sure that predictions are those of an evaluation, bit for bit."""
    columns = [(line["id"], line["offset"], line["prediction"]) for line in said]
    assert columns == [(each["id"], each["offset"], each["prediction"]) for each in wanted]
    ours, theirs = (
        np.array([line["probabilities"] for line in lines], np.float32) for lines in (said, wanted)
    )
    assert ours.tobytes() == theirs.tobytes()
    assert len(np.unique(ours)) > len(ours) // 2  # else all that is said could be a constant


def wait_until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def told_promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let learners say how far they are, and look behind the last record, more often."""
    monkeypatch.setattr(progress, "METRICS_EVERY_S", 0.1)
    monkeypatch.setattr(service, "PASS_OVER_S", 0.5)


@pytest.fixture
def stream(kafka: KafkaConnection, tmp_path: Path) -> Stream:
    return Stream(kafka, tmp_path)


@pytest.mark.parametrize(
    ("origin", "delay", "horizon"),
    [("events", "40", 0), ("features", "exp(60)", 0), ("events", "exp(30)", 2)],
)
def test_the_service_predicts_what_evaluate_does(
    kafka: KafkaConnection, tmp_path: Path, origin: Any, delay: str, horizon: int
) -> None:
    stream = Stream(kafka, tmp_path, changes={"target": f"horizon = {horizon}"})
    task = stream.task
    path = stream.produce(range(300), delay)
    if origin == "features":
        with owner(stream.kafka, [stream.path]):
            features = task.output("features")
            wait_until(lambda: sum(describe(stream.kafka, [features])[0].end) == 300)
    done = stream.life(origin=origin, micro_batch=32)
    assert (done.events, done.learned, done.healed) == (300, 300, 0)
    the_same(stream.predictions(), evaluated(task, path, delay, tmp_path))
    first = 3 * horizon  # of three entities
    stream.sound(labels=300, scored=300 - first, unasked=first)
    again = replay(task, kafka, label_delay=parse_delay("0"))
    assert again.equal == again.batches
    assert again.comparison
    assert again.comparison.pairs > 200


def test_labels_may_lie_in_other_partitions_than_their_events(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    stream = Stream(kafka, tmp_path, labels=3)
    path = stream.produce(range(300))
    (found,) = describe(kafka, [stream.labels])
    assert sum(end > 50 for end in found.end) > 1
    stream.life()
    the_same(stream.predictions(), evaluated(stream.task, path, str(DELAY), tmp_path))
    stream.sound(labels=300, scored=300)


def test_labels_of_a_backlog_wait_for_the_events_of_every_partition(
    kafka: KafkaConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole blocks of one partition come before any of another; no label is refused for that."""
    monkeypatch.setattr(label_join, "KEPT", 20)  # labels that may come before their event
    stream = Stream(kafka, tmp_path, events=2)
    first_ms = int(time.time() * 1000) - 10_000
    with closing_producer(kafka) as producer:
        for number in range(600):
            event, at = good(number, label=None), {"timestamp": first_ms + 2 * number}
            producer.produce(stream.task.input.topic, event, partition=number % 2, **at)
            if number >= 5:
                at["timestamp"] += 1
                producer.produce(stream.labels, told(number - 5), **at)
    done = stream.life()
    assert done.labels
    assert (done.labels["scored"], done.labels["refused"], done.labels["held"]) == (595, 0, 0)
    stream.sound(labels=595, scored=595)


def test_what_waits_for_a_label_outlives_its_learner_and_even_its_checkpoints(
    stream: Stream, tmp_path: Path
) -> None:
    """Labels come in a later life than their events, or before them; nothing but order counts."""
    stream.send(range(60))
    stream.tell([*range(20), *range(100, 110)])
    first = stream.life(micro_batch=16)
    assert first.labels
    assert (first.labels["pending"], first.labels["held"]) == (40, 10)
    stream.tell(range(20, 50))
    stream.send(range(60, 120))
    second = in_another_process(stream)
    assert (second["events"], second["learned"]) == (120, 60)
    assert (second["labels"]["pending"], second["labels"]["held"]) == (60, 0)
    state = last_state(stream.task, stream.kafka)
    stream.life(state=str(tmp_path / "lost"))
    assert last_state(stream.task, stream.kafka) == state
    stream.tell(range(50, 120))
    last = stream.life()  # from the checkpoint of the second life, over the third
    assert last.labels
    assert (last.learned, last.labels["repeated"]) == (120, 10)
    stream.sound(labels=130, scored=120, repeated=10, relearned=0, refused=0, held=0)
    again = replay(stream.task, stream.kafka)
    assert (again.events, again.equal, again.checkpoints) == (120, again.batches, 4)
    assert again.state == last_state(stream.task, stream.kafka)
    assert [line["id"] for line in stream.predictions()] == [f"e-{n}" for n in range(120)]


EVERYTHING = {
    "target": "horizon = 1",
    "labels": 'policy = "rescore"\non_expiry = "no"\nsample_negatives = 0.5\nholdout = 0.25\n'
    'propensity = "chance"',
}


def test_horizons_corrections_samples_and_holdouts_outlive_their_learner(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    """All at once, over restarts and lost checkpoints: the same state, and every label told."""
    changes = EVERYTHING | {"labels": EVERYTHING["labels"] + "\n#"}
    stream = Stream(kafka, tmp_path, labels=2, events=2, changes=changes)
    wrong = {n: "yes" if json.loads(told(n))["label"] == "no" else "no" for n in range(20)}
    stream.send(range(150))
    stream.tell(range(100))
    send(kafka, stream.labels, [told(n, label=label) for n, label in wrong.items()])
    first = stream.life(micro_batch=16)
    stream.send(range(150, 1_100))  # more than may wait
    send(kafka, stream.labels, [told(n, chance=0.1) for n in range(100, 200)])
    second = in_another_process(stream)
    balanced(second["labels"], second["events"])
    assert first.labels
    assert first.labels["unasked"] > 0
    assert first.labels["rescored"] == 20 - sum(n in wrong for n in unasked_of(stream, 100))
    assert second["labels"]["implied"] > 0
    scores = read(kafka, stream.task.output("metrics"))[-1]
    assert 0 < scores["held_out"]["events"] < scores["event_time"]["events"]
    state = last_state(stream.task, kafka)
    stream.life(state=str(tmp_path / "lost"))
    assert last_state(stream.task, kafka) == state
    audit = verify(stream.task, kafka, deep=True)
    assert audit.findings == []
    assert audit.metrics > 0
    held = {line["id"] for line in stream.predictions() if line.get("holdout")}
    assert 200 < len(held) < 350
    assert replay(stream.task, kafka).state == state


def unasked_of(stream: Stream, end: int) -> list[int]:
    """Return the numbers of the events that are the first of their entity."""
    first: dict[str, int] = {}
    for number in range(end):
        first.setdefault(json.loads(good(number))["entity"], number)
    return [*first.values()]


def in_another_process(stream: Stream) -> dict[str, Any]:
    """Learn up to the ends of both topics with a Python of its own; return its last word."""
    command = ("learn", str(stream.path), "-b", stream.kafka.servers, "--drain", "--json")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "headrace", *command],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("running", [True, False])
def test_partitions_that_the_labels_topic_gets_are_read_from_their_start(
    stream: Stream, running: bool
) -> None:
    def grow() -> None:
        with KafkaAdminClient(bootstrap_servers=stream.kafka.servers) as admin:
            admin.create_partitions({stream.labels: 3})
        wait_until(lambda: describe(stream.kafka, [stream.labels])[0].partitions == 3)
        with closing_producer(stream.kafka) as producer:
            for number in range(10, 30):
                producer.produce(stream.labels, told(number), partition=number % 3)

    stream.send(range(30))
    stream.tell(range(10))
    if running:
        with Running(stream.task, stream.kafka) as learner:
            learner.wait(lambda progress: progress.learned == 10)
            grow()
            learner.wait(lambda progress: progress.learned == 30)
    else:
        stream.life()
        grow()
    assert stream.life().learned == 30
    partitions = {
        each.partition for r in records_of(stream.task, stream.kafka) for each in r.labels
    }
    assert partitions == {0, 1, 2}
    stream.sound(labels=30, scored=30)


@contextmanager
def closing_producer(kafka: KafkaConnection, **settings: str) -> Iterator[Any]:
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 0} | settings)
    yield producer
    assert producer.flush(30) == 0


def test_a_labels_topic_made_again_is_not_taken_for_the_old_one(
    stream: Stream, tmp_path: Path
) -> None:
    """Not even if it holds more than was read of that."""
    task, kafka, more = stream.task, stream.kafka, 40
    stream.send(range(60))
    stream.tell(range(20))
    stream.life()
    make_again(kafka, stream.labels, list(map(told, range(20, 20 + more))))
    refused = rf"{stream.labels} was deleted and made again: .*--accept-new-topic.*--from-scratch"
    with pytest.raises(RecoveryError, match=refused):
        stream.life()
    with pytest.raises(RecoveryError, match=refused):
        replay(task, kafka)
    with pytest.raises(RecoveryError, match=r"20 labels .* --from-scratch"):
        stream.life(state=str(tmp_path / "lost"), accept_new_topic=True)
    done = stream.life(accept_new_topic=True)
    assert (done.events, done.learned) == (60, 20 + more)
    assert stream.life().learned == 20 + more
    assert verify(task, kafka).findings == []
    gone = r"record #\d+ went on with a labels topic that was made again"
    for audit in (lambda: verify(task, kafka, deep=True), lambda: replay(task, kafka)):
        with pytest.raises(HistoryError, match=gone):
            audit()
    with pytest.raises(RecoveryError, match=r"went on with a labels topic that was made again"):
        stream.life(state=str(tmp_path / "lost"))


def test_a_labels_topic_that_is_made_again_or_deleted_while_learning_ends_the_learner(
    stream: Stream,
) -> None:
    stream.send(range(10))
    with Running(stream.task, stream.kafka) as learner:
        learner.wait(lambda progress: progress.events == 10)
        make_again(stream.kafka, stream.labels, [told(n) for n in range(10)])
        error = learner.wait_error()
    assert isinstance(error, RecoveryError)
    assert f"{stream.labels} was deleted and made again" in str(error)
    with Running(stream.task, stream.kafka, accept_new_topic=True) as learner:
        learner.wait(lambda progress: progress.learned == 10)
        with KafkaAdminClient(bootstrap_servers=stream.kafka.servers) as admin:
            admin.delete_topics([stream.labels])
        error = learner.wait_error()
    assert isinstance(error, TopicError)
    assert f"{stream.labels} is not there any more" in str(error)
    with pytest.raises(TopicError, match=f"no topic {stream.labels} at .*topics create"):
        stream.life()
    gone = f"{stream.labels}: it was deleted since the last start"
    assert verify(stream.task, stream.kafka).findings == [gone]


def test_labels_that_retention_took_before_they_were_read_are_told(stream: Stream) -> None:
    stream.send(range(30))
    stream.tell(range(10))
    stream.life()
    stream.tell(range(10, 20))
    forget(stream.kafka, stream.labels)
    lost = rf"{stream.labels}/0: offsets 10 to 19 were deleted \(retention\) .*--accept-loss"
    with pytest.raises(HistoryError, match=lost):
        stream.life()
    stream.tell(range(20, 30))
    done = stream.life(accept_loss=True)
    assert (done.events, done.learned) == (30, 20)
    assert done.labels
    assert done.labels["pending"] == 10
    assert stream.life().learned == 20
    assert verify(stream.task, stream.kafka).findings == []


def test_a_quiet_hour_leaves_no_memory_and_no_records(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many turns of the loop as an hour has, and all that a quiet stream does now and then."""
    turns = 0
    idle = service.Service._idle

    def counted(self: service.Service) -> None:
        nonlocal turns
        turns += 1
        idle(self)

    for name, value in (("IDLE_S", 0.0), ("PASS_OVER_S", 0.01)):
        monkeypatch.setattr(service, name, value)
    monkeypatch.setattr(progress, "METRICS_EVERY_S", 0.01)
    monkeypatch.setattr(service.Service, "_idle", counted)
    outputs = [stream.task.output(stage) for stage in ("ledger", "metrics", "predictions")]
    stream.send(range(20))
    stream.tell(range(10))
    with Running(stream.task, stream.kafka) as learner:
        learner.wait(lambda progress: progress.learned == 10)
        time.sleep(1)
        ends, began = stream.kafka.ends(outputs, committed=False), turns
        blocks = sys.getallocatedblocks()
        wait_until(lambda: turns - began >= 36_000, 60)
        grown = sys.getallocatedblocks() - blocks
        assert learner.last
        balanced(learner.last.labels, learner.last.events)
    assert grown < 3_600
    after = stream.kafka.ends(outputs, committed=False)
    metrics = (outputs[1], 0)
    assert (after[metrics] - ends[metrics], after[outputs[2], 0]) == (0, ends[outputs[2], 0])
    assert (
        after[outputs[0], 0] - ends[outputs[0], 0] <= 4
    )  # the last checkpoint's record, at its end


def test_a_transactional_producer_may_abort_labels_and_leaves_markers(stream: Stream) -> None:
    stream.send(range(20))
    with closing_producer(stream.kafka, **{"transactional.id": stream.labels}) as producer:
        producer.init_transactions()

        def write(numbers: Iterable[int], *, commit: bool, label: str | None = None) -> None:
            producer.begin_transaction()
            for number in numbers:
                value = told(number) if label is None else told(number, label=label)
                producer.produce(stream.labels, value)
            producer.flush()
            (producer.commit_transaction if commit else producer.abort_transaction)()

        for number in range(10):
            write([number], commit=False, label="yes" if number % 2 else "no")
            write([number], commit=True)
        write(range(10, 20), commit=False)
        with Running(stream.task, stream.kafka) as learner:
            learner.wait(lambda progress: progress.learned == 10)
            write([10], commit=True)
            write([11], commit=False)
            learner.wait(lambda progress: progress.learned == 11)
            (end,) = describe(stream.kafka, [stream.labels])[0].end
            passed = lambda: passed_over(stream) == end  # noqa: E731
            wait_until(passed)  # behind the last marker, where retention may come
    forget(stream.kafka, stream.labels)
    done = stream.life()
    assert (done.learned, done.labels and done.labels["labels"]) == (11, 11)
    assert verify(stream.task, stream.kafka).findings == []


def passed_over(stream: Stream) -> int:
    """Return up to where the ledger says that the one partition of labels was read."""
    records = records_of(stream.task, stream.kafka)
    return max((each.stop for r in records for each in r.labels), default=0)


@pytest.mark.parametrize("backlog", [True, False])
def test_a_transaction_of_labels_that_hangs_holds_up_no_event(
    stream: Stream, backlog: bool
) -> None:
    stream.tell([0])
    with closing_producer(stream.kafka, **{"transactional.id": stream.labels}) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.produce(stream.labels, told(1))
        producer.flush()
        if backlog:
            stream.send(range(50))
        with Running(stream.task, stream.kafka) as learner:
            began_s = time.monotonic()
            if not backlog:
                stream.send(range(50))
            learner.wait(lambda progress: progress.events == 50)
            assert time.monotonic() - began_s < 1.5  # as if there were no labels
            assert learner.last
            assert learner.last.learned == 1
            stream.tell([2])  # stands behind the transaction
            stream.send(range(50, 60))
            learner.wait(lambda progress: progress.events == 60)
            assert learner.last.learned == 1
            producer.commit_transaction()
            learner.wait(lambda progress: progress.learned == 3)
    stream.sound(labels=3, scored=3)


POISONED: list[tuple[bytes | None, str]] = [
    (None, "tombstone"),
    (b"", "json"),
    (b"hello", "json"),
    (told(1)[:-1], "json"),
    (told(1).decode().encode("utf-16"), "encoding"),
    (told(1)[:-1] + b',"id":"e-2"}', "duplicate_key"),
    (told(1)[:-1] + b',"z":' + b"[" * 1500 + b"]" * 1500 + b"}", "depth"),
    (b"[]", "schema"),
    (b"{}", "schema"),
    (told(1, id=None), "schema"),
    (told(1, id=""), "id"),
    (told(1, id=2**70), "id"),
    (told(1, label=None), "label"),
    (told(1, label="maybe"), "label"),
    (told(1, label={}), "schema"),
    (told(1, note="x" * 4096), "too_large"),
]


def test_poison_among_labels_is_put_aside_and_changes_nothing_else(
    stream: Stream, tmp_path: Path
) -> None:
    path = stream.produce(range(200))
    values = [value for value, _ in POISONED]
    send(stream.kafka, stream.labels, values)  # the end of history is behind them
    send(stream.kafka, stream.labels, [padded(told(7), 4096), padded(told(8), 4097)])
    send(stream.kafka, stream.labels, [told(3, label="maybe"), told(4, label="yes")])
    with closing_producer(stream.kafka) as producer:
        producer.produce(stream.labels, b"poison", key=b"k" * 65_000)
        producer.produce(stream.labels, told(9), key=b"k" * 70_000)
    done = stream.life()
    assert (done.events, done.learned, done.rejected) == (200, 200, 0)
    the_same(stream.predictions(), evaluated(stream.task, path, str(DELAY), tmp_path))
    letters = sorted(read(stream.kafka, stream.task.output("dead-letter")), key=offset_of)
    assert {letter["topic"] for letter in letters} == {stream.labels}
    codes = [letter["code"] for letter in letters]
    more = ["too_large", "label", "json", "too_large"]
    assert codes == [*(code for _, code in POISONED), *more]
    assert [letter["offset"] for letter in letters][: len(values)] == [
        *range(200, 200 + len(values))
    ]
    assert done.labels
    repeated = 2  # at most 4,096 bytes, and the same again
    refused = len(codes)
    stream.sound(labels=200 + repeated + refused, scored=200, repeated=repeated, refused=refused)


def offset_of(letter: dict[str, Any]) -> int:
    offset: int = letter["offset"]
    return offset


def padded(value: bytes, size: int) -> bytes:
    """Fill an object up to so many bytes."""
    filled = value[:-1] + b',"z":"%s"}'
    return filled % (b"x" * (size - len(filled % b"")))


def test_each_record_of_the_metrics_accounts_for_labels_and_events(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "METRICS_EVERY_S", 0.0)
    stream.produce(range(200), "exp(30)")
    stream.tell([*range(5), *range(1000, 1010)])  # again, and of no event
    send(stream.kafka, stream.labels, [b"poison", told(6, label="yes"), told(7, label="yes")])
    stream.life(micro_batch=16)
    found = read(stream.kafka, stream.task.output("metrics"))
    assert len(found) > 5
    before = dict.fromkeys(COUNTS, 0)
    for record in found:
        truth = record["labels"]
        assert {*truth} == {*COUNTS, "pending", "lag", "delay"}
        balanced(truth, record["events"])
        assert record["learned"] <= truth["scored"] + truth["relearned"]
        assert all(truth[name] >= before[name] for name in COUNTS - {"held"})
        before = truth
    assert (truth["pending"], truth["lag"], truth["held"]) == (0, 0, 10)
    told_by = [record.truth for record in records_of(stream.task, stream.kafka) if record.truth]
    assert {n: sum(getattr(each, n) for each in told_by) for n in COUNTS} == {
        name: truth[name] for name in COUNTS
    }


def test_a_labels_topic_that_is_not_there_is_named(kafka: KafkaConnection, tmp_path: Path) -> None:
    stream = Stream(kafka, tmp_path)
    with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
        admin.delete_topics([stream.labels])
    with pytest.raises(TopicError, match=f"no topic {stream.labels} at .*topics create"):
        stream.life()
