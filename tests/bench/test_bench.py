from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import pipeline, unbounded, workload
from bench.contestant import CONTESTANTS, Score, contest
from bench.latency import quantiles
from bench.memory import summary
from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.rows.normalizer import Normalizer

FOUND: dict[str, Any] = {
    "headrace": {
        "events_per_second": 90_000,
        "p50_ms": 4.25,
        "p99_ms": 9.0,
        "peak_rss_mb": 412.3,
        "normalize_events_per_second": 8_000,
        "produce_events_per_second": 70_000,
    },
    "variants": {"headrace_1024": 60_000},
    "cost_of_exactly_once": {"1024": 0.2, "4096": 0.05},
    "peers": {"river_logistic": {"events_per_second": 30_000}},
    "limits": {"consume": 900_000, "produce": 500_000, "decode": 300_000, "step": 200_000},
    "ratios": {"river_logistic": 3.0},
    "machine": {
        "cpu": "A CPU",
        "cores": 2,
        "python": "3.11.7",
        "versions": {"kafka": "4.3.1", "river": None},
    },
    "events": 400_000,
}


def test_the_workload_is_the_same_each_time_and_has_ids_of_its_own() -> None:
    drawn = workload.events(20_001)
    assert drawn == workload.events(20_001)
    assert drawn[:500] == workload.events(500)
    assert workload.events(500, seed=1) != drawn[:500]
    bodies = [json.loads(value) for value in drawn]
    assert [body["id"] for body in bodies] == [f"s-{i}" for i in range(20_001)]
    assert (
        np.unique([list(body["features"].values()) for body in bodies], axis=0).shape[0] == 20_001
    )


def test_the_workload_can_be_learned_but_not_wholly() -> None:
    bodies = [json.loads(value) for value in workload.events(10_000)]
    points = np.array([list(body["features"].values()) for body in bodies])
    labels = np.array([body["label"] for body in bodies])
    plane = np.linalg.lstsq(points, 2.0 * labels - 1, rcond=None)[0]
    assert 0.92 < ((points @ plane > 0) == labels).mean() < 0.97


def test_every_event_is_a_row_of_the_task(tmp_path: Path) -> None:
    task = workload.write_task(tmp_path, "bench-x")
    values = workload.events(5_000)
    sizes = []
    for records in workload.in_memory(task, values):
        rows, dead = Normalizer(task).normalize(records)
        assert not dead
        assert not np.isnan(rows.numeric).any()
        sizes.append(len(rows.id))
    assert sizes == [4096, 904]
    assert task.model.chunk == 1, "the bench speaks of exact per-event learning"


def test_a_stream_without_end_repeats_nothing_but_what_everybody_says(tmp_path: Path) -> None:
    drawn = [*unbounded.events(20_001)]
    assert drawn == [*unbounded.events(20_001)]
    assert drawn[:500] == [*unbounded.events(500)]
    bodies = [json.loads(value) for value in drawn]
    for field in ("id", "colour"):
        assert len({body[field] for body in bodies}) == 20_001, field
    assert len({body["user"] for body in bodies}) > 19_000
    one, known, other, _, *_ = zip(*(body["text"].split(" ") for body in bodies), strict=True)
    assert len({*one, *other}) > 39_000
    assert len({*known}) < 10_000
    assert max(map(len, drawn)) > 10_000
    assert len(one[1]) < 10
    *_, last = unbounded.events(250_000)
    assert len(json.loads(last)["text"].split(" ")[0]) > 30, "new words grow"
    task = unbounded.write_task(tmp_path, "bench-x")
    assert task.spec.entities == 1_000_000


def test_a_contestant_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    workload.write_task(tmp_path, "bench-x")
    score = contest(
        "decode", KafkaConnection("nowhere:1"), workload.task_path(tmp_path, "bench-x"), 5_000
    )
    assert score.events == 5_000
    assert score.seconds > 0
    assert score.peak_rss_mb > 10


def test_a_contestant_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match=r"decode ended with exit code 1: .*missing\.toml"):
        contest("decode", KafkaConnection("nowhere:1"), tmp_path / "missing.toml", 10)


def test_every_contestant_of_the_pipeline_is_known() -> None:
    named = {*pipeline.FAST_PEERS, *pipeline.SLOW_PEERS, *pipeline.STAGES}
    assert named < set(CONTESTANTS)


def test_a_rate_is_events_by_seconds() -> None:
    assert Score(3_000, 1.5).rate == 2_000


def test_latency_leaves_out_the_warm_up() -> None:
    created = np.arange(0.0, 10_000.0, 10.0)  # 10 s of events
    waited = np.where(created < 3_000, 500.0, 2.0)
    waited[-8:] = 40.0  # more than one in a hundred of the 700
    assert quantiles(waited, created) == (2.0, 40.0, 700)


def test_memory_is_compared_after_the_warm_up() -> None:
    samples = [(10, 300.0), (99, 400.0), (100, 410.0), (500, 430.0), (1_000, 415.5)]
    found = summary(samples, 1_000)
    assert (found["first_mb"], found["last_mb"]) == (410.0, 415.5)
    assert (found["growth_mb"], found["peak_mb"]) == (20.0, 430.0)
    assert found["steps"] == [[10, 300.0], [99, 400.0], [100, 410.0], [500, 430.0], [1_000, 415.5]]
    with pytest.raises(HeadraceError, match="take more events"):
        summary(samples[:2], 1_000)


def test_the_slope_of_memory_is_that_of_the_last_half_and_heeds_no_checkpoint() -> None:
    early = [(10_000 * n, 100.0 + n) for n in range(50)]
    late = [(10_000 * n, 150.0 + n / 50 + 80 * (n % 10 == 0)) for n in range(50, 101)]
    assert summary(early + late, 1_000_000)["slope_mb"] == pytest.approx(2.0, abs=0.1)
    assert summary(early + [(seen, 150.0) for seen, _ in late], 1_000_000)["slope_mb"] == 0


def test_peers_that_are_not_installed_are_a_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--no-peers"):
        pipeline.run(events=10_000)


def test_the_table_tells_speeds_ratios_and_how_they_were_measured() -> None:
    lines = pipeline.table(FOUND).splitlines()
    [ours] = [line for line in lines if "fused" in line]
    [peer] = [line for line in lines if line.startswith("| River logistic")]
    assert [cell.strip() for cell in ours.split("|")][2:5] == ["90,000", "1.00", "400,000"]
    assert [cell.strip() for cell in peer.split("|")][2:5] == ["30,000", "3.00", "400,000"]
    assert len({len(line) for line in lines[: lines.index("")]}) == 1, "columns are aligned"
    assert any("p50 4.2 ms, p99 9.0 ms" in line for line in lines)
    assert any("2 cores, A CPU" in line and "river" not in line for line in lines[-1:])


def test_the_table_stands_without_peers() -> None:
    text = pipeline.table({**FOUND, "peers": {}, "ratios": {}})
    assert "| headrace learn, fused" in text
    assert "River" not in text
