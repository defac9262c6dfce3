"""A service that begins with a saved learner: what it knew is the beginning of its history."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.cli.console import read_key
from headrace.stream.audit.replay import replay, state
from headrace.stream.audit.replay_range import parse_position
from headrace.stream.audit.verify import verify
from headrace.stream.errors import RecoveryError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.ledger import fingerprint
from headrace.stream.process import failpoint
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good, task_text
from tests.support.hostile import Run
from tests.support.memory_kafka import MemoryKafka
from tests.support.topics import read, send

SMALL = "\n[model]\nhidden = [4]\nneighbours = 10\n"
BEFORE, AFTER = 40, 30  # events that the library learned, and those of the service


@pytest.fixture
def task() -> Task:
    return parse(TASK + SMALL, "t")


@pytest.fixture
def learner(task: Task) -> headrace.Learner:
    """Learn the first events."""
    made = headrace.Learner(task)
    made.predict_then_learn([json.loads(good(n)) for n in range(BEFORE)])
    return made


@pytest.fixture
def saved(learner: headrace.Learner, tmp_path: Path) -> str:
    path = tmp_path / "saved.hr"
    learner.save(path)
    return str(path)


@pytest.fixture
def kafka_of(task: Task) -> MemoryKafka:
    """Hold the events that come after."""
    made = MemoryKafka()
    made.make(topic_specs(task), partitions=1)
    for number in range(BEFORE, BEFORE + AFTER):
        made.topics[task.input.topic][0].append(good(number))
    return made


def said(kafka: MemoryKafka, task: Task) -> list[tuple[str, list[float]]]:
    values = kafka.topics[task.output("predictions")][0].values
    found = [json.loads(value) for value in values]
    return [(each["prediction"], each["probabilities"]) for each in found]


def heard(learner: headrace.Learner, numbers: Any) -> list[tuple[str, list[float]]]:
    found = learner.predict_then_learn([json.loads(good(n)) for n in numbers]).to_pylist()
    return [(each["prediction"], each["probabilities"]) for each in found]


def test_it_says_what_the_learner_would_have_said(
    task: Task, learner: headrace.Learner, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    place = tmp_path / "state"
    done = headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    expected = heard(learner, range(BEFORE, BEFORE + AFTER))
    assert said(kafka_of, task) == expected
    assert done.report["all"] == learner.metrics["all"]
    assert done.events == AFTER  # its own
    assert headrace.Learner.load(place).metrics == learner.metrics
    start = next(place.rglob("start.json"))
    assert heard(headrace.Learner.load(start), range(BEFORE, BEFORE + AFTER)) == expected


def test_without_checkpoints_it_is_learned_again_from_there(
    task: Task, learner: headrace.Learner, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    place = tmp_path / "state"
    headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    Path(saved).unlink()
    for path in place.rglob("0*.*"):
        path.unlink()
    for number in range(BEFORE + AFTER, BEFORE + AFTER + 9):
        kafka_of.topics[task.input.topic][0].append(good(number))
    notes: list[str] = []
    headrace.Service(task, kafka_of, state=place).run(drain=True, on_note=notes.append)
    assert any("from the learner that the run began with" in note for note in notes)
    assert said(kafka_of, task) == heard(learner, range(BEFORE, BEFORE + AFTER + 9))


def test_the_state_is_durable_before_the_ledger_speaks_of_it(
    task: Task,
    saved: str,
    kafka_of: MemoryKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, reached = tmp_path / "state", []

    def step(name: str) -> None:
        if name == "recovered":
            assert not [*place.rglob("start.*")]
        if name == "start kept":
            reached.append([*place.rglob("start.json")])
            raise KeyboardInterrupt

    monkeypatch.setattr("headrace.stream.service.start.failpoint", step)
    with pytest.raises(KeyboardInterrupt):
        headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    assert len(reached[0]) == 1
    assert kafka_of.topics[task.output("ledger")][0].values == []
    monkeypatch.setattr("headrace.stream.service.start.failpoint", failpoint.failpoint)
    done = headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    assert done.events == AFTER


def test_a_lost_start_is_asked_for_and_kept_again(
    task: Task, learner: headrace.Learner, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    headrace.Service(task, kafka_of, state=tmp_path / "state", start_from=saved).run(drain=True)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(RecoveryError, match=r"began .* is not among them; .*start-from"):
        headrace.Service(task, kafka_of, state=elsewhere).run(drain=True)
    headrace.Service(task, kafka_of, state=elsewhere, start_from=saved).run(drain=True)
    for path in elsewhere.rglob("0*.*"):
        path.unlink()
    headrace.Service(task, kafka_of, state=elsewhere).run(drain=True)
    last = headrace.Learner.load(elsewhere)
    assert heard(learner, range(BEFORE, BEFORE + AFTER)) == said(kafka_of, task)
    assert last.metrics == learner.metrics
    (arrays,) = elsewhere.rglob("start.safetensors")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"?")
    for path in elsewhere.rglob("0*.*"):
        path.unlink()
    with pytest.raises(RecoveryError, match="sha256"):
        headrace.Service(task, kafka_of, state=elsewhere).run(drain=True)


def test_a_run_that_goes_on_began_with_it_or_it_is_refused(
    task: Task, learner: headrace.Learner, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    place, other = tmp_path / "state", tmp_path / "other.hr"
    headrace.Service(task, kafka_of, state=place).run(drain=True)
    with pytest.raises(UsageError, match=r"began with nothing; .*--from-scratch"):
        headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    again = headrace.Service(task, kafka_of, state=place, start_from=saved, from_scratch=True)
    assert "from a learner of" in again.plan()[0]
    again.run(drain=True)
    headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    learner.learn_one(json.loads(good(BEFORE)))
    learner.save(other)
    with pytest.raises(UsageError, match="began with another learner"):
        headrace.Service(task, kafka_of, state=place, start_from=other).run(drain=True)
    with pytest.raises(UsageError, match="began with another learner"):
        headrace.Service(task, kafka_of, state=place, start_from=other).plan()


def test_it_is_proved_and_replayed_from_there(
    task: Task, learner: headrace.Learner, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    place = tmp_path / "state"
    service = headrace.Service(task, kafka_of, state=place, start_from=saved)
    service.run(drain=True)
    start = headrace.saved.open_start(saved, None, task)
    assert verify(task, kafka_of).findings == []
    audit = verify(task, kafka_of, deep=True, start=start)
    assert (audit.findings, audit.recomputed) == ([], AFTER)
    with pytest.raises(UsageError, match=r"began with a saved learner .* --start-from"):
        verify(task, kafka_of, deep=True)
    replayed = replay(task, kafka_of, start=start)
    assert (replayed.equal, replayed.state) == (replayed.batches, audit.state)
    with pytest.raises(UsageError, match="--start-from"):
        replay(task, kafka_of)
    at = parse_position(str(10))
    kept = state(task, kafka_of, at, str(tmp_path / "then"), start=start)
    assert kept.manifest.learned == start.learned + sum(
        json.loads(good(n)).get("label") is not None for n in range(BEFORE, BEFORE + 11)
    )
    beside = replay(task, kafka_of, start=start, begin=parse_position("#1"))
    assert beside.state == audit.state
    assert beside.equal == 0


def test_it_begins_with_a_checkpoint_of_another_service(
    task: Task, learner: headrace.Learner, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    first = MemoryKafka()
    first.make(topic_specs(task), partitions=1)
    for number in range(BEFORE):
        first.topics[task.input.topic][0].append(good(number))
    key, place = b"a key of thirty-two random bytes", tmp_path / "first"
    headrace.Service(task, first, state=place, key=key).run(drain=True)
    next_one = headrace.Service(task, kafka_of, state=tmp_path / "next", key=key, start_from=place)
    next_one.run(drain=True)
    assert said(kafka_of, task) == heard(learner, range(BEFORE, BEFORE + AFTER))
    for path in (tmp_path / "next").rglob("0*.*"):
        path.unlink()
    with pytest.raises(RecoveryError, match="key"):
        headrace.Service(task, kafka_of, state=tmp_path / "next").run(drain=True)


def test_the_end_of_the_line_behind_a_key_is_no_part_of_it(
    task: Task, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(b"a key of thirty-two random bytes\n")
    key = (tmp_path / "key").read_bytes()
    place = tmp_path / "state"
    headrace.Service(task, kafka_of, state=place, key=key, start_from=saved).run(drain=True)
    found = headrace.Learner.load(place, key=read_key(tmp_path / "key"))
    assert found.metrics == headrace.Learner.load(place, key=key).metrics


def test_a_learner_of_another_task_is_refused(
    task: Task, saved: str, kafka_of: MemoryKafka, tmp_path: Path
) -> None:
    other = parse(TASK + SMALL.replace("[4]", "[8]"), "t")
    with pytest.raises(UsageError, match=r"model\.hidden: \[4\] -> \[8\]"):
        headrace.Service(other, kafka_of, state=tmp_path / "state", start_from=saved)
    (tmp_path / "text").write_text("no learner")
    with pytest.raises(UsageError, match="no saved learner"):
        headrace.Service(task, kafka_of, start_from=tmp_path / "text")
    shutil.copy(saved, tmp_path / "cut.hr")
    (tmp_path / "cut.hr").write_bytes(Path(saved).read_bytes()[:-9])
    with pytest.raises(RecoveryError, match="broken"):
        headrace.Service(task, kafka_of, start_from=tmp_path / "cut.hr")


def test_a_run_outlives_the_code_that_saved_its_beginning(
    task: Task,
    saved: str,
    kafka_of: MemoryKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "state"
    headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    start = next(place.rglob("start.json"))
    then = json.loads(start.read_bytes())["manifest"]
    monkeypatch.setattr(fingerprint, "of_code", lambda *modules: "0" * 64)
    headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    for path in place.rglob("0*.*"):
        path.unlink()
    headrace.Service(task, kafka_of, state=place, start_from=saved).run(drain=True)
    kept = json.loads(start.read_bytes())["manifest"]
    assert kept == then | {"time_ms": kept["time_ms"]}
    for given in (saved, str(start)):
        begun = headrace.saved.open_start(given, None, task)
        audit = verify(task, kafka_of, deep=True, start=begun)
        assert (audit.findings, audit.recomputed) == ([], AFTER)
        with pytest.raises(RecoveryError, match="other code"):
            headrace.Learner.load(given)
        anew = headrace.Service(task, kafka_of, state=place, start_from=given, from_scratch=True)
        for begin in (anew.plan, anew.run):
            with pytest.raises(RecoveryError, match=r"new run begins, .* other code"):
                begin()


def test_row_numbers_are_no_ids_of_a_service(task: Task, tmp_path: Path) -> None:
    learner = headrace.Learner(task)
    rows = [json.loads(good(n)) for n in range(BEFORE)]
    learner.predict_then_learn([{k: v for k, v in row.items() if k != "id"} for row in rows])
    learner.save(tmp_path / "saved.hr")
    kafka = MemoryKafka()
    kafka.make(topic_specs(task), partitions=1)
    for number in range(10):
        event = json.loads(good(number)) | {"id": number}
        kafka.topics[task.input.topic][0].append(json.dumps(event).encode())
    service = headrace.Service(
        task, kafka, state=tmp_path / "state", start_from=tmp_path / "saved.hr"
    )
    done = service.run(drain=True)
    assert (done.events, done.repeated) == (10, 0)


def test_the_commands_take_it(kafka: KafkaConnection, run: Run, tmp_path: Path) -> None:
    path, saved = tmp_path / "task.toml", tmp_path / "saved.hr"
    path.write_text(task_text("started-from") + SMALL)
    task = headrace.Task.load(path)
    learner = headrace.Learner(task)
    learner.predict_then_learn([json.loads(good(n)) for n in range(BEFORE)])
    learner.save(saved)
    ensure(kafka, topic_specs(task))
    send(kafka, task.input.topic, [good(n) for n in range(BEFORE, BEFORE + 10)])
    shared = [str(path), "-b", kafka.servers, "--json"]
    state = ["--state", str(tmp_path / "state")]
    start = ["--start-from", str(saved)]
    for _ in range(2):  # as a supervisor starts it again, with the same arguments
        assert run("learn", *shared, *state, *start, "--drain").code == 0
    found = read(kafka, task.output("predictions"))
    assert [(each["prediction"], each["probabilities"]) for each in found] == heard(
        learner, range(BEFORE, BEFORE + 10)
    )
    assert run("verify", *shared, "--deep").code == 2
    assert json.loads(run("verify", *shared, *start, "--deep").out)["sound"] is True
    assert json.loads(run("replay", *shared, *start).out)["events"] == 10
    other = ["--set", "model.hidden=[8]"]
    assert "leave --start-from out" in run("replay", *shared[:-1], *start, *other).out
    assert "--start-from" not in run("replay", *shared[:-1], "--from", "#1", *other).out
    kept = run("state", *shared, *start, "--at", "#1", "--to", str(tmp_path / "then"))
    assert kept.code == 0
    assert [*(tmp_path / "then").rglob("start.json")]
