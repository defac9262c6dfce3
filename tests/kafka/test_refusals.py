"""What goes wrong between us and a Kafka with security is said in words, and within 5 seconds."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.errors import AccessError, BrokerError, DeliveryError
from headrace.stream.kafka.acls import Acl, grant
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import describe, ensure, list_topics
from headrace.stream.task import parse
from tests.support.commands import headrace
from tests.support.events import task_text
from tests.support.hostile import Run
from tests.support.secured import PASSWORD, Secured, connection

WITHIN_S = 12.0  # five, and what a busy machine takes; clients left alone take 15 and more
Properties = dict[str, str]


def certificate(secured: Secured, name: str) -> Properties:
    """Return properties for the door MTLS, with the certificate of somebody."""
    return secured.mtls() | {
        "ssl.certificate.location": secured.file(f"{name}.crt"),
        "ssl.key.location": secured.file(f"{name}.key"),
    }


def tls(secured: Secured, door: str) -> Properties:
    """Return properties for a door with TLS and nothing else."""
    return {
        "bootstrap.servers": secured.at(door),
        "security.protocol": "ssl",
        "ssl.ca.location": secured.file("ca.pem"),
    }


WRONG: dict[str, tuple[Callable[[Secured], Properties], str, int]] = {
    "password": (
        lambda s: s.scram() | {"sasl.password": "canary-wrong"},
        "does not let 'alice' with this password in (SCRAM-SHA-512)",
        2,
    ),
    "password, PLAIN": (
        lambda s: s.scram(mechanism="PLAIN") | {"sasl.password": "canary-wrong"},
        "does not let 'alice' with this password in (PLAIN)",
        2,
    ),
    "mechanism": (
        lambda s: {
            "bootstrap.servers": s.at("SASLPT"),
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "alice",
            "sasl.password": PASSWORD,
        },
        "does not have sasl.mechanism=PLAIN: it has SCRAM-SHA-512",
        2,
    ),
    "authority": (
        lambda s: s.scram() | {"ssl.ca.location": s.file("other-ca.pem")},
        "signed by nobody whom ssl.ca.location trusts",
        2,
    ),
    "expired certificate": (lambda s: tls(s, "EXPIRED"), "certificate has expired", 2),
    "host name": (
        lambda s: s.scram() | {"bootstrap.servers": s.at("SASLSSL", "localhost")},
        "certificate is for another host than localhost",
        2,
    ),
    "TLS at a port without": (lambda s: tls(s, "PLAIN"), "does not speak TLS", 2),
    "no TLS at a port with": (
        lambda s: {"bootstrap.servers": s.at("TLS")},
        "speaks TLS, and security.protocol is plaintext: ssl is meant?",
        2,
    ),
    "no SASL at a port with": (lambda s: {"bootstrap.servers": s.at("SASLPT")}, "ask for SASL", 3),
    "no certificate of ours": (lambda s: tls(s, "MTLS"), "wants a certificate of ours", 2),
    "a stranger's certificate": (
        lambda s: certificate(s, "stranger"),
        "it wants a certificate of ours, one that it trusts",
        2,
    ),
    "our certificate has expired": (
        lambda s: certificate(s, "late"),
        "does not accept our certificate, which may have expired",
        2,
    ),
    "client's secret": (
        lambda s: s.oauth() | {"sasl.oauthbearer.client.secret": "canary-wrong"},
        "/token gives no token (HTTP 401): look at sasl.oauthbearer.client.id",
        2,
    ),
    "nobody there": (
        lambda s: s.scram() | {"bootstrap.servers": "127.0.0.1:1"},
        "no Kafka answers at 127.0.0.1:1 (Connection refused)",
        3,
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_says_why_it_is_not_let_in(
    secured: Secured, tmp_path: Path, run: Run, wrong: str
) -> None:
    make, message, code = WRONG[wrong]
    config = secured.write(tmp_path / "client.properties", make(secured))
    begun_s = time.monotonic()
    done = run("tail", "events", "--kafka-config", config)
    if code == 2:  # what cannot get better is said at once
        assert time.monotonic() - begun_s < WITHIN_S
    assert message in done.err
    assert done.code == code
    assert len(done.err.splitlines()) == 1
    assert "canary" not in done.err


@pytest.mark.parametrize("command", ["topics", "learn", "normalize", "produce", "archive", "demo"])
def test_every_command_does(secured: Secured, tmp_path: Path, run: Run, command: str) -> None:
    wrong = secured.scram() | {"sasl.password": "canary-wrong"}
    config = secured.write(tmp_path / "client.properties", wrong)
    path = tmp_path / "task.toml"
    path.write_text(task_text("refused"))
    told: dict[str, list[Any]] = {
        "topics": ["topics", "create", path],
        "produce": ["produce", "text", "--limit", "1"],
        "archive": ["archive", "events", "--to", tmp_path / "kept"],
        "demo": ["demo", "--for", "1"],
    }
    arguments = told.get(command, [command, path])
    begun_s = time.monotonic()
    done = run(*arguments, "--kafka-config", config)
    assert time.monotonic() - begun_s < WITHIN_S
    assert (done.code, "does not let 'alice' with this password in" in done.err) == (2, True)


@pytest.mark.parametrize("wrong", ["password", "authority", "no TLS at a port with"])
def test_a_program_is_told_by_whatever_it_does_first(secured: Secured, wrong: str) -> None:
    """Its clients give up first: kafka-python after 5 s, confluent_kafka after 10 s."""
    make, message, _ = WRONG[wrong]
    kafka = connection(make(secured))
    with pytest.raises(AccessError) as caught:
        list_topics(kafka)
    assert message in str(caught.value)


def test_a_token_that_kafka_does_not_take(secured: Secured, tmp_path: Path, run: Run) -> None:
    properties = secured.oauth() | {"sasl.oauthbearer.client.id": "a b"}
    config = secured.write(tmp_path / "client.properties", properties)
    secured.oidc.life_s = -100
    try:
        done = run("topics", "list", "--kafka-config", config)
    finally:
        secured.oidc.life_s = 300
    assert (done.code, "has expired already" in done.err) == (2, True)


@pytest.fixture
def bob(secured: Secured) -> Iterator[Bob]:
    """Yield a user who may do nothing, and a way to allow something."""
    made = Bob(secured)
    yield made
    made.forbid_all()


class Bob:
    """Hold bob's connection, and that of alice, who may do anything."""

    def __init__(self, secured: Secured) -> None:
        self.secured = secured
        self.kafka, self.alice = (connection(secured.scram(name)) for name in ("bob", "alice"))
        self.topic = f"acl.{uuid.uuid4().hex[:8]}"
        ensure(self.alice, [TopicSpec(self.topic)])

    def allow(self, operation: str, name: str = "", resource: Any = "topic") -> None:
        role: Any = "bob"
        grant(self.alice, [Acl(role, operation, resource, name or self.topic)])
        time.sleep(0.2)

    def forbid_all(self) -> None:
        from kafka.admin import ACLFilter, ACLOperation, ACLPermissionType, ResourcePatternFilter
        from kafka.admin import ACLResourcePatternType as Pattern
        from kafka.admin import ResourceType as Type

        from headrace.stream.kafka.topics import admin_of

        every = ResourcePatternFilter(Type.ANY, None, Pattern.ANY)
        whose = ("User:bob", None, ACLOperation.ANY, ACLPermissionType.ANY, every)
        with admin_of(self.alice) as admin:
            admin.delete_acls([ACLFilter(*whose)])

    def lacks(self, act: Callable[[], object]) -> str:
        """Return which operation on which resource bob lacks, as it is said at once."""
        begun_s = time.monotonic()
        with pytest.raises(AccessError) as caught:
            act()
        assert time.monotonic() - begun_s < WITHIN_S
        who, _, what = str(caught.value).partition(" lacks ")
        assert who == "User:bob"
        return what.partition(" at ")[0].replace(self.topic, "T")


