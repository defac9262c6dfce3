"""One contestant in a process of its own: with fresh imports, memory and collector."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.process import workers

CONTESTANTS = {
    "fill": "bench.ours",
    "fill_late": "bench.ours",
    "fill_unbounded": "bench.ours",
    "headrace": "bench.ours",
    "headrace_1024": "bench.ours",
    "headrace_chunk_32": "bench.ours",
    "headrace_pool": "bench.ours",
    "at_least_once": "bench.ours",
    "at_least_once_1024": "bench.ours",
    "verify": "bench.ours",
    "normalize": "bench.ours",
    "consume": "bench.ours",
    "produce": "bench.ours",
    "decode": "bench.ours",
    "step": "bench.ours",
    "pace": "bench.latency",
    "river_logistic": "bench.loops",
    "river_hoeffding_tree": "bench.loops",
    "quix_river_logistic": "bench.loops",
    "quix_river_logistic_exactly_once": "bench.loops",
    "faust_river_logistic": "bench.loops",
}
SILENT_S = 60.0


class Score(NamedTuple):
    """Say how long so many events took, from the first record to the last acknowledged output."""

    events: int
    seconds: float
    peak_rss_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Return events per second."""
        return self.events / max(self.seconds, 1e-9)


class Run:
    """Hold a contestant that runs: `contest` waits for it, `latency` lets it go on beside."""

    def __init__(self, name: str, kafka: KafkaConnection, task: Path, events: int) -> None:
        self._name = name
        entry = (sys.executable, "-m", "bench.contestant")
        self._process = subprocess.Popen(
            [*entry, name, str(task), str(events)],
            env=kafka.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def score(self) -> Score:
        """Wait for its end.

        Raises:
            HeadraceError: it failed; its own last words say why.
        """
        # Not `communicate`, which closes the input: a contestant ends with it.
        said = cast("IO[bytes]", self._process.stdout).read()
        words = cast("IO[bytes]", self._process.stderr).read().decode("utf-8", "replace").strip()
        if code := self._process.wait():
            last = words.splitlines()[-1] if words else "it said nothing"
            raise HeadraceError(f"bench: {self._name} ended with exit code {code}: {last}")
        return msgspec.json.decode(said.splitlines()[-1], type=Score)

    def close(self) -> None:
        """End it if it still runs, and let go of it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            cast("IO[bytes]", pipe).close()


def contest(name: str, kafka: KafkaConnection, task: Path, events: int) -> Score:
    """Run a contestant to its end."""
    run = Run(name, kafka, task, events)
    try:
        return run.score()
    finally:
        run.close()


class Outputs:
    """Watch a topic from outside until it has grown by so many records: a `stop` for workers.

    The clock starts at the last look that found nothing, so start-up does not count.

    Raises:
        HeadraceError: nothing came for a minute.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, wanted: int) -> None:
        self._source = kafka.source(topic)
        self._before = self._count = sum(self._source.ends().values())
        self._wanted = wanted
        self._started_s = self._grown_s = time.monotonic()

    def __call__(self) -> bool:
        count, now_s = sum(self._source.ends().values()), time.monotonic()
        if count == self._before:
            self._started_s = now_s
        if count > self._count:
            self._count, self._grown_s = count, now_s
        elif now_s - self._grown_s > SILENT_S:
            raise HeadraceError(
                f"{count - self._before} outputs came, then none for {SILENT_S:g} s"
            )
        return count - self._before >= self._wanted

    def score(self) -> Score:
        """Return what was seen, and stop watching."""
        self._source.close()
        return Score(self._count - self._before, self._grown_s - self._started_s)


def count_records(kafka: KafkaConnection, topic: str) -> int:
    """Count what a topic has been given."""
    source = kafka.source(topic)
    try:
        return sum(source.ends().values())
    finally:
        source.close()


def main(name: str, task: str, events: str) -> None:
    """Be the contestant."""
    workers.on_end(lambda: os._exit(1))
    play: Callable[..., Score] = getattr(import_module(CONTESTANTS[name]), name)
    score = play(connect(), Path(task), int(events))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1024)
    sys.stdout.write(json.dumps([*score[:2], round(peak_mb, 1)]) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the watching thread and Kafka's would only delay the end


if __name__ == "__main__":
    main(*sys.argv[1:])
