"""Every way to log in to Kafka, for all three clients alike, by a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from aiokafka.errors import KafkaConnectionError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer
from kafka.errors import KafkaError

from headrace.stream.broker.certificates import Authority
from headrace.stream.errors import BrokerError, UsageError
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.kafka.tokens import ClientCredentials, Kept, Token
from headrace.stream.kafka.topic_specs import TopicSpec, topic_specs
from headrace.stream.kafka.topics import ensure, list_topics
from headrace.stream.task import parse
from tests.support.events import good, task_text
from tests.support.hostile import Run
from tests.support.secured import (
    KEY_PASSWORD,
    PASSWORD,
    WAYS,
    Oidc,
    Secured,
    assert_all_clients_work,
    connection,
    read_by_aiokafka,
)

SMALL = "[model]\nhidden = [8]\nneighbours = 50\nembedding = 4\ntable_bits = 10\n"


@pytest.mark.parametrize("way", WAYS)
def test_all_clients_log_in_alike(secured: Secured, way: str) -> None:
    assert_all_clients_work(connection(secured.ways()[way]))


def test_a_token_is_asked_for_again_before_it_expires(secured: Secured) -> None:
    secured.oidc.life_s = 4
    try:
        kafka, begun = connection(secured.oauth()), secured.oidc.asked
        tokens = kafka.tokens
        assert tokens
        first = tokens()
        assert tokens() is first
        assert secured.oidc.asked == begun + 1
        sink = kafka.sink()
        topic = f"token.{uuid.uuid4().hex[:8]}"
        ensure(kafka, [TopicSpec(topic)])
        give_up_s = time.monotonic() + 30
        while secured.oidc.asked < begun + 3:  # the client asks by itself
            sink.send(topic, [b"x"])
            sink.flush()
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        assert tokens().expires_s > first.expires_s
        assert topic in list_topics(kafka)
    finally:
        secured.oidc.life_s = 300


def test_a_program_may_give_the_tokens(secured: Secured) -> None:
    asked: list[float] = []

    def token() -> Token:
        asked.append(time.time())
        return Token(secured.oidc.token("alice", 300), time.time() + 300)

    properties = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "OAUTHBEARER",
        "ssl.ca.location": secured.file("ca.pem"),
    }
    kafka = KafkaConnection(secured.at("OAUTH"), properties, token)
    assert kafka.principal == "User:alice"
    ensure(kafka, [TopicSpec(f"given.{uuid.uuid4().hex[:8]}")])
    assert len(asked) == 1
    with pytest.raises(UsageError, match="cannot be handed to its worker processes"):
        kafka.environment()


def test_the_secret_goes_to_a_provider_that_is_trusted_and_nowhere_else(tmp_path: Path) -> None:
    authority, other = Authority("provider"), Authority("another")
    shown = authority.issue("provider", hosts=("127.0.0.1",))
    for name, data in (
        ("ca.pem", authority.certificate),
        ("other.pem", other.certificate),
        ("provider.pem", shown.key + shown.certificate),
    ):
        (tmp_path / name).write_bytes(data)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "provider.pem")
    with Oidc(tls) as provider:

        def token(path: str, ca: str) -> Token:
            place = str(tmp_path / ca)
            url = f"{provider.url}{path}"
            return ClientCredentials(url, "alice", PASSWORD, scope="kafka", ca=place)()

        assert token("/token", "ca.pem").subject == "alice"
        asked = provider.asked
        with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
            token("/token", "other.pem")
        with pytest.raises(BrokerError, match="HTTP 302"):
            token("/moved", "ca.pem")
        assert provider.asked == asked


def test_no_client_talks_to_a_host_that_its_certificate_does_not_name(secured: Secured) -> None:
    """The certificate is for 127.0.0.1, and the same broker is called localhost."""
    properties = secured.scram() | {"bootstrap.servers": secured.at("SASLSSL", "localhost")}
    kafka = connection(properties)
    assert AdminClient(connection(secured.scram()).confluent()).list_topics(timeout=5)
    with pytest.raises(KafkaException):
        AdminClient(kafka.confluent()).list_topics(timeout=2)
    with pytest.raises(KafkaError):
        KafkaConsumer(**kafka.kafka_python(), bootstrap_timeout_ms=2000)
    with pytest.raises(KafkaConnectionError):
        asyncio.run(read_by_aiokafka(kafka, "any", 1))


def test_tokens_are_kept_for_four_fifths_of_their_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    made: list[Token] = []

    def token() -> Token:
        made.append(Token(f"t{len(made)}", now[0] + 100))
        return made[-1]

    kept = Kept(token)
    for at, number in ((1000.0, 0), (1079.0, 0), (1081.0, 1), (1160.0, 1), (1500.0, 2)):
        now[0] = at
        assert kept().value == f"t{number}"
    assert "t0" not in repr(made[0])


def test_learning_by_the_command_line_shows_no_secret(secured: Secured, tmp_path: Path) -> None:
    """A normaliser's workers and a learner get theirs by a file and by the environment."""
    name = f"secure-{uuid.uuid4().hex[:6]}"
    path = tmp_path / "task.toml"
    path.write_text(task_text(name) + SMALL)
    task = parse(path.read_text(), str(path))
    properties = secured.scram()
    kafka = connection(properties)
    ensure(kafka, topic_specs(task))
    password = properties.pop("sasl.password")
    config = secured.write(tmp_path / "client.properties", properties)
    sink = kafka.sink()
    sink.send(task.input.topic, [good(at) for at in range(50)])
    sink.flush()
    env = {**os.environ, "HEADRACE_KAFKA_SASL_PASSWORD": password}
    command = [sys.executable, "-m", "headrace"]
    told = ["--kafka-config", str(config), "--json"]
    with subprocess.Popen(
        [*command, "normalize", str(path), *told],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as normalizer:
        try:
            assert normalizer.stdout
            line = normalizer.stdout.readline()
            assert b"ready" in line, line + normalizer.stdout.read()
            family = [psutil.Process(normalizer.pid)]
            family += family[0].children(recursive=True)
            assert len(family) > 1
            assert password not in str([each.cmdline() for each in family])
            give_up_s = time.monotonic() + 30
            while kafka.ends([task.output("features")], committed=True).popitem()[1] < 50:
                assert time.monotonic() < give_up_s
                time.sleep(0.1)
        finally:
            normalizer.terminate()
            said = normalizer.communicate(timeout=20)[0].decode()
    learned = subprocess.run(
        [*command, "learn", str(path), "--from", "features", "--drain", *told],
        env=env,
        capture_output=True,
        text=True,
    )
    assert learned.returncode == 0, learned.stderr
    assert json.loads(learned.stdout.splitlines()[-1])["events"] == 50
    source = kafka.source(task.output("ledger"))
    records = source.poll(100, 5.0)
    source.close()
    assert records
    everything = (said, learned.stdout, learned.stderr, str(records.values))
    for text in everything:
        assert password not in text
    for kept in (tmp_path / "state").rglob("*"):
        assert not kept.is_file() or password.encode() not in kept.read_bytes()


def test_a_file_is_read_and_the_environment_stands_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(
        "# comment\n\nbootstrap.servers = one:9093\nsecurity.protocol=SASL_PLAINTEXT\n"
        "sasl.mechanisms=scram-sha-512\nsasl.username=alice\nsasl.password=a=b \n"
        "ssl.endpoint.identification.algorithm=https\n"
    )
    path.chmod(0o600)
    kafka = connect(config=path)
    assert kafka.servers == str(kafka) == "one:9093"
    assert kafka.properties == {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "alice",
        "sasl.password": "a=b",
    }
    assert connect("other:1", path).servers == "other:1"
    monkeypatch.setenv("HEADRACE_KAFKA_CONFIG", str(path))
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", "another")
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP_SERVERS", "two:9093")
    kafka = connect()
    assert (kafka.servers, kafka.properties["sasl.password"]) == ("two:9093", "another")
    child = kafka.environment()
    assert child["HEADRACE_KAFKA_SASL_PASSWORD"] == "another"
    assert "HEADRACE_KAFKA_CONFIG" not in child
    with monkeypatch.context() as inner:
        for variable in [name for name in os.environ if name.startswith("HEADRACE_KAFKA")]:
            inner.delenv(variable)
        for variable in [name for name in child if name.startswith("HEADRACE_KAFKA")]:
            inner.setenv(variable, child[variable])
        assert connect() == kafka


SASL = "security.protocol=sasl_ssl\nsasl.mechanism=PLAIN\n"
LOGIN = f"sasl.username=alice\nsasl.password={PASSWORD}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"sasl.pasword={PASSWORD}", "sasl.pasword: not one of the settings"),
        (PASSWORD, "line 1: expected key=value"),
        (f"sasl.password: {PASSWORD}=x", "line 1: expected key=value"),
        ("security.protocol=tls", "'tls': expected one of plaintext, ssl, sasl_plaintext"),
        ("security.protocol=sasl_ssl\nsasl.mechanism=GSSAPI", "'GSSAPI': expected one of PLAIN"),
        ("security.protocol=sasl_ssl", "sasl.mechanism is missing, and sasl_ssl needs it"),
        (f"{SASL}sasl.username=x", "or as HEADRACE_KAFKA_SASL_PASSWORD"),
        (LOGIN, "has no effect with security.protocol=plaintext: sasl_ssl is meant"),
        ("security.protocol=ssl\nsasl.username=x", "sasl.username is given, and has no effect"),
        (f"{SASL}{LOGIN}ssl.endpoint.identification.algorithm=none", "only 'https' is accepted"),
        (f"{SASL}{LOGIN}enable.ssl.certificate.verification=false", "only 'true' is accepted"),
        (f"sasl.jaas.config=x password={PASSWORD}", "that is Java's; here it is sasl.username"),
        (f"{LOGIN}{LOGIN}", "line 3: sasl.username is there twice"),
        (f"{SASL}sasl.username=\n", "expected one line that is not empty"),
        (f"{SASL}{LOGIN}ssl.ca.location=/missing.pem", "/missing.pem: No such file"),
        (f"{SASL}{LOGIN}ssl.ca.location={__file__}", "no PEM certificates there"),
        (
            "security.protocol=sasl_ssl\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.client.id=x\n"
            f"sasl.oauthbearer.client.secret={PASSWORD}\n"
            "sasl.oauthbearer.token.endpoint.url=http://example.org/token",
            "expected https, because the client's secret is sent there",
        ),
        ("batch.size=1", "batch.size: not one of the settings"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: Path, run: Run, text: str, message: str
) -> None:
    path = tmp_path / "client.properties"
    path.write_text(text)
    path.chmod(0o600)
    done = run("topics", "list", "-b", "127.0.0.1:1", "--kafka-config", path)
    assert done.code == 2
    assert message in done.err
    assert PASSWORD not in done.err
    assert len(done.err.splitlines()) == 1


def test_an_unknown_variable_is_refused(run: Run) -> None:
    done = run("topics", "list", "-b", "127.0.0.1:1", HEADRACE_KAFKA_PASSWORD=PASSWORD)
    assert done.code == 2
    assert "HEADRACE_KAFKA_PASSWORD: no setting of a connection" in done.err
    assert PASSWORD not in done.err


def test_a_key_without_its_password_is_refused(secured: Secured) -> None:
    properties = secured.mtls("alice.encrypted.key")
    for password in ("", "wrong-canary"):
        properties.pop("ssl.key.password", None)
        properties |= {"ssl.key.password": password} if password else {}
        with pytest.raises(UsageError, match=r"ssl\.key\.password is wrong or missing") as caught:
            connection(properties)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_secrets_that_others_may_read_are_refused(tmp_path: Path, run: Run, mode: int) -> None:
    path = tmp_path / "client.properties"
    path.write_text(f"{SASL}{LOGIN}")
    path.chmod(mode)
    done = run("topics", "list", "-b", "127.0.0.1:1", "--kafka-config", path)
    allowed = mode == 0o640 and os.getuid() == 0  # as Kubernetes mounts secrets
    assert (f"chmod 600 {path}" in done.err) is not allowed
    assert done.code == 3 if allowed else 2
    path.write_text("security.protocol=ssl\n")  # no secret in it
    assert "chmod" not in run("topics", "list", "-b", "127.0.0.1:1", "--kafka-config", path).err


def test_what_is_shown_has_no_secret(secured: Secured) -> None:
    for properties in secured.ways().values():
        kafka = connection(properties)
        for text in (str(kafka), repr(kafka), f"{kafka}", str([kafka]), repr(kafka.tokens)):
            assert PASSWORD not in text
            assert KEY_PASSWORD not in text