def test_reading_says_what_is_not_allowed(bob: Bob) -> None:
    def read() -> None:
        source = bob.kafka.source(bob.topic)
        try:
            while not source.ended:
                source.poll(10, 0.5)
        finally:
            source.close()

    assert bob.lacks(read) == "DESCRIBE on topic T"
    watch = bob.kafka.watch(bob.topic)
    assert bob.lacks(lambda: watch.confirm(watch.ask())) == "DESCRIBE on topic T"
    bob.allow("DESCRIBE")
    assert bob.lacks(read) == "READ on topic T"
    bob.allow("READ")
    read()  # no group has to be allowed


def test_writing_says_what_is_not_allowed(bob: Bob) -> None:
    def write() -> None:
        sink = bob.kafka.sink()
        sink.send(bob.topic, [b"x"])
        sink.flush(5)

    assert bob.lacks(write) == "WRITE on topic T"
    bob.allow("DESCRIBE")
    said = bob.lacks(write)
    assert said == "WRITE on any topic, nor IDEMPOTENT_WRITE on the cluster"
    bob.allow("WRITE", "acl.other")
    assert bob.lacks(write) == "WRITE on topic T"
    bob.allow("WRITE")
    write()


def test_topics_say_what_is_not_allowed(bob: Bob) -> None:
    specs = [TopicSpec(bob.topic, 2)]
    assert bob.lacks(lambda: ensure(bob.kafka, specs)) == "DESCRIBE on topic T"
    assert list_topics(bob.kafka) == []
    bob.allow("DESCRIBE")
    assert bob.lacks(lambda: describe(bob.kafka, [bob.topic])) == "DESCRIBE_CONFIGS on topic T"
    bob.allow("DESCRIBE_CONFIGS")
    assert describe(bob.kafka, [bob.topic])[0].partitions == 1
    assert bob.lacks(lambda: ensure(bob.kafka, specs, grow=True)) == "ALTER on topic T"
    new = f"{bob.topic}.new"
    assert bob.lacks(lambda: ensure(bob.kafka, [TopicSpec(new)])) == "DESCRIBE on topic T.new"
    bob.allow("DESCRIBE", new)
    bob.allow("DESCRIBE_CONFIGS", new)
    assert bob.lacks(lambda: ensure(bob.kafka, [TopicSpec(new)])) == "CREATE on topic T.new"
    needs = {"WRITE": [bob.topic]}
    prepare = bob.kafka.prepare
    assert bob.lacks(lambda: prepare(specs[:0], needs=needs)) == "WRITE on topic T"


