"""Secrets stay where they were given: no command shows, logs, writes or sends one."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topics import delete
from tests.support.events import good, task_text
from tests.support.hostile import Ran, Run
from tests.support.secured import KEY_PASSWORD, PASSWORD, Secured, connection

SMALL = "[model]\nhidden = [4]\nneighbours = 10\nembedding = 4\ntable_bits = 10\n"
STATE_KEY, HASH_KEY = "canary-state-key-4714", "canary-hash-key-4715"
SECRETS = (PASSWORD, KEY_PASSWORD, STATE_KEY, HASH_KEY)


def given(secured: Secured, way: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return options and environment: a password by the environment, a key's by the file."""
    properties = secured.mtls("alice.encrypted.key") if way == "mtls" else secured.scram()
    env = {}
    if way == "scram":
        env["HEADRACE_KAFKA_SASL_PASSWORD"] = properties.pop("sasl.password")
    folder.mkdir(mode=0o700)
    config = secured.write(folder / "client.properties", properties)
    return ["--kafka-config", str(config)], env


def in_topics(kafka: KafkaConnection, names: list[str]) -> bytes:
    """Return all that was sent to topics: keys and values."""
    found = []
    for name in names:
        source = kafka.source(name)
        while set(source.ended) < set(source.partitions):
            for message in source.messages(1000, 0.5):
                found += [message.key() or b"", message.value() or b"", str(message.headers())]
        source.close()
    return b"\n".join(each if isinstance(each, bytes) else each.encode() for each in found)


@pytest.mark.parametrize("way", ["scram", "mtls"])
def test_no_command_lets_a_secret_out(
    secured: Secured, run: Run, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"secrets-{uuid.uuid4().hex[:6]}"
    told, env = given(secured, way, tmp_path / "given")
    for file, secret in (("state.key", STATE_KEY), ("hash.key", HASH_KEY)):
        (tmp_path / "given" / file).write_text(secret)
    (tmp_path / "events.jsonl").write_bytes(b"\n".join([*map(good, range(60)), b'{"id": ']))
    task = tmp_path / "task.toml"
    task.write_text(f'hash_key_file = "{tmp_path}/given/hash.key"\n' + task_text(name) + SMALL)
    key = ["--state-key", str(tmp_path / "given/state.key")]
    state, events = ["--state", str(tmp_path / "state")], str(tmp_path / "events.jsonl")
    monkeypatch.chdir(tmp_path)
    done: dict[str, Ran] = {}

    def call(code: int, *command: str, options: list[str] = told, **more: str) -> None:
        done[" ".join(command)] = found = run(*command, *options, **(env | more))
        assert found.code == code, found

    call(0, "check", str(task), options=[])
    call(0, "schema", options=[])
    call(0, "evaluate", str(task), "-i", events, options=[])
    call(0, "acls", str(task), options=[])
    call(0, "topics", "create", str(task))
    call(0, "topics", "list")
    call(0, "topics", "describe", name)
    call(0, "produce", "file", events, "--topic", name)
    call(0, "learn", str(task), *state, *key, "--dry-run")
    call(0, "learn", str(task), *state, *key, "--drain")
    call(0, "learn", str(task), *state, "--drain")  # which names what it cannot open
    call(0, "tail", f"{name}.predictions")
    call(0, "tail", f"{name}.ledger", "--json")
    call(0, "dead-letters", str(task))
    call(0, "verify", str(task), "--deep")
    call(0, "replay", str(task), "--to-topic", f"{name}.again")
    call(0, "state", str(task), "--at", "#1", "--to", str(tmp_path / "then"), *key)
    call(0, "archive", name, "--to", str(tmp_path / "archive"))
    if way == "scram":
        wrong = f"{PASSWORD}-wrong"
        call(2, "topics", "list", "--json", HEADRACE_KAFKA_SASL_PASSWORD=wrong)
        call(2, "learn", str(task), "--drain", "--json", HEADRACE_KAFKA_SASL_PASSWORD=wrong)
    kafka = connection(secured.mtls())
    stages = ("features", "predictions", "metrics", "drift", "dead-letter", "ledger", "again")
    names = [name, *(f"{name}.{stage}" for stage in stages)]
    sent = in_topics(kafka, names)
    delete(kafka, names)
    assert b"probabilities" in sent
    for command, found in done.items():
        for secret in SECRETS:
            assert secret not in found.out, command
            assert secret not in found.err, command
    for secret in SECRETS:
        assert secret.encode() not in sent
        for path in tmp_path.rglob("*"):
            if path.is_file() and tmp_path / "given" not in path.parents:
                assert secret.encode() not in path.read_bytes(), path
