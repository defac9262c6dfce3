from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.cli.replay import add_to
from headrace.model.confidence import Gains, add, bounded
from headrace.stream.archive.writer import archive
from headrace.stream.audit import replay as replays
from headrace.stream.audit.replay import replay, state
from headrace.stream.audit.replay_range import LedgerPosition, ReplayRange, parse_position, scan
from headrace.stream.audit.replayed import Replayed
from headrace.stream.errors import AuditError, RecoveryError, TaskError, UsageError
from headrace.stream.evaluation.compare import changed_task
from headrace.stream.events import Records
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import describe, ensure
from headrace.stream.ledger import fingerprint
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.service.learn import learn
from headrace.stream.service.run import open_checkpoints
from headrace.stream.service.start import Safety
from headrace.stream.task import Task, parse
from headrace.stream.training.learned import Learned
from headrace.stream.training.snapshot import digest, shapes_of
from headrace.stream.training.trainer import Trainer
from tests.support.events import POISON, TASK, good

PARTITIONS = 3


def make_task(kafka: KafkaConnection, place: Path) -> tuple[Task, Path]:
    """Make a task of three partitions, with its topics, and the file it stands in."""
    name = f"replay-{uuid.uuid4().hex[:8]}"
    text = TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    path = place / f"{name}.toml"
    path.write_text(f"{text}\n[model]\nexplain = 0.1\n[topics]\npartitions = {PARTITIONS}\n")
    task = parse(path.read_text(), str(path))
    ensure(kafka, topic_specs(task))
    return task, path


def send(kafka: KafkaConnection, topic: str, values: list[bytes | None]) -> None:
    """Send to the partitions in turn."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka.servers)
    futures = [
        producer.send(topic, value, key=b"k", partition=number % PARTITIONS)
        for number, value in enumerate(values)
    ]
    producer.flush()
    for future in futures:
        future.get(timeout=10)
    producer.close()


def read(kafka: KafkaConnection, topic: str) -> dict[int, list[bytes | None]]:
    """Read the values of a whole topic by partition, with another client than ours."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=kafka.servers, enable_auto_commit=False, isolation_level="read_committed"
    )
    places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    found: dict[int, list[bytes | None]] = {place.partition: [] for place in places}
    while any(consumer.position(place) < ends[place] for place in places):
        for place, records in consumer.poll(timeout_ms=500).items():
            found[place.partition] += [record.value for record in records]
    consumer.close()
    return found


def events(first: int, count: int) -> list[bytes | None]:
    """Make good events with a poisoned one here and there, and ids that come twice."""
    poison = itertools.cycle(raw for raw, _ in POISON.values())
    made: list[bytes | None] = []
    for number in range(first, first + count):
        made.append(good(number - 3 if number % 50 == 49 else number))
        if number % 20 == 7:
            made.append(next(poison))
    return made


@dataclass
class Lived:
    """Hold a task with a past, read by another client."""

    kafka: KafkaConnection
    task: Task
    path: Path
    place: str

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(v or b"") for v in read(self.kafka, self.task.output("ledger"))[0]]

    def order(self) -> Iterator[tuple[int, int, int]]:
        """Yield record, partition and offset of each raw event in the order it was learned."""
        for record in self.ledger():
            for partition, start, stop, _ in record.get("consumed", ()):
                for offset in range(start, stop):
                    yield record["seq"], partition, offset

    def learned(
        self, task: Task, until: Callable[[int, int, int], bool] = lambda s, p, o: False
    ) -> tuple[Trainer, Learned]:
        """Learn offline, in one batch, up to and including the event that `until` names."""
        raw = read(self.kafka, task.input.topic)
        places = []
        for seq, partition, offset in self.order():
            places.append((partition, offset))
            if until(seq, partition, offset):
                break
        records = Records(
            task.input.topic,
            [raw[p][o] for p, o in places],
            [None] * len(places),
            [p for p, _ in places],
            [o for _, o in places],
            [],
        )
        trainer = Trainer(task, len(places))
        rows, _ = trainer.admit(Normalizer(task).normalize(records)[0], task.input.topic)
        return trainer, trainer.collect(trainer.submit(rows))


