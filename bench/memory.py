"""Whether the service's memory stays flat over millions of events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import unbounded, workload
from bench.arena import OnProgress, arena
from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.child import Child

WARM_UP = 0.1  # of the events
STEPS = 20
SAMPLE_S = 1.0


def memory(
    *,
    events: int = 5_000_000,
    hostile: bool = False,
    bootstrap: str | None = None,
    on_progress: OnProgress = lambda note: None,
) -> dict[str, Any]:
    """Sample the resident memory of `headrace learn --from events` each second.

    Args:
        hostile: learn the stream of `bench.unbounded`: entities, categories, words without end.

    Returns:
        `events`, and what `summary` says.

    Raises:
        HeadraceError: the service failed, or ended too soon for two samples of the last half.
    """
    write_task, fill = (
        (unbounded.write_task, "fill_unbounded") if hostile else (workload.write_task, "fill")
    )
    with arena(bootstrap, on_progress) as place:
        path, _ = place.task(write_task)
        place.run(fill, path, events)
        samples = _watch(path, place.kafka, on_progress)
    return {"events": events, **summary(samples, events)}


def summary(samples: list[tuple[int, float]], events: int) -> dict[str, Any]:
    """Return where memory stood after warm-up and at the end, and whether it still grew.

    Returns:
        `first_mb` (once a tenth of the events is learned), `last_mb`, `peak_mb`; `growth_mb` (the
        most after that tenth, less first); `slope_mb` (growth in a million events, over the last
        half); `steps`, [events, MiB] of the first sample in each twentieth.
    """
    warm = [mb for seen, mb in samples if seen >= WARM_UP * events]
    late = [(seen, mb) for seen, mb in samples if seen >= events / 2]
    if len({seen for seen, _ in late}) < 2:
        raise HeadraceError(f"bench: {len(samples)} samples of memory: take more events")
    steps = {seen * STEPS // events: [seen, mb] for seen, mb in reversed(samples)}
    return {
        "first_mb": warm[0],
        "last_mb": warm[-1],
        "peak_mb": max(mb for _, mb in samples),
        "growth_mb": round(max(warm) - warm[0], 1),
        "slope_mb": round(1e6 * _slope(late), 2),
        "steps": [steps[step] for step in sorted(steps)],
    }


def _slope(samples: list[tuple[int, float]]) -> float:
    """Return the median slope between two samples (Theil 1950): checkpoints are peaks."""
    seen, mb = np.array(samples).T
    one, other = np.triu_indices(len(seen), 1)
    apart = seen[other] > seen[one]
    return float(np.median((mb[other] - mb[one])[apart] / (seen[other] - seen[one])[apart]))


def _watch(task: Path, kafka: KafkaConnection, on_progress: OnProgress) -> list[tuple[int, float]]:
    learner, samples = Child("headrace learn"), list[tuple[int, float]]()
    try:
        process, command = psutil.Process(learner.pid), ("learn", str(task), "--from", "events")
        learner.begin(*command, "--drain", "--json", "--bootstrap", kafka.servers)
        while not learner.ended:
            try:
                resident_mb = round(process.memory_info().rss / (1 << 20), 1)
            except psutil.NoSuchProcess:
                break
            if (seen := learner.said.get("events", 0)) and resident_mb:
                samples.append((seen, resident_mb))
                on_progress(f"memory: {seen:,} events, {resident_mb:,.0f} MiB")
            learner.wait(time.monotonic() + SAMPLE_S)
        if learner.trouble:
            raise HeadraceError(learner.trouble)
    finally:
        learner.close()
    return samples
