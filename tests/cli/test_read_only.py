"""Commands that only look make nothing, and bear with what others put into our topics."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.stream.events import DeadLetter
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.task import Task, parse
from tests.support.events import TASK, good
from tests.support.hostile import Ran, Run


class Service:
    """Hold a task with its topics, and run commands on them."""

    def __init__(self, kafka: KafkaConnection, place: Path, run: Run) -> None:
        self.name = f"look-{uuid.uuid4().hex[:8]}"
        self.path, self.kafka, self._run = place / "task.toml", kafka, run
        text = TASK.replace('"poisoned"', f'"{self.name}"')
        self.path.write_text(text.replace("events.poisoned", f"events.{self.name}"))
        self.task: Task = parse(self.path.read_text(), "t")
        assert self("topics", "create", self.path).code == 0

    def __call__(self, *arguments: str | Path) -> Ran:
        return self._run(*arguments, KAFKA_BOOTSTRAP=self.kafka.servers).is_safe()

    def send(self, topic: str, *values: bytes | None) -> None:
        failed: list[object] = []
        producer = Producer(
            {"bootstrap.servers": self.kafka.servers, "batch.size": 100_000, "log_level": 0}
        )
        for value in values:
            producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error))
        producer.flush()
        assert failed == [None] * len(values)


@pytest.fixture
def service(kafka: KafkaConnection, tmp_path: Path, run: Run) -> Service:
    return Service(kafka, tmp_path, run)


def test_foreign_records_among_dead_letters_are_passed_over(service: Service) -> None:
    topic, letters = service.task.input.topic, service.task.output("dead-letter")
    real = DeadLetter("json", "broken", topic, 0, 7, b"k", b"base64:{")
    foreign = [b"{}", b"[/red]\x1b[31m", b"\xff", b'{"code":1}', b"[" * 50_000, b"", None, b"null"]
    forged = [
        msgspec.structs.replace(real, topic=service.task.output("ledger")),
        msgspec.structs.replace(real, topic="\x1b[31m"),
        msgspec.structs.replace(real, partition=99),
        msgspec.structs.replace(real, partition=-7),
        msgspec.structs.replace(real, partition=2**70),
        msgspec.structs.replace(real, raw=None),
    ]
    service.send(letters, *foreign, *map(msgspec.json.encode, [real, *forged]))
    shown = service("dead-letters", service.path)
    assert shown.code == 0
    assert len(shown.out.split("\n")) == 1 + 1 + len(forged)
    notes = shown.err.split("\n")[:-1]
    assert len(notes) == len(foreign)
    assert all(
        note.startswith(f"{letters}/0/{at} is no dead letter: ") for at, note in enumerate(notes)
    )
    first, *_ = service("dead-letters", service.path, "--json").values
    assert first["raw"] == "base64:YmFzZTY0Ons="  # text that looks like it is no exception
    again = service("dead-letters", service.path, "--requeue")
    assert "1 sent again, 6 not" in again.err
    [sent] = service("tail", topic, "--json").values
    assert sent["key"] == "k"
    for other in ("ledger", "predictions"):
        assert service("tail", service.task.output(other)).out == ""


@pytest.mark.parametrize("foreign", [b"{}", b"\xff\x1b", None])
def test_a_foreign_record_where_retention_ends_fails_the_audit_in_one_line(
    service: Service, foreign: bytes | None
) -> None:
    predictions = service.task.output("predictions")
    service.send(service.task.input.topic, good(1))
    service.send(predictions, b"expired", foreign)
    assert service("learn", service.path, "--drain").code == 0
    admin = AdminClient({"bootstrap.servers": service.kafka.servers, "log_level": 0})
    [deleted] = admin.delete_records([TopicPartition(predictions, 0, 1)]).values()
    deleted.result()
    done = service("verify", service.path)
    assert done.code == 8
    assert done.err.startswith(f"headrace: {predictions}/0/1 is no prediction: ")
    assert done.err.count("\n") == 1


def test_a_dry_run_makes_no_directory(service: Service, tmp_path: Path) -> None:
    service.send(service.task.input.topic, good(1))
    state = tmp_path / "state" / "below"
    done = service("learn", service.path, "--dry-run", "--state", str(state))
    assert done.code == 0
    assert "a new run begins" in done.out
    assert not state.parent.exists()
    assert service("learn", service.path, "--drain", "--state", str(state)).code == 0
    assert list((state / service.name).glob("*/*.json"))


def test_to_read_from_an_archive_that_is_not_there_makes_no_directory(
    service: Service, tmp_path: Path
) -> None:
    service.send(service.task.input.topic, good(1))
    assert service("learn", service.path, "--drain").code == 0
    typo, made = tmp_path / "typo", tmp_path / "made"
    at = ("--at", "#1", "--to", str(made))
    commands: list[list[str | Path]] = [
        ["replay", service.path],
        ["verify", service.path, "--deep"],
        ["verify", service.path],
        ["state", service.path, *at],
    ]
    for command in commands:
        for place in (typo, typo / "below"):
            done = service(*command, "--archive", str(place))
            assert done.code == 7, (command, done)
            assert "holds no archive of" in done.err
            assert not typo.exists()


def test_a_file_is_sent_where_the_task_inferred_from_it_reads(
    service: Service, tmp_path: Path
) -> None:
    path, task = tmp_path / f"{service.name} [b]\x1b é.csv", tmp_path / "inferred.toml"
    path.write_text("x,y\n1,a\n2,b\n")
    task.write_text(service("infer", path, "--target", "y").out)
    assert service("topics", "create", task).code == 0
    assert service("produce", "file", path).out.startswith("2 acknowledged, 0 not")


def test_deep_json_is_shown_or_given_as_bytes(service: Service) -> None:
    deep = [b"[" * depth + b"]" * depth for depth in (*range(800, 1010), 5000)]
    wide = json.dumps([{}] * 1000).encode()
    service.send(service.task.input.topic, wide, *deep, b"9" * 5000)
    asked = ("tail", service.task.input.topic, "-n", "1000")
    assert len(service(*asked).out.split("\n")) == 1 + 2 + len(deep)
    first, *values = [each["value"] for each in service(*asked, "--json").values]
    assert first == [{}] * 1000
    assert len(values) == len(deep) + 1
    assert all("base64" in value for value in values)
