"""Tokens that expire while connections are open: a broker asks again who one is, or hangs up."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from headrace.stream.engines.credentials import settings_of
from headrace.stream.errors import AccessError, BrokerError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.tokens import Token
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import ensure
from tests.support.secured import Secured, connection

LIFE_S = 4
FOR_S = 9.0  # two lives and more
LATE_S = 10.0  # a record that takes longer has been lost

PassOn = Callable[[bytes], list[bytes]]
"""Writes a value, and returns what is read then."""


@pytest.fixture
def short(secured: Secured) -> Iterator[KafkaConnection]:
    """Yield a connection whose tokens live for LIFE_S."""
    secured.oidc.life_s = LIFE_S
    yield connection(secured.oauth())
    secured.oidc.life_s = 300


@pytest.fixture
def name(secured: Secured) -> str:
    """Return a new topic."""
    made = f"expiry.{uuid.uuid4().hex[:8]}"
    ensure(connection(secured.scram()), [TopicSpec(made)])
    return made


@contextmanager
def by_confluent(kafka: KafkaConnection, topic: str) -> Iterator[PassOn]:
    sink, source = kafka.sink(), kafka.source(topic)

    def pass_on(value: bytes) -> list[bytes]:
        sink.send(topic, [value])
        sink.flush(LATE_S)
        give_up_s = time.monotonic() + LATE_S
        while time.monotonic() < give_up_s:
            if records := source.poll(10, 1.0):
                return [value for value in records.values if value]
        return []

    yield pass_on
    source.close()


@contextmanager
def by_end_reader(kafka: KafkaConnection, topic: str) -> Iterator[PassOn]:
    sink, reader = kafka.sink(), kafka.end_reader(committed=True)

    def pass_on(value: bytes) -> list[bytes]:
        before = end()
        sink.send(topic, [value])
        sink.flush(LATE_S)
        return [value] * (end() - before)

    def end() -> int:
        give_up_s = time.monotonic() + LATE_S
        while time.monotonic() < give_up_s:
            with suppress(BrokerError):  # as it is just hung up on
                return reader.read([topic])[topic, 0]
        return 0

    yield pass_on
    reader.close()


@contextmanager
def by_kafka_python(kafka: KafkaConnection, topic: str) -> Iterator[PassOn]:
    producer = KafkaProducer(**kafka.kafka_python())
    consumer = KafkaConsumer(
        **kafka.kafka_python(), enable_auto_commit=False, consumer_timeout_ms=LATE_S * 1000
    )
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()

    def pass_on(value: bytes) -> list[bytes]:
        producer.send(topic, value).get(LATE_S)
        return [next(consumer).value]

    yield pass_on
    producer.close()
    consumer.close()


@contextmanager
def by_faust_s_aiokafka(kafka: KafkaConnection, topic: str) -> Iterator[PassOn]:
    who = credentials_to_aiokafka_auth(settings_of(kafka)["broker_credentials"])
    runner = asyncio.Runner()

    async def start() -> tuple[AIOKafkaProducer, AIOKafkaConsumer]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, **who)
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka.servers,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            **who,
        )
        await producer.start()
        await consumer.start()
        return producer, consumer

    producer, consumer = runner.run(start())

    async def exchange(value: bytes) -> list[bytes]:
        await producer.send_and_wait(topic, value)
        return [(await consumer.getone()).value]

    yield lambda value: runner.run(asyncio.wait_for(exchange(value), LATE_S))
    runner.run(producer.stop())
    runner.run(consumer.stop())
    runner.close()


@pytest.mark.parametrize(
    "client", [by_confluent, by_end_reader, by_kafka_python, by_faust_s_aiokafka]
)
def test_a_client_goes_on_when_its_token_expires(
    secured: Secured,
    short: KafkaConnection,
    name: str,
    client: Callable[[KafkaConnection, str], AbstractContextManager[PassOn]],
) -> None:
    asked, number = secured.oidc.asked, 0
    with client(short, name) as pass_on:
        end_s = time.monotonic() + FOR_S
        while time.monotonic() < end_s:
            number += 1
            assert pass_on(b"%d" % number) == [b"%d" % number]
            time.sleep(0.05)
    assert secured.oidc.asked - asked >= FOR_S // LIFE_S


PROPERTIES = {"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}


def test_a_token_that_expires_before_it_was_to_is_replaced_by_the_next(
    secured: Secured, name: str
) -> None:
    lives = iter([3])

    def token() -> Token:
        life_s = next(lives, 300)
        return Token(secured.oidc.token("alice", life_s), time.time() + max(life_s, 10))

    properties = PROPERTIES | {"ssl.ca.location": secured.file("ca.pem")}
    source = KafkaConnection(secured.at("OAUTH"), properties, token).source(name)
    sink, read = connection(secured.scram()).sink(), 0
    for number in range(1, 30):
        sink.send(name, [b"x"])
        sink.flush()
        end_s = time.monotonic() + LATE_S
        while read < number and time.monotonic() < end_s:
            records = source.poll(10, 1.0)
            read += len(records.values) if records else 0
        assert read == number
        time.sleep(0.2)
    source.close()


def test_who_is_let_in_no_more_is_told_so(secured: Secured, name: str) -> None:
    lives = iter([3])

    def token() -> Token:
        life_s = next(lives, -60)
        return Token(secured.oidc.token("alice", life_s), time.time() + 300)

    properties = PROPERTIES | {"ssl.ca.location": secured.file("ca.pem")}
    source = KafkaConnection(secured.at("OAUTH"), properties, token).source(name)
    end_s = time.monotonic() + 20
    with pytest.raises(AccessError, match="does not accept this token"):
        while time.monotonic() < end_s:
            source.poll(10, 1.0)
    source.close()