def live(
    kafka: KafkaConnection, task: Task, place: str, micro_batch: int, notes: Any = None
) -> None:
    learn(
        task,
        kafka,
        origin="events",
        safety=Safety(place),
        micro_batch=micro_batch,
        drain=True,
        on_note=notes or (lambda note: None),
    )


@pytest.fixture(scope="module")
def lived(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """Learn three times, each with another size of micro-batch."""
    home = tmp_path_factory.mktemp("lived")
    task, path = make_task(kafka, home)
    for first, micro_batch in ((0, 37), (400, 128), (800, 300)):
        send(kafka, task.input.topic, events(first, 400))
        live(kafka, task, str(home / "state"), micro_batch)
    return Lived(kafka, task, path, str(home / "state"))


def state_of(trainer: Trainer) -> str:
    return digest(trainer.snapshot().tensors())


@pytest.mark.parametrize("capacity", [64, 1000])
def test_a_replay_is_the_past_bit_for_bit(lived: Lived, capacity: int) -> None:
    records = lived.ledger()
    batches = [record for record in records if record.get("consumed")]
    found = replay(lived.task, lived.kafka, capacity=capacity)
    assert (found.batches, found.equal, found.part) == (len(batches), len(batches), None)
    assert len(batches) > 15
    assert found.checkpoints == sum("saved" in record for record in records) >= 3
    assert found.events == sum(record["used"] for record in batches)
    assert found.refused == sum(
        record.get("rejected", 0) + record.get("repeated", 0) for record in batches
    )
    assert found.state == records[-1]["saved"]["state"]
    last = json.loads(read(lived.kafka, lived.task.output("metrics"))[0][-1] or b"")
    assert found.metrics["all"] == last["all"]
    assert found.baselines == last["baselines"]
    json.dumps(found.as_json())


def test_a_replay_ends_at_a_record_as_the_learner_stood_there(lived: Lived) -> None:
    for record in lived.ledger():
        if announced := record.get("saved"):
            found = replay(lived.task, lived.kafka, until=parse_position(f"#{announced['seq']}"))
            assert found.state == announced["state"]
            assert found.equal == found.batches
            assert found.records[1] == announced["seq"]


def test_a_replay_ends_at_the_time_something_was_learned(lived: Lived) -> None:
    records = [record for record in lived.ledger() if record.get("consumed")]
    at = next(
        n for n, (a, b) in enumerate(itertools.pairwise(records)) if a["time_ms"] < b["time_ms"]
    )
    moment = LedgerPosition("time", records[at]["time_ms"])
    found = replay(lived.task, lived.kafka, until=moment)
    trainer, _ = lived.learned(
        lived.task, lambda s, p, o: (p, o + 1) == tuple(records[at]["consumed"][-1][::2])
    )
    assert found.records[1] == records[at]["seq"]
    assert found.state == state_of(trainer)


def test_a_replay_ends_at_an_event_within_a_record(lived: Lived) -> None:
    records = [record for record in lived.ledger() if len(record.get("consumed", ())) == 3]
    record = records[len(records) // 2]
    partition, start, stop, _ = record["consumed"][1]
    at = (start + stop) // 2
    found = replay(lived.task, lived.kafka, until=parse_position(f"{partition}:{at}"))
    trainer, learned = lived.learned(lived.task, lambda s, p, o: (p, o) == (partition, at))
    assert found.state == state_of(trainer)
    assert found.events == len(learned.rows.id)
    assert found.part == record["seq"]
    assert (
        found.equal
        == found.batches
        == sum("consumed" in r for r in lived.ledger() if r["seq"] < record["seq"])
    )


def test_a_replay_that_begins_later_proves_nothing(lived: Lived) -> None:
    order = list(lived.order())
    seq, partition, offset = order[len(order) // 2]
    begin, until = LedgerPosition("event", offset, partition), LedgerPosition("record", seq)
    found = replay(lived.task, lived.kafka, begin=begin, until=until)
    places = [(p, o) for s, p, o in order[len(order) // 2 :] if s == seq]
    assert (found.equal, found.checkpoints, found.part) == (0, 0, seq)
    assert found.events + found.refused == len(places)
    whole = replay(lived.task, lived.kafka, begin=LedgerPosition("record", seq))
    assert whole.records[0] == seq
    assert (whole.equal, whole.batches > 0) == (0, True)
    assert whole.state != replay(lived.task, lived.kafka).state


@pytest.mark.parametrize(
    ("begin", "until", "told"),
    [
        (None, "#999999", "record #999999 is not in run"),
        (None, "1:999999", "offset 1:999999 is not in run"),
        (None, "1999-01-01", "1999-01-01T00:00:00.000Z is not in run"),
        (None, "17", "the topic has 3 partitions: expected PARTITION:OFFSET, such as 0:17"),
        ("#5", "#3", "record #3 lies before record #5"),
        ("2:5", "2:4", "offset 2:4 lies before offset 2:5"),
        ("2999-01-01", None, "2999-01-01T00:00:00.000Z is not in run"),
    ],
)
def test_a_moment_that_was_not_is_refused(
    lived: Lived, begin: str | None, until: str | None, told: str
) -> None:
    first, last = (parse_position(each) if each else None for each in (begin, until))
    with pytest.raises(UsageError, match=told):
        replay(lived.task, lived.kafka, begin=first, until=last)


def test_history_that_comes_out_otherwise_is_told_by_its_record(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = changed_task(lived.task, ["model.learning_rate=0.01"])
    with pytest.raises(RecoveryError, match=r"model.learning_rate: \[0.001, 0.005\] -> 0.01"):
        replay(changed, lived.kafka)
    said = fingerprint.of_task(lived.task)
    monkeypatch.setattr(fingerprint, "of_task", lambda task: said)
    with pytest.raises(AuditError, match="record 1 of the ledger comes out otherwise"):
        replay(changed, lived.kafka)


def test_a_state_that_is_not_the_announced_one_is_told(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    (seq, *_) = [record["saved"]["seq"] for record in lived.ledger() if "saved" in record]

    def forged(*known: Any) -> ReplayRange:
        span = scan(*known)
        span.saved[seq] = "0" * 64
        return span

    monkeypatch.setattr(replays, "scan", forged)
    with pytest.raises(AuditError, match=f"the state after record {seq} is not the one"):
        replay(lived.task, lived.kafka)


def test_records_whose_learning_was_not_kept_are_not_compared(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recomputed(*known: Any) -> ReplayRange:
        span = scan(*known)
        span.proven_from = 6
        return span

    monkeypatch.setattr(replays, "scan", recomputed)
    found = replay(lived.task, lived.kafka)
    seqs = [record["seq"] for record in lived.ledger() if record.get("consumed")]
    assert (found.batches, found.equal) == (len(seqs), sum(seq >= 6 for seq in seqs))
    assert found.equal < found.batches


def test_a_replay_that_is_stopped_says_how_far_it_came(lived: Lived) -> None:
    asked = itertools.count()
    found = replay(lived.task, lived.kafka, stop=lambda: next(asked) >= 7)
    assert (found.stopped, found.records) == (True, (0, 6))
    until = replay(lived.task, lived.kafka, until=LedgerPosition("record", 6))
    assert found.state == until.state
    assert not until.stopped


def test_an_archive_gives_the_same_history(lived: Lived, tmp_path: Path) -> None:
    place = str(tmp_path / "archive")
    archive(lived.kafka, lived.task.input.topic, place)
    kept = replay(lived.task, lived.kafka, archive=place)
    assert kept.equal == kept.batches > 0
    assert kept.state == replay(lived.task, lived.kafka).state


def test_predictions_published_again_are_those_of_the_past(lived: Lived) -> None:
    topic = f"{lived.task.name}.replayed"
    found = replay(lived.task, lived.kafka, to_topic=topic)
    again, then = (read(lived.kafka, t) for t in (topic, lived.task.output("predictions")))
    assert again == then
    lines = [value for values in then.values() for value in values if value]
    assert any(b'"explanation"' in line for line in lines)
    assert found.published == found.events == sum(map(len, then.values()))
    with pytest.raises(UsageError, match=rf"{topic}: it holds [\d,]+ records already"):
        replay(lived.task, lived.kafka, to_topic=topic)


def test_topics_of_a_learner_are_not_written_to(lived: Lived) -> None:
    own = [spec.name for spec in topic_specs(lived.task)]
    before = describe(lived.kafka, own)
    for topic in (*own, "another.predictions", "another.ledger", "another.dead-letter"):
        with pytest.raises(UsageError, match="a topic of a live task"):
            replay(lived.task, lived.kafka, to_topic=topic)
    assert describe(lived.kafka, own) == before


def scores(task: Task, learned: Learned) -> dict[str, float]:
    """Score with River what was said about each row; it takes 1e-15 for 0, where we take 1e-7."""
    from river import metrics

    found = {
        "accuracy": metrics.Accuracy(),
        "macro_f1": metrics.MacroF1(),
        "kappa": metrics.CohenKappa(),
    }
    loss = metrics.CrossEntropy()
    lines = learned.published.clip(1e-7).tolist()
    for label, line in zip(learned.rows.label.tolist(), lines, strict=True):
        truth = task.target.classes[int(label)]
        loss.update(truth, dict(zip(task.target.classes, line, strict=True)))
        for metric in found.values():
            metric.update(truth, task.target.classes[int(np.argmax(line))])
    return {name: metric.get() for name, metric in found.items()} | {"log_loss": loss.get()}


@pytest.mark.parametrize(
    "settings", [["model.learning_rate=0.05", "model.hidden=[8]"], ['input.exclude=["station-1"]']]
)
def test_another_task_on_the_same_events_is_compared_fairly(
    lived: Lived, settings: list[str]
) -> None:
    changed = changed_task(lived.task, settings)
    found = replay(lived.task, lived.kafka, changed=changed, capacity=200)
    assert found.equal == found.batches
    assert found.comparison is not None
    (first, was), (second, would) = (lived.learned(task) for task in (lived.task, changed))
    assert found.metrics["all"] == first.report()["all"]
    assert found.comparison.metrics["all"] == second.report()["all"]
    before, after = scores(lived.task, was), scores(changed, would)
    differences = found.comparison.differences["all"]
    for name, value in after.items():
        assert differences[name] == pytest.approx(value - before[name], abs=1e-5), name
    hits = [
        dict(
            zip(
                zip(side.rows.partition, side.rows.offset, strict=True),
                side.published.argmax(1) == side.rows.label,
                strict=True,
            )
        )
        for side in (was, would)
    ]
    gains = [float(hits[1][key]) - hits[0][key] for key in hits[0] if key in hits[1]]
    assert found.comparison.pairs == len(gains) > 600
    assert found.comparison.gain == pytest.approx(np.mean(gains))
    alone = len(hits[0].keys() ^ hits[1].keys())
    assert found.comparison.alone == alone
    assert (alone > 0) == settings[0].startswith("input.exclude")
    low, high = map(float, bounded(add(Gains(), np.array(gains))))
    assert (found.comparison.low, found.comparison.high) == pytest.approx((low, high))
    names = {change.partition(":")[0] for change in found.comparison.changes}
    assert names == {setting.partition("=")[0] for setting in settings}


def test_a_task_compared_with_itself_makes_no_difference(lived: Lived) -> None:
    found = replay(lived.task, lived.kafka, changed=lived.task, until=LedgerPosition("record", 12))
    other = found.comparison
    assert other is not None
    assert (other.gain, other.verdict, other.changes) == (0, "no difference shown", [])
    assert other.low is not None and other.high is not None
    assert other.low < 0 < other.high
    assert set(other.differences["all"].values()) == {0}


def test_a_model_that_cannot_learn_is_shown_to_be_worse(lived: Lived) -> None:
    slow, blind = ("model.learning_rate=1e-9", "model.neighbours=0"), "features.x.field=absent"
    changed = changed_task(lived.task, [*slow, blind])  # bins of x would learn it still
    topic = f"{lived.task.name}.unlearned"
    found = replay(lived.task, lived.kafka, changed=changed, to_topic=topic)
    assert found.comparison is not None
    assert found.comparison.verdict == "worse"
    _, learned = lived.learned(changed)
    published = [
        json.loads(v or b"") for values in read(lived.kafka, topic).values() for v in values
    ]
    best = {(line["partition"], line["offset"]): line["prediction"] for line in published}
    said = [changed.target.classes[at] for at in learned.published.argmax(1)]
    where = zip(learned.rows.partition, learned.rows.offset, strict=True)
    assert best == dict(zip(where, said, strict=True))


def test_settings_are_read_as_toml_and_checked(lived: Lived) -> None:
    task = lived.task
    changed = changed_task(task, ["model.chunk=32", "features.y.max=9.5", "target.field=label"])
    assert changed.model.chunk == 32
    assert changed.of_kind(type(task.features["y"]))["y"].max == 9.5
    assert changed.features["x"] == task.features["x"]
    with pytest.raises(TaskError, match=r"--set: model.rate: no such key; known: network"):
        changed_task(task, ["model.rate=1"])
    with pytest.raises(TaskError, match=r"model.loss = 'absolute'"):
        changed_task(task, ["model.loss=absolute"])
    with pytest.raises(UsageError, match="expected key=value"):
        changed_task(task, ["model.chunk"])
    with pytest.raises(UsageError, match="would not predict the same"):
        changed_task(task, ["target.horizon=3"])
    with pytest.raises(UsageError, match="learn from the same events"):
        changed_task(task, ["input.topic=other"])


def test_the_state_of_a_record_is_one_to_go_on_from(kafka: KafkaConnection, tmp_path: Path) -> None:
    task, path = make_task(kafka, tmp_path)
    send(kafka, task.input.topic, events(0, 300))
    live(kafka, task, str(tmp_path / "state"), 40)
    then, key = str(tmp_path / "then"), b"0123456789abcdef"
    kept = state(task, kafka, LedgerPosition("record", 4), then, key=key)
    past = Lived(kafka, task, path, then)
    trainer, learned = past.learned(
        task, lambda s, p, o: s == 4 and (p, o + 1) == past_end(past, 4)
    )
    assert kept.manifest.state == kept.replayed.state == state_of(trainer)
    assert kept.manifest.counts["events"] == len(learned.rows.id)
    assert kept.manifest.counts["learned"] == trainer.learned
    other = Trainer(task, 64)
    stored = open_checkpoints(task, then, kept.manifest.run, key)
    loaded = stored.newest(shapes_of(task), accept=lambda manifest: True)
    assert loaded is not None
    other.restore(loaded[1], loaded[0].counts["learned"])
    assert state_of(other) == kept.manifest.state
    notes: list[str] = []
    send(kafka, task.input.topic, events(300, 50))
    learn(task, kafka, origin="events", safety=Safety(then, key), drain=True, on_note=notes.append)
    assert "the checkpoint of record 4 is sound" in notes
    found = replay(task, kafka)
    assert found.equal == found.batches
    assert found.state == past.ledger()[-1]["saved"]["state"]


def past_end(past: Lived, seq: int) -> tuple[int, int]:
    (record,) = (r for r in past.ledger() if r["seq"] == seq)
    partition, _, stop, _ = record["consumed"][-1]
    return partition, stop


def test_the_state_within_a_record_is_no_checkpoint_of_the_run(
    lived: Lived, tmp_path: Path
) -> None:
    record = next(r for r in lived.ledger() if len(r.get("consumed", ())) == 3)
    partition, start, _, _ = record["consumed"][2]
    kept = state(
        lived.task,
        lived.kafka,
        LedgerPosition("event", start, partition),
        str(tmp_path / "then"),
    )
    trainer, learned = lived.learned(lived.task, lambda s, p, o: (p, o) == (partition, start))
    assert kept.manifest.run != record["run"]
    assert kept.manifest.state == state_of(trainer)
    assert kept.manifest.positions[partition] == start + 1
    assert kept.manifest.counts["events"] == len(learned.rows.id)


def test_a_replay_runs_beside_the_live_learner(kafka: KafkaConnection, tmp_path: Path) -> None:
    task, path = make_task(kafka, tmp_path)
    send(kafka, task.input.topic, events(0, 300))
    command = [sys.executable, "-m", "headrace", "learn", str(path), "-b", kafka.servers, "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as service:
        try:
            wait_for(lambda: covered(kafka, task) == 315, service)
            topic = f"{task.name}.replayed"
            first = replay(task, kafka, to_topic=topic)
            send(kafka, task.input.topic, events(300, 300))
            second = replay(task, kafka)
            wait_for(lambda: covered(kafka, task) == 630, service)
        finally:
            service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=20) == 0
    past = Lived(kafka, task, path, "")
    records = past.ledger()
    assert {record["epoch"] for record in records} == {0}
    assert [record["seq"] for record in records] == list(range(len(records)))
    last = replay(task, kafka)
    assert (first.events, last.events) == (294, 588)
    assert second.equal == second.batches >= first.batches
    _, learned = past.learned(task)
    lines = read(kafka, task.output("predictions"))
    where = [(p, json.loads(v or b"")["offset"]) for p, values in lines.items() for v in values]
    assert where == sorted(zip(learned.rows.partition, learned.rows.offset, strict=True))
    again = read(kafka, topic)
    assert all(lines[p][: len(again[p])] == again[p] for p in lines)


def covered(kafka: KafkaConnection, task: Task) -> int:
    """Count the raw offsets that the ledger says were learned."""
    found = read(kafka, task.output("ledger"))[0]
    return sum(
        stop - start
        for value in found
        for _, start, stop, _ in json.loads(value or b"").get("consumed", ())
    )


def wait_for(reached: Callable[[], bool], service: subprocess.Popen[Any]) -> None:
    give_up = time.monotonic() + 90
    while not reached():
        assert service.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.2)


def test_the_commands_say_what_is_proven(lived: Lived, tmp_path: Path) -> None:
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    add_to(app)
    common = [str(lived.path), "-b", lived.kafka.servers]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        plot = tmp_path / "curve.svg"
        settings = ["--set", "model.chunk=8", "--plot", str(plot)]
        told = CliRunner().invoke(app, ["replay", *common, *settings])
        found = CliRunner().invoke(app, ["replay", *common, "--until", "#3", "--json"])
        kept = CliRunner().invoke(
            app, ["state", *common, "--at", "#3", "--to", str(tmp_path / "then"), "--json"]
        )
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert told.exit_code == 0, told.output
    batches = sum("consumed" in record for record in lived.ledger())
    assert f"equal to the ledger: {batches} of {batches} records" in told.output
    assert "changed: model.chunk: 1 -> 8" in told.output
    assert "with 95 % confidence, over " in told.output
    assert plot.read_text().startswith("<?xml")
    line = json.loads(found.output)
    assert set(line) == {f for f in Replayed.__dataclass_fields__ if f != "curve"} | {
        "events_per_second"
    }
    assert line["records"] == [0, 3]
    manifest = json.loads(kept.output)["manifest"]
    assert (manifest["seq"], manifest["state"]) == (3, line["state"])
    assert len(os.listdir(tmp_path / "then" / lived.task.name / manifest["run"])) == 2
