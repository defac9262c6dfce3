from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.arena import Arena
from bench.memory import memory
from bench.pipeline import VARIANTS, run, table
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topics import list_topics


@pytest.mark.long
def test_the_pipeline_is_measured_and_nothing_is_left(kafka: KafkaConnection) -> None:
    before, notes = list_topics(kafka), list[str]()
    found = run(
        events=3_000,
        peers=False,
        bootstrap=kafka.servers,
        rounds=1,
        latency_s=0.5,
        on_progress=notes.append,
    )
    assert set(found) == {
        *("headrace", "variants", "cost_of_exactly_once", "peers"),
        *("limits", "ratios", "machine", "events"),
    }
    assert set(found["variants"]) == set(VARIANTS)
    assert set(found["limits"]) == {"consume", "produce", "decode", "step"}
    assert all(speed > 0 for speed in found["limits"].values())
    ours = found["headrace"]
    assert set(ours) == {
        "events_per_second",
        "p50_ms",
        "p99_ms",
        "peak_rss_mb",
        "normalize_events_per_second",
        "produce_events_per_second",
    }
    assert all(value > 0 for value in ours.values())
    assert ours["p50_ms"] <= ours["p99_ms"]
    assert found["peers"] == found["ratios"] == {}
    assert json.loads(json.dumps(found)) == found
    assert "headrace learn, fused" in table(found)
    assert [note.split(":")[0] for note in notes][:2] == ["fill", "headrace"]
    assert list_topics(kafka) == before


def test_the_loop_runs_without_transactions(kafka: KafkaConnection, tmp_path: Path) -> None:
    place = Arena(kafka, None, tmp_path, print)
    path, task = place.task()
    place.run("fill", path, 500, output=task.input.topic)
    score = place.run("at_least_once", path, 500, output=task.output("predictions"))
    assert score.events == 500


@pytest.mark.long
def test_memory_is_watched_on_a_stream_without_end(kafka: KafkaConnection) -> None:
    before = list_topics(kafka)
    found = memory(events=60_000, hostile=True, bootstrap=kafka.servers)
    assert set(found) == {
        *("events", "first_mb", "last_mb", "peak_mb", "growth_mb", "slope_mb", "steps"),
    }
    assert 100 < found["first_mb"] <= found["peak_mb"]
    assert list_topics(kafka) == before
