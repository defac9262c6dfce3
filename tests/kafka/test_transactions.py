from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.stream.errors import AccessError, BrokerError, StoppedError
from headrace.stream.kafka import transactions
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.fencing import Owner
from headrace.stream.kafka.transactions import Transactions


class Coordinator:
    """Refuse to open transactions with some codes, one after the other; then open them."""

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes

    def init_transactions(self, timeout_s: float) -> None:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))


def opened(monkeypatch: pytest.MonkeyPatch, *codes: int) -> Coordinator:
    broker = Coordinator(list(codes))

    def sink(kafka: KafkaConnection, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(producer=broker)

    monkeypatch.setattr(transactions, "Sink", sink)
    monkeypatch.setattr(transactions, "owner_of", lambda *_: Owner(1, 0))
    monkeypatch.setattr(transactions, "abort_hanging", lambda *_: [])
    Transactions(KafkaConnection("nowhere:1"), "task.learn").close()
    return broker


def test_a_broker_that_is_not_yet_the_coordinator_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = opened(
        monkeypatch, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS
    )
    assert broker.codes == []


def test_any_other_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AccessError, match=r"lacks WRITE on transactional-id task\.learn"):
        opened(monkeypatch, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    with pytest.raises(BrokerError, match="does not open transactions"):
        opened(monkeypatch, KafkaError.INVALID_TRANSACTION_TIMEOUT)


def test_a_coordinator_that_never_comes_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "FENCE_S", 0.3)
    with pytest.raises(BrokerError, match="does not open transactions"):
        opened(monkeypatch, *[KafkaError.NOT_COORDINATOR] * 9)


def test_a_stop_ends_the_waiting_for_a_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    def sink(kafka: KafkaConnection, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(producer=Coordinator([KafkaError.NOT_COORDINATOR] * 9))

    monkeypatch.setattr(transactions, "Sink", sink)
    with pytest.raises(StoppedError):
        Transactions(KafkaConnection("nowhere:1"), "task.learn", stop=lambda: True)
