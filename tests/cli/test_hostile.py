"""Everything that shows what came from a topic, with a topic full of what a terminal would obey."""

from __future__ import annotations

import base64
import json
import tomllib
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest
import tomli_w
from confluent_kafka import Producer
from msgspec.structs import replace

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import manifest
from tests.support.hostile import STRINGS, Run, headrace

BAD = [b"\x1b[31m", b"\xff\x9b", b'{"id":"\\ud800","y":"\\udfff"}', "[/red]\u202e".encode()]


class Stream(NamedTuple):
    """Hold a task whose topic is hostile, and what was sent to it."""

    task: Path
    name: str
    topic: str
    state: Path
    kafka: KafkaConnection
    sent: list[tuple[bytes, bytes]]  # key and value

    @property
    def place(self) -> dict[str, str]:
        """Give the environment of its commands."""
        return {"KAFKA_BOOTSTRAP": self.kafka.servers, "HEADRACE_STATE": str(self.state)}


@pytest.fixture
def command(stream: Stream, run: Run) -> Run:
    """Give a function that runs a command on that broker; what it prints has to be safe."""
    return lambda *arguments: run(*arguments, **stream.place).is_safe()


@pytest.fixture(scope="module")
def stream(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Send good and bad events, and learn them."""
    name = f"hostile-{uuid.uuid4().hex[:8]}"
    place = tmp_path_factory.mktemp("hostile[") / "red]"  # the path holds [/red]
    place.mkdir()
    task = place / "[b]\x1b.toml"
    table = {
        "name": name,
        "input": {"topic": f"events.{name}", "entity": STRINGS[0]},
        "target": {"field": STRINGS[1], "kind": "classify", "max_classes": 40},
        "features": {text: {"kind": "category"} for text in STRINGS[2:6]},
        "model": {"hidden": [4], "neighbours": 0, "learning_rate": 0.01},
        "drift": {"ladder": []},
    }
    task.write_text(tomli_w.dumps(table), "utf-8")
    values = [
        json.dumps({"id": text} | dict.fromkeys(STRINGS[:6], text), ensure_ascii=at % 2 == 0)
        for at, text in enumerate(STRINGS)
    ]
    twice = [f"{{{json.dumps(text)}:1,{json.dumps(text)}:2}}" for text in STRINGS]
    wrong = [json.dumps({"id": text * 200}) for text in STRINGS]
    lines = [*values, *twice, *wrong, *STRINGS]
    sent = [(STRINGS[at % len(STRINGS)].encode(), line.encode()) for at, line in enumerate(lines)]
    sent += [(value, value) for value in BAD]
    found = Stream(task, name, f"events.{name}", place / "state\x9b", kafka, sent)
    assert headrace("topics", "create", task, **found.place).is_safe().code == 0
    producer = Producer({"bootstrap.servers": kafka.servers, "log_level": 0})
    for key, value in sent:
        producer.produce(found.topic, value, key)
    producer.flush()
    assert headrace("learn", task, "--drain", **found.place).is_safe().code == 0
    return found


def test_topics_are_shown_safely_and_json_is_what_was_sent(stream: Stream, command: Run) -> None:
    shown = command("tail", stream.topic, "-n", "1000").out
    raw = command("tail", stream.topic, "-n", "1000", "--json").values
    assert len(raw) == len(stream.sent) == len(shown.split("\n")) - 1
    for found, (key, value) in zip(raw, stream.sent, strict=True):
        assert found["key"] == key.decode("utf-8", "replace")
        if "base64" in (found["value"] or {}):
            assert base64.b64decode(found["value"]["base64"]) == value
        else:
            assert found["value"] == json.loads(value)
    assert {each["value"]["id"] for each in raw[: len(STRINGS)]} == set(STRINGS)
    predictions = f"{stream.name}.predictions"
    assert command("tail", predictions, "-n", "1000").out
    found = command("tail", predictions, "-n", "1000", "--json").values
    assert [each["value"]["id"] for each in found] == list(STRINGS)
    for stage in ("metrics", "drift", "dead-letter", "ledger"):
        for form in ([], ["--json"]):
            assert command("tail", f"{stream.name}.{stage}", "-n", "1000", *form).code == 0


def test_dead_letters_are_shown_safely_one_a_line(stream: Stream, command: Run) -> None:
    refused = [value for _, value in stream.sent[len(STRINGS) :]]
    lines = command("dead-letters", stream.task).out.split("\n")[:-1]
    found = command("dead-letters", stream.task, "--json").values
    assert len(lines) == len(found) == len(refused)
    assert all(line.startswith(f"{stream.topic}/0/") for line in lines)
    for letter, value in zip(found, refused, strict=True):
        raw = letter["raw"]
        plain = base64.b64decode(raw[7:]) if raw.startswith("base64:") else raw.encode()
        assert plain == value


def test_a_task_is_inferred_from_a_hostile_topic(stream: Stream, command: Run) -> None:
    done = command("infer", stream.topic, "--target", STRINGS[1])
    assert done.code == 0, done.err
    task = tomllib.loads(done.out)
    assert task["target"]["field"] == STRINGS[1]
    assert set(STRINGS[2:6]) < set(task["features"])
    assert command("infer", stream.topic, "--target", "\x9bnone").code == 2


def test_topics_the_audit_and_the_archive_are_shown_safely(
    stream: Stream, command: Run, tmp_path: Path
) -> None:
    for form in ([], ["--json"]):
        assert command("topics", "list", *form).code == 0
        assert command("topics", "describe", stream.topic, *form).code == 0
        assert command("topics", "describe", "\x1b[/red]", *form).code != 0
        assert command("tail", "\x1b[/red]", *form).code == 2
        assert command("verify", stream.task, "--deep", *form).code == 0
        kept = tmp_path / f"\x1b\u202e{len(form)}"
        assert command("archive", stream.topic, "--to", kept, *form).code == 0
        assert command("archive", "\x1b[/red]", "--to", kept, *form).code == 2


def test_a_replay_says_what_was_changed(stream: Stream, command: Run, tmp_path: Path) -> None:
    excluded = f"input.exclude={json.dumps([STRINGS[0], STRINGS[14]])}"
    done = command("replay", stream.task, "--set", excluded)
    assert done.code == 0, done.err
    assert "[/min]" in done.out
    [found] = command("replay", stream.task, "--set", excluded, "--json").values
    assert found["comparison"]["changes"]
    kept = tmp_path / "\x1b[31m"
    assert command("state", stream.task, "--at", "#1", "--to", kept).code == 0
    for place in ("--archive", "--until"):
        assert command("replay", stream.task, place, "\x1b[/red]").code != 0


def test_a_checkpoint_with_markup_in_it_is_skipped(
    stream: Stream, command: Run, tmp_path: Path
) -> None:
    [newest] = (stream.state / stream.name).rglob("*.json")
    whole = newest.read_bytes()
    held = manifest.unseal(whole, None)
    forged = manifest.seal(replace(held, run="[/red]\x1b[1m"), None)
    for broken in (forged, b'{"[/red]\x1b": 1}', json.dumps({"format": "[/red]\x9b"}).encode()):
        newest.write_bytes(broken)
        plan = command("learn", stream.task, "--dry-run")
        assert plan.code == 0, plan.err
        assert newest.name in plan.out
        assert command("learn", stream.task, "--dry-run", "--json").values
    newest.write_bytes(forged)
    done = command("learn", stream.task, "--drain")
    assert done.code == 0, done.err
    assert "[/red]" in done.err