def test_transactions_say_what_is_not_allowed(bob: Bob) -> None:
    def begin() -> None:
        bob.kafka.transactions("bobs", topics=[bob.topic]).close()

    assert bob.lacks(begin) == "DESCRIBE on topic T"
    bob.allow("DESCRIBE")
    assert bob.lacks(begin) == "WRITE on topic T"
    bob.allow("WRITE")
    assert bob.lacks(begin) == "WRITE on transactional-id bobs"
    bob.allow("DESCRIBE", "bobs", "transactional-id")
    assert bob.lacks(begin) == "WRITE on transactional-id bobs"
    bob.allow("WRITE", "bobs", "transactional-id")
    begin()


def test_publishing_says_what_is_not_allowed(bob: Bob) -> None:
    from headrace.producers import events_of
    from headrace.producers.publish import publish

    def produce() -> None:
        publish(events_of("text"), kafka=bob.kafka, topic=bob.topic, limit=3)

    bob.allow("DESCRIBE")
    bob.allow("DESCRIBE_CONFIGS")
    assert bob.lacks(produce) == "WRITE on topic T"
    bob.allow("WRITE")
    produce()


def test_a_normaliser_ends_where_it_may_not_read(
    bob: Bob, secured: Secured, tmp_path: Path
) -> None:
    name = f"refused-{uuid.uuid4().hex[:6]}"
    path = tmp_path / "task.toml"
    path.write_text(task_text(name))
    task = parse(path.read_text(), str(path))
    ensure(bob.alice, topic_specs(task))
    config = secured.write(tmp_path / "bob.properties", secured.scram("bob"))

    def normalize() -> str:
        with headrace("normalize", str(path), "--kafka-config", str(config)) as process:
            _, said = process.communicate(timeout=60)
        assert process.returncode == 2, said
        return str(said)

    for topic in (name, task.output("features"), task.output("dead-letter")):
        bob.allow("DESCRIBE", topic)
        bob.allow("DESCRIBE_CONFIGS", topic)
    assert f"User:bob lacks READ on topic {name}" in normalize()
    bob.allow("READ", name)
    assert f"User:bob lacks WRITE on topic {task.output('features')}" in normalize()
    for topic in (task.output("features"), task.output("dead-letter")):
        bob.allow("WRITE", topic)
    assert f"User:bob lacks READ on group headrace-normalize-{name}" in normalize()


def test_a_frozen_kafka_is_no_matter_of_passwords(
    secured: Secured, tmp_path: Path, run: Run
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = {"bootstrap.servers": f"127.0.0.1:{silent.getsockname()[1]}"}
        config = secured.write(tmp_path / "client.properties", secured.scram() | there)
        begun_s = time.monotonic()
        done = run("topics", "list", "--kafka-config", config)
        assert time.monotonic() - begun_s < WITHIN_S
    assert (done.code, "takes connections, and does not answer" in done.err) == (3, True)


def test_refusals_are_no_other_errors() -> None:
    assert issubclass(AccessError, BrokerError)
    assert not issubclass(AccessError, DeliveryError)
    assert KafkaConnection("x:1").principal == "User:ANONYMOUS"
