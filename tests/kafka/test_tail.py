from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from headrace.stream.service.learn import learn
from headrace.stream.service.start import Safety
from headrace.stream.task import parse
from tests.support.events import TASK, good


def headrace(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()


def test_topics_and_dead_letters_can_be_read_and_sent_again(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    name = f"tail-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "task.toml"
    path.write_text(
        TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", f"events.{name}")
    )
    task = parse(path.read_text(), "t")
    created = headrace("topics", "create", str(path), "-b", kafka.servers, "--json")
    assert {json.loads(line)["action"] for line in created} == {"created"}
    again = headrace("topics", "create", str(path), "-b", kafka.servers, "--json")
    assert {json.loads(line)["action"] for line in again} == {"unchanged"}
    assert f"{name}.drift" in headrace("topics", "list", "-b", kafka.servers)

    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b"\n".join([good(1), b'{"id":"bad","x":"?"}', good(2), b"[]", good(3)]))
    sent = headrace("produce", "file", str(lines), "--topic", task.input.topic, "-b", kafka.servers)
    assert sent[-1].startswith("5 acknowledged, 0 not")
    safety = Safety(str(tmp_path / "checkpoints"))
    learn(task, kafka, origin="events", safety=safety, drain=True)

    shown = headrace("tail", f"{name}.predictions", "-n", "2", "-b", kafka.servers, "--json")
    assert [json.loads(line)["value"]["id"] for line in shown] == ["e-2", "e-3"]

    letters = headrace("dead-letters", str(path), "-b", kafka.servers, "--json")
    assert [json.loads(line)["raw"] for line in letters] == ['{"id":"bad","x":"?"}', "[]"]
    only = headrace("dead-letters", str(path), "-b", kafka.servers, "--json", "--requeue")
    assert len(only) == 2
    raw = headrace("tail", task.input.topic, "-n", "2", "-b", kafka.servers, "--json")
    assert [json.loads(line)["offset"] for line in raw] == [5, 6]
    ensure(kafka, topic_specs(task))
