"""Questions over a real Kafka are answered there, to whom they may be."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import TopicSpec
from headrace.stream.kafka.topics import delete, ensure
from headrace.stream.serve.predictor import Predictor
from headrace.stream.serve.requests import Requests
from tests.support.events import good
from tests.support.serving import manifest, small_task, trained

pytestmark = pytest.mark.kafka


PROBE = 999_999


class Asker:
    """Send requests and read replies with kafka-python."""

    def __init__(self, kafka: KafkaConnection, name: str) -> None:
        self.name = name
        self.topics = [
            f"{name}.{each}" for each in ("requests", "replies", "replies.mine", "ledger")
        ]
        ensure(kafka, [TopicSpec(topic, partitions=2) for topic in self.topics])
        self._producer = KafkaProducer(**kafka.kafka_python())
        self._consumer = KafkaConsumer(
            *self.topics[1:],
            **kafka.kafka_python(),
            group_id=None,
            auto_offset_reset="earliest",
        )
        self.replies: list[Any] = []

    def ask(self, value: bytes | None, reply_to: str | None, number: int) -> None:
        headers = [("correlation-id", b"%d" % number)]
        if reply_to is not None:
            headers.append(("reply-topic", reply_to.encode()))
        topic = f"{self.name}.requests"
        self._producer.send(topic, value, key=b"k%d" % number, headers=headers).get(10)

    def told(self, count: int) -> dict[int, Any]:
        """Wait for so many replies; return them by their correlation ids."""
        give_up_s = time.monotonic() + 30
        while len({self._number(each) for each in self.replies}) < count:
            assert time.monotonic() < give_up_s, self.replies
            self.replies += [each for each in self._read() if self._number(each) != PROBE]
        return {self._number(each): each for each in self.replies}

    def await_group(self, value: bytes, reply_to: str) -> None:
        """Ask until an answer comes: the group stands somewhere then, and loses nothing more."""
        give_up_s = time.monotonic() + 60
        while not self._read():
            assert time.monotonic() < give_up_s
            for _ in range(4):  # to each partition
                self.ask(value, reply_to, PROBE)
        time.sleep(1)

    def _read(self) -> list[Any]:
        found = self._consumer.poll(timeout_ms=500).values()
        return [record for records in found for record in records]

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()

    @staticmethod
    def _number(record: Any) -> int:
        return int(dict(record.headers)["correlation-id"])


@pytest.fixture
def asker(kafka: KafkaConnection) -> Iterator[Asker]:
    made = Asker(kafka, f"asked-{time.time_ns()}")
    yield made
    made.close()
    delete(kafka, made.topics)


def test_requests_are_answered_where_they_say_and_nowhere_else(
    kafka: KafkaConnection, asker: Asker
) -> None:
    task = small_task(asker.name)
    predictor, notes = Predictor(task), list[str]()
    services = [Requests(predictor, kafka, notes.append) for _ in range(2)]
    for service in services:
        service.start()
    predictor.take_over(manifest(), trained(task).snapshot().tensors())
    one, name = json.loads(good(70)), asker.name
    replies = f"{name}.replies"
    asker.await_group(json.dumps(one).encode(), replies)
    asker.ask(json.dumps(one).encode(), replies, 0)
    asker.ask(json.dumps([one, {}]).encode(), f"{replies}.mine", 1)
    asker.ask(b"{}", replies, 2)
    asker.ask(b"what?", replies, 3)
    asker.ask(None, replies, 4)
    for at, topic in enumerate((None, "", f"{name}.ledger", "other", f"{replies}.none", "\0"), 5):
        asker.ask(json.dumps(one).encode(), topic, at)
    asker.ask(b"[]", replies, 20)
    for number in range(100, 200):
        asker.ask(json.dumps(one | {"id": number}).encode(), replies, number)
    found = asker.told(106)
    said = {number: json.loads(record.value) for number, record in found.items()}
    (wanted,) = predictor.answer([good(70)])
    assert said[0]["probabilities"] == wanted.probabilities  # type: ignore[union-attr]
    assert (said[0]["id"], found[0].key) == ("e-70", b"k0")
    assert found[1].topic == f"{replies}.mine"
    assert said[1][0] == said[0]
    assert said[1][1]["code"] == said[2]["code"] == "schema"
    assert said[3]["status"] == said[4]["status"] == 400
    assert said[20] == []
    assert [said[number]["id"] for number in range(100, 200)] == [*range(100, 200)]
    assert {*found} == {*range(5), 20, *range(100, 200)}
    assert f"{name}.ledger" not in {record.topic for record in found.values()}
    for service in services:
        service.stop()
    assert sum(service.dropped for service in services) == 6
    assert all("is not answered" in note for note in notes)


def test_requests_wait_for_a_state_and_for_the_next_service(
    kafka: KafkaConnection, asker: Asker
) -> None:
    task, name = small_task(asker.name), asker.name
    predictor, notes = Predictor(task), list[str]()
    asker.ask(good(1), f"{name}.replies", 0)  # before the first service: not answered
    service = Requests(predictor, kafka, notes.append)
    service.start()
    wait_for_group(kafka, f"{name}.serve", f"{name}.requests")
    for number in (1, 2, 3):  # while there is no state
        asker.ask(good(number), f"{name}.replies", number)
    time.sleep(1)
    service.stop()
    for number in range(4, 10):  # while there is no service; on both partitions
        asker.ask(good(number), f"{name}.replies", number)
    predictor.take_over(manifest(), trained(task).snapshot().tensors())
    service = Requests(predictor, kafka, notes.append)
    service.start()
    assert sorted(asker.told(9)) == [*range(1, 10)]
    service.stop()
    assert not notes


def test_an_answer_that_its_topic_does_not_take_is_told_instead(
    kafka: KafkaConnection, asker: Asker
) -> None:
    task, name = small_task(asker.name), asker.name
    predictor, notes = Predictor(task), list[str]()
    predictor.take_over(manifest(), trained(task).snapshot().tensors())
    service = Requests(predictor, kafka, notes.append)
    service.start()
    wait_for_group(kafka, f"{name}.serve", f"{name}.requests")
    replies = f"{name}.replies"
    with KafkaAdminClient(**kafka.kafka_python()) as admin:
        settings = {"max.message.bytes": "2000"}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, replies, configs=settings)])
    asker.ask(b"[" + b",".join([b"{}"] * 100) + b"]", replies, 1)
    asker.ask(good(1), replies, 2)
    found = {number: json.loads(record.value) for number, record in asker.told(2).items()}
    assert found[1]["status"] == 413
    assert "fewer events" in found[1]["detail"]
    assert found[2]["id"] == "e-1"
    service.stop()
    assert len(notes) == 1


def test_a_request_that_cannot_be_answered_is_told_so_once_and_spoils_no_other(
    kafka: KafkaConnection, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, name = small_task(asker.name), asker.name
    predictor, notes = Predictor(task), list[str]()
    predictor.take_over(manifest(), trained(task).snapshot().tensors())
    answer = predictor.answer

    def fails(raws: Sequence[bytes]) -> list[Any]:
        if b'{"poison": 1}' in raws:
            raise KeyError("poison")
        return answer(raws)

    monkeypatch.setattr(predictor, "answer", fails)
    service, replies = Requests(predictor, kafka, notes.append), f"{name}.replies"
    service.start()
    wait_for_group(kafka, f"{name}.serve", f"{name}.requests")
    for number in range(3, 20):
        poisoned = number % 5 == 0
        asker.ask(b'{"poison": 1}' if poisoned else good(number), replies, number)
    found = {number: json.loads(record.value) for number, record in asker.told(17).items()}
    service.stop()
    assert {number for number in found if found[number].get("status") == 500} == {5, 10, 15}
    assert all(found[number]["id"] == f"e-{number}" for number in found if number % 5)
    assert len(asker.replies) == 17
    assert len(notes) == 1
    assert "KeyError('poison')" in notes[0]


def test_a_topic_for_answers_that_is_deleted_holds_no_other_answers_up(
    kafka: KafkaConnection, asker: Asker
) -> None:
    task, name = small_task(asker.name), asker.name
    predictor, notes = Predictor(task), list[str]()
    predictor.take_over(manifest(), trained(task).snapshot().tensors())
    service = Requests(predictor, kafka, notes.append)
    service.start()
    wait_for_group(kafka, f"{name}.serve", f"{name}.requests")
    asker.ask(good(1), f"{name}.replies.mine", 1)
    asker.told(1)
    delete(kafka, [f"{name}.replies.mine"])
    began_s = time.monotonic()
    for number in (2, 3, 4):
        asker.ask(good(number), f"{name}.replies.mine", number)
        asker.ask(good(number), f"{name}.replies", 10 + number)
    assert {*asker.told(4)} == {1, 12, 13, 14}
    assert time.monotonic() - began_s < 10
    service.stop()
    assert any("replies.mine did not arrive" in note for note in notes), notes


def wait_for_group(kafka: KafkaConnection, group: str, topic: str) -> None:
    """Wait until a group says of both partitions of a topic where it begins."""
    consumer = Consumer(kafka.confluent() | {"group.id": group})
    partitions, give_up_s = [TopicPartition(topic, at) for at in range(2)], time.monotonic() + 30
    while any(at.offset < 0 for at in consumer.committed(partitions)):
        assert time.monotonic() < give_up_s
        time.sleep(0.1)
    consumer.close()
