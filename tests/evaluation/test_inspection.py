"""A topic that is looked at before anything is learned: what is told stands in its own words."""

from __future__ import annotations

import json

import pytest

from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.evaluation.infer import Options, guess_topic
from headrace.stream.evaluation.inspection import inspect_topic
from tests.support.memory_kafka import MemoryKafka, Partition


def topic_of(texts: list[str]) -> MemoryKafka:
    partition = Partition()
    for at, text in enumerate(texts):
        partition.append(text.encode(), skip=5 if at == 0 else 0)
    return MemoryKafka({"e": {0: Partition(), 1: partition}}, block=lambda: 1000)


def test_what_a_topic_holds_is_told_by_partition_and_offset() -> None:
    events = [json.dumps({"id": at, "x": at % 7, "y": "ab"[at // 3 % 2]}) for at in range(80)]
    kafka = topic_of([*events[:10], "{", *events[10:]])
    task = guess_topic(kafka, "e", "y", Options()).task
    seen = inspect_topic(task, kafka)
    [refused] = seen.refusals
    assert (refused.partition, refused.offset) == (1, 15)
    first, *rest = seen.lines()
    assert first == "81 events read, 1 refused, 80 with a label"
    assert any("refused (json), offset 15 of partition 1: " in line for line in rest), rest
    assert "1 of 81 events (1.2 %) are refused" in " ".join(rest)
    listed = topic_of([*events[:10], '{"id": 1, "x": 1, "y": ["a"]}', *events[10:]])
    with pytest.raises(UsageError, match="y: a list, expected a single value; one event has"):
        guess_topic(listed, "e", "y", Options())
    broken = inspect_topic(task, topic_of(["{"] * 60))
    with pytest.raises(HeadraceError, match="nothing is learned: all 60 events are refused"):
        broken.check()
