"""Events to predictions, every stage alone, latency, and the peers on the same topic."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any

from bench import latency
from bench.arena import Arena, OnProgress, arena, machine
from bench.contestant import Score
from bench.workload import PEERS
from headrace.stream.errors import UsageError

VARIANTS = (
    "headrace_1024",
    "headrace_chunk_32",
    "headrace_pool",
    "at_least_once",
    "at_least_once_1024",
)
FAST_PEERS = (
    "river_logistic",
    "quix_river_logistic",
    "quix_river_logistic_exactly_once",
)
SLOW_PEERS = ("river_hoeffding_tree", "faust_river_logistic")
STAGES = ("consume", "produce", "decode", "step")
SLOW_EVENTS = 60_000  # enough for those that take ten times as long
ROUNDS = 3


def run(
    *,
    events: int = 400_000,
    peers: bool = True,
    bootstrap: str | None = None,
    rounds: int = ROUNDS,
    latency_s: float = 20.0,
    on_progress: OnProgress = lambda note: None,
) -> dict[str, Any]:
    """Measure everybody on one topic of one partition, each in a process of its own.

    Time runs from the first record to the last acknowledged output; start-up and compilation do
    not count. Headrace and the fast peers take turns, `rounds` each, and the median counts. The
    slow peers, the Faust normaliser and the Faust peer read the first 60,000 events, once.

    Args:
        peers: run River's models too.
        bootstrap: the Kafka to use; None for an embedded one, on the same cores.
        latency_s: how long latency is measured at 1,000 events per second.
        on_progress: called with a line after each contestant.

    Raises:
        UsageError: the peers are not installed.
        BrokerError: no Kafka.
        HeadraceError: a contestant failed, or its outputs are not there.
    """
    if peers and find_spec("river") is None:
        raise UsageError(
            "the peers need River, which is not installed: `uv sync --group dev`, or --no-peers"
        )
    few = min(events, SLOW_EVENTS)
    with arena(bootstrap, on_progress) as place:
        path, task = place.task()
        output, rival_output = task.output("predictions"), task.output(PEERS)
        filled = place.run("fill", path, events, output=task.input.topic)
        entrants = dict.fromkeys(("headrace", *VARIANTS), output)
        entrants |= dict.fromkeys(FAST_PEERS if peers else (), rival_output)
        turns: dict[str, list[Score]] = {name: [] for name in entrants}
        for _ in range(rounds):
            for name, topic in entrants.items():
                turns[name].append(place.run(name, path, events, output=topic))
        ours = turns.pop("headrace")
        rates = {name: median(score.rate for score in scores) for name, scores in turns.items()}
        variants = {name: rates.pop(name) for name in VARIANTS}
        rivals = rates
        for name in SLOW_PEERS if peers else ():
            rivals[name] = place.run(name, path, few, output=rival_output).rate
        normalized = place.run("normalize", path, few, output=task.output("features"))
        limits = {stage: place.run(stage, path, events).rate for stage in STAGES}
        waited = _latency(place, latency_s)
        where = machine(place.version)
    rate = median(score.rate for score in ours)
    return {
        "headrace": {
            "events_per_second": round(rate),
            "p50_ms": waited.p50_ms,
            "p99_ms": waited.p99_ms,
            "peak_rss_mb": max(score.peak_rss_mb for score in ours),
            "normalize_events_per_second": round(normalized.rate),
            "produce_events_per_second": round(filled.rate),
        },
        "variants": {name: round(found) for name, found in variants.items()},
        "cost_of_exactly_once": {
            "1024": round(1 - variants["headrace_1024"] / variants["at_least_once_1024"], 3),
            "4096": round(1 - rate / variants["at_least_once"], 3),
        },
        "peers": {name: {"events_per_second": round(found)} for name, found in rivals.items()},
        "limits": {name: round(found) for name, found in limits.items()},
        "ratios": {name: round(rate / found, 2) for name, found in rivals.items()},
        "machine": where,
        "events": events,
    }


def table(found: dict[str, Any]) -> str:
    """Write the result of `run` as Markdown, for a person."""
    ours, few = found["headrace"], min(found["events"], SLOW_EVENTS)
    measured = dict.fromkeys((*SLOW_PEERS, "normalize"), few)
    whole = ours["events_per_second"]
    speeds = [
        ("headrace learn, fused, exactly once, micro-batch 4,096", whole, 1.0, found["events"])
    ]
    for name, speed in found["variants"].items():
        speeds.append((NAMES[name], speed, round(whole / speed, 2), found["events"]))
    for name, peer in found["peers"].items():
        each = (peer["events_per_second"], found["ratios"][name])
        speeds.append((NAMES.get(name, name), *each, measured.get(name, found["events"])))
    rows = [
        (name, f"{speed:,}", f"{ratio:.2f}", f"{count:,}") for name, speed, ratio, count in speeds
    ]
    parts = [
        ("headrace produce, acknowledged", f"{ours['produce_events_per_second']:,}"),
        ("headrace normalize, one Faust worker", f"{ours['normalize_events_per_second']:,}"),
        *((f"{NAMES[stage]}, alone", f"{speed:,}") for stage, speed in found["limits"].items()),
    ]
    place = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items() if number)
    return "\n\n".join(
        (
            _markdown(("events to predictions", "events/s", "headrace is x", "over events"), rows),
            "Exactly once costs "
            + " and ".join(
                f"{100 * cost:.0f} % at micro-batch {int(size):,}"
                for size, cost in found["cost_of_exactly_once"].items()
            )
            + " of the same loop's speed at least once.",
            _markdown(("parts", "events/s"), parts),
            f"Latency at {latency.RATE:,} events/s: p50 {ours['p50_ms']:.1f} ms, "
            f"p99 {ours['p99_ms']:.1f} ms. Peak memory {ours['peak_rss_mb']:,.0f} MiB.",
            f"Headrace, its variants and fast peers: median of {ROUNDS} runs, in turns; all "
            f"others once, slow ones and the Faust worker over {few:,} events. Kafka and all on "
            f"{place['cores']} cores, {place['cpu']}, Python {place['python']}, {versions}.",
        )
    )


NAMES = {
    "headrace_1024": "the same, micro-batch 1,024",
    "headrace_chunk_32": "the same, micro-batch 8,192, chunks of 32 events",
    "headrace_pool": "the same, the default pool of learners",
    "at_least_once": "the same loop without transactions, micro-batch 4,096",
    "at_least_once_1024": "the same loop without transactions, micro-batch 1,024",
    "quix_river_logistic": "River logistic regression, Quix Streams, at least once",
    "quix_river_logistic_exactly_once": "River logistic regression, Quix Streams, exactly once",
    "river_logistic": "River logistic regression, confluent-kafka",
    "river_hoeffding_tree": "River Hoeffding tree, confluent-kafka",
    "faust_river_logistic": "River logistic regression, Faust agent",
    "consume": "poll",
    "produce": "publish predictions",
    "decode": "decode and normalise",
    "step": "predict and learn",
}


def _latency(place: Arena, seconds: float) -> latency.Latency:
    path, _ = place.task()
    found = latency.measure(place.kafka, path, seconds=seconds)
    place.on_progress(f"latency: p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms")
    return found


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align a table: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "| " + " | ".join(_pad(cell, at, width) for at, (cell, width) in enumerate(cells)) + " |"
        for cells in (list(zip(row, widths, strict=True)) for row in (head, *rows))
    ]
    rule = ("-" * (width + 1) + ("-" if not at else ":") for at, width in enumerate(widths))
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _pad(cell: str, at: int, width: int) -> str:
    return cell.rjust(width) if at else cell.ljust(width)
