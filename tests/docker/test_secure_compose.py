"""`docker compose -f compose.secure.yaml up --build --wait`: the demo, on a Kafka with security."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.errors import BrokerError
from headrace.stream.kafka.acls import ROLES
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.kafka.topics import list_topics
from tests.docker.compose import (
    EVENTS,
    LEARNERS,
    OURS,
    PRODUCERS,
    SLOW,
    UP_S,
    Compose,
    assert_all_run,
    started,
)

Read = Callable[[KafkaConnection, str, int], list[dict[str, Any]]]

USERS = {
    "topics": "admin",
    "normalize": "normaliser",
    **dict.fromkeys(LEARNERS, "learner"),
    **dict.fromkeys(PRODUCERS, "producer"),
}
OWN = "/etc/headrace/kafka"
SHELL = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh")


@pytest.fixture
def compose() -> Iterator[Compose]:
    with started("compose.secure.yaml") as project:
        yield project


def secrets_of(compose: Compose) -> dict[str, str]:
    """Return the password of each user, and a line of the broker's key, as the set-up sees them."""
    script = "cat /etc/headrace/clients/*/client.properties /etc/headrace/tls/broker/broker.key"
    text = compose(*SHELL, "users", "-c", script)
    users = re.findall(r"^sasl.username=(\w+)\nsasl.password=(\S+)$", text, re.MULTILINE)
    key = re.search(r"BEGIN PRIVATE KEY-+\n(\S+)\n", text)
    assert key
    return {**dict(users), "key": key[1]}


def host_connection(compose: Compose, role: str, folder: Path) -> KafkaConnection:
    """Return a connection from this machine, by what a role is given and the authority."""
    config, ca = folder / "client.properties", folder / "ca.pem"
    ca.write_text(compose(*SHELL, "reader", "-c", "cat /etc/headrace/tls/ca.pem"))
    text = compose(*SHELL, "users", "-c", f"cat /etc/headrace/clients/{role}/client.properties")
    config.write_text(text.replace("/etc/headrace/tls/ca.pem", str(ca)))
    config.chmod(0o600)
    return connect(f"localhost:{compose.port}", config)


def told_in(compose: Compose, service: str, command: str) -> str:
    """Return what a command says in a container, once Kafka answers: it may be busy."""
    for _ in range(6):
        said = compose("exec", "-T", service, "headrace", *command.split(), check=False)
        if SLOW not in said:
            break
    return said


@pytest.mark.long
@pytest.mark.timeout(UP_S + 900)
def test_compose_is_the_demo_and_each_part_may_do_what_it_has_to(
    compose: Compose, read: Read, tmp_path: Path
) -> None:
    reader = host_connection(compose, "reader", tmp_path)
    for task, topic in EVENTS.items():
        events = [event["id"] for event in read(reader, topic, 200)]
        predictions = read(reader, f"{task}.predictions", 200)
        assert len(set(events)) == 200
        assert [prediction["id"] for prediction in predictions] == events
    assert_all_run(compose, {"certificates", "users", "topics"})

    with pytest.raises(BrokerError):  # without TLS
        list_topics(KafkaConnection(f"127.0.0.1:{compose.port}"))
    with pytest.raises(BrokerError):  # with TLS, and nobody
        ca = {"ssl.ca.location": str(tmp_path / "ca.pem"), "security.protocol": "ssl"}
        list_topics(KafkaConnection(f"127.0.0.1:{compose.port}", ca))
    for service, command, lacks in (
        ("produce-text", "tail events.text", "User:producer lacks READ on topic events.text"),
        ("normalize", "tail spam.features", "User:normaliser lacks READ on topic spam.features"),
        ("learn-spam", "produce text --limit 1", "User:learner lacks WRITE on topic events.text"),
        ("learn-spam", "topics create examples/digits.toml", "lacks DESCRIBE on topic digits."),
    ):
        assert lacks in (said := told_in(compose, service, command)), said

    told = secrets_of(compose)
    assert {*told} == {*ROLES, "key"}
    for service in OURS:  # what is its own, and nothing of the others
        found = compose("exec", "-T", service, "sh", "-c", "cat $(find /etc/headrace -type f)")
        assert {name for name, secret in told.items() if secret in found} == {USERS[service]}
    public = {
        "config": compose("config"),
        "logs": compose("logs", "--no-color"),
        "containers": inspect("container", *(each["Name"] for each in compose.services().values())),
        "image": inspect("image", "headrace"),
        "in the image": subprocess.run(
            ["docker", "run", "--rm", "--entrypoint", "find", "headrace", "/etc/headrace"],
            capture_output=True,
            text=True,
        ).stdout,
    }
    for where, text in public.items():
        assert not [name for name, secret in told.items() if secret in text], where

    compose("stop", *OURS)
    stopped = compose.services()
    assert {name: stopped[name]["ExitCode"] for name in OURS} == dict.fromkeys(OURS, 0)
    for service in ("certificates", "users", "topics"):  # what is there stays
        compose("run", "--rm", "-T", "--no-deps", service)
    assert secrets_of(compose) == told


def inspect(kind: str, *names: str) -> str:
    """Return all that the engine tells of containers or an image."""
    command = ["docker", kind, "inspect", *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
