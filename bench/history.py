"""What history costs: to come back to it, to audit it, to archive it, to run it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.arena import Arena, OnProgress, arena, machine
from bench.pause import pause
from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.ledger import ledger
from headrace.stream.ledger.ledger import Entry
from headrace.stream.process.child import Child
from headrace.stream.task import Task

LOOK_S = 0.02
SILENT_S = 120.0
LIVES = 3


def history(
    *,
    events: int = 10_000_000,
    bootstrap: str | None = None,
    on_progress: OnProgress = lambda note: None,
) -> dict[str, Any]:
    """Let a service learn so many events, kill it again and again, and look back at it all.

    Returns:
        `recovery_s`, each from the start of the process to the first new prediction that a reader
        of committed records can see; the rates of `verify`, `archive` and `replay` (from the topic
        and from the archive, one step for each event, every outcome proven), in events per second;
        `pause`, of the learner's loop for a checkpoint: see `bench.pause`.

    Raises:
        HeadraceError: a part failed, or an outcome was not what the ledger says.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled modules are kept, as users keep them
    with arena(bootstrap, on_progress) as place, TemporaryDirectory() as scratch:
        path, task = place.task()
        place.run("fill", path, events, output=task.input.topic)
        recovery_s = _lives(place, path, task, events, f"{scratch}/state")
        at = ("--bootstrap", place.kafka.servers)
        kept = f"{scratch}/archive"
        parts = {
            "verify": ("verify", str(path), *at),
            "replay": ("replay", str(path), *at),
            "archive": ("archive", task.input.topic, "--to", kept, *at),
            "replay_archive": ("replay", str(path), "--archive", kept, *at),
        }
        rates = {}
        for name, command in parts.items():
            began_s = time.monotonic()
            said = _run(*command)
            seconds = said.get("seconds", time.monotonic() - began_s)
            rates[name] = round(events / seconds)
            on_progress(f"{name}: {rates[name]:,}/s")
        stood = pause(Path(scratch))
        on_progress(f"pause: {stood.pause_ms:.0f} ms for a state of {stood.state_mb:.0f} MB")
        where = machine(place.version)
    return {
        "events": events,
        "recovery_s": recovery_s,
        "rates": rates,
        "pause": stood._asdict(),
        "machine": where,
    }


def table(found: dict[str, Any]) -> str:
    """Write the result of `history` as Markdown."""
    rates, events, pause = found["rates"], found["events"], found["pause"]
    lives = ", ".join(f"{seconds:.1f}" for seconds in found["recovery_s"])
    return "\n".join(
        (
            f"| with {events:,} events behind it | |",
            "|---|---|",
            f"| start after kill -9 to the first new prediction, {LIVES} times | {lives} s |",
            f"| `verify` | {rates['verify']:,} events/s |",
            f"| `replay` from the topic, exact per event, proven | {rates['replay']:,} events/s |",
            f"| `replay` from the archive | {rates['replay_archive']:,} events/s |",
            f"| `archive` | {rates['archive']:,} events/s |",
            f"| a checkpoint of {pause['state_mb']:.0f} MB holds up the loop for "
            f"| {pause['pause_ms']:.0f} ms |",
        )
    )


def _lives(place: Arena, path: Path, task: Task, events: int, state: str) -> list[float]:
    """Kill a learner that has learned all, give it something new, and time its return."""
    taken: list[float] = []
    for life in range(LIVES + 1):
        before = ledger.tip(place.kafka, task.output("ledger"))
        began_s = time.monotonic()
        learner = Child("headrace learn")
        try:
            command = ("learn", str(path), "--json", "--state", state)
            learner.begin(*command, "--bootstrap", place.kafka.servers)
            wanted = events + life
            if before:
                _await_record(place.kafka, task, learner, before)
                taken.append(round(time.monotonic() - began_s, 2))
                place.on_progress(f"recovery: {taken[-1]:.1f} s")
            while learner.said.get("events", 0) < wanted:
                if learner.ended:
                    raise HeadraceError(learner.trouble or "headrace learn ended too early")
                time.sleep(LOOK_S)
            if life == LIVES:  # in order: a transaction left open would hold up the audit
                learner.stop()
                learner.wait(time.monotonic() + SILENT_S)
        finally:
            learner.close()  # by SIGKILL
        sink = place.kafka.sink()
        sink.send(task.input.topic, [_event(life)])
        sink.flush()
    return taken


def _await_record(kafka: KafkaConnection, task: Task, learner: Child, before: Entry) -> None:
    """Wait for the first committed record after another that predicts something."""
    at, give_up_s = {0: before.offset + 1}, time.monotonic() + SILENT_S
    source = kafka.source(task.output("ledger"), offsets=at, prompt=True)
    with closing(source):
        while time.monotonic() < give_up_s and not learner.ended:
            if any(entry.record.predicted for entry in ledger.entries_of(source)):
                return
            source.ended.clear()  # it is told once: from now on wait for what comes
    raise HeadraceError(learner.trouble or f"no record came in {SILENT_S:g} s")


def _event(number: int) -> bytes:
    row = {f"f{column}": 0.5 for column in range(8)}
    return json.dumps(
        {"id": f"life-{number}", "ts": 1_790_000_000 + number, "features": row, "label": 1}
    ).encode()


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *command, "--json"], capture_output=True, text=True
    )
    if done.returncode:
        raise HeadraceError(f"bench: {command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
