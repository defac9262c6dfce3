"""`docker compose up --build --wait`, as the documentation has it, on images of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from tests.docker.compose import EVENTS, OURS, UP_S, Compose, assert_all_run, started

Read = Callable[[KafkaConnection, str, int], list[dict[str, Any]]]


@pytest.fixture
def compose() -> Iterator[Compose]:
    with started("compose.yaml") as project:
        yield project


@pytest.mark.timeout(UP_S + 300)
def test_compose_predicts_every_stream_and_ends_in_order(compose: Compose, read: Read) -> None:
    for task, topic in EVENTS.items():
        events = [event["id"] for event in read(compose.kafka, topic, 200)]
        predictions = read(compose.kafka, f"{task}.predictions", 200)
        assert len(set(events)) == 200
        assert [prediction["id"] for prediction in predictions] == events

    assert_all_run(compose, {"topics"})

    compose("stop", *OURS)
    stopped = compose.services()
    assert {name: stopped[name]["ExitCode"] for name in OURS} == dict.fromkeys(OURS, 0)
