"""What labels cost that come in a topic of their own: throughput and latency beside inline ones."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench import latency
from bench.arena import OnProgress, arena, machine
from bench.workload import write_late_task, write_task

DELAY = 10_000  # events
SHAPES = {"headrace": "one small network", "headrace_pool": "the default pool"}
ROUNDS = 3


def run(
    *,
    events: int = 200_000,
    bootstrap: str | None = None,
    rounds: int = ROUNDS,
    latency_s: float = 20.0,
    on_progress: OnProgress = lambda note: None,
) -> dict[str, Any]:
    """Learn the same events with labels within them, and with labels DELAY events later.

    Each event is predicted in both. The two take turns, each in a process of its own; the median
    of `rounds` counts. Time runs from the first record to the last acknowledged output.

    Raises:
        BrokerError: no Kafka.
        HeadraceError: a learner failed, or its outputs are not there.
    """
    with arena(bootstrap, on_progress) as place:
        topics = {"inline": place.task(write_task), "late": place.task(write_late_task)}
        for name, (path, _) in topics.items():
            place.run("fill" if name == "inline" else "fill_late", path, events)
        rates: dict[str, dict[str, list[float]]] = {
            shape: {name: [] for name in topics} for shape in SHAPES
        }
        for _ in range(rounds):
            for shape in SHAPES:
                for name, (path, task) in topics.items():
                    output = task.output("predictions")
                    rates[shape][name].append(place.run(shape, path, events, output=output).rate)
        path, _ = place.task(write_late_task)
        waited = latency.measure(place.kafka, path, seconds=latency_s)
        where = machine(place.version)
    found = {
        shape: {name: round(median(each)) for name, each in turns.items()}
        for shape, turns in rates.items()
    }
    return {
        "events_per_second": found,
        "ratios": {shape: round(each["late"] / each["inline"], 2) for shape, each in found.items()},
        "latency": waited._asdict(),
        "events": events,
        "delay": DELAY,
        "machine": where,
    }


def table(found: dict[str, Any]) -> str:
    """Tell a person."""
    lines = [f"{'events/s':<20}{'inline':>10}{'late':>10}{'late/inline':>14}"]
    for shape, each in found["events_per_second"].items():
        ratio = found["ratios"][shape]
        lines.append(f"{SHAPES[shape]:<20}{each['inline']:>10,}{each['late']:>10,}{ratio:>13.0%}")
    waited = found["latency"]
    lines.append(
        f"at {latency.RATE:,} events/s, labels {latency.LATE:,} events later: "
        f"p50 {waited['p50_ms']:.1f} ms, p99 {waited['p99_ms']:.1f} ms"
    )
    return "\n".join(lines)
