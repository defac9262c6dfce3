"""Answers by HTTP: how soon, how many, and beside them a River model in two other servers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.arena import Arena, OnProgress, arena, machine
from bench.staleness import Look, percentiles, staleness
from bench.workload import events, write_pool_task, write_task
from headrace.stream.errors import HeadraceError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.ports import HOST, free_port
from headrace.stream.task import Task

NAMES: dict[Callable[[Path, str], Task], str] = {
    write_pool_task: "headrace, default pool",
    write_task: "headrace, one small network",
}
LEARNED = 20_000  # events before
RATE, BATCH = 500, 256
CONNECTIONS, AT_ONCE = 32, 4
PACE = 200  # events a second that are learned meanwhile
READY_S = 180.0


class Asked(NamedTuple):
    """Say what became of requests: how many, milliseconds of each that was answered, seconds."""

    sent: int
    failed: int
    ms: list[float]
    seconds: float


class Server(NamedTuple):
    """Say how a server is asked."""

    name: str
    port: int
    path: str
    one: bytes
    many: bytes
    task: str = ""
    topic: str = ""  # of the task's events


def serving(*, seconds: float, on_progress: OnProgress) -> dict[str, Any]:
    """Ask headrace while it learns and releases each second, then the peers, one after another.

    Requests of one event come at random moments, RATE a second, whatever becomes of those before
    (an open loop): their time runs from when they were due to the last byte of the answer. Batches
    are asked AT_ONCE at a time, each when the one before is answered. The asking process takes its
    share of the same cores.
    """
    found = {}
    with arena(None, on_progress) as place:
        stream = events(LEARNED + 100_000)
        lines = place.folder / "events.jsonl"
        lines.write_bytes(b"\n".join(stream[:LEARNED]) + b"\n")
        ask = [json.loads(line) for line in stream[-BATCH:]]
        ours: list[Any] = [partial(_headrace, write) for write in NAMES]
        for start in (*ours, _fastapi, _mlflow):
            with start(place, stream, lines, ask) as server:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    pool.submit(paced, server, min(2.0, seconds)).result()  # warms up
                    before = _measured(server)
                    with _watched(server, place.kafka) as behind:
                        one = pool.submit(paced, server, seconds).result()
                    after = _measured(server)
                    many = pool.submit(at_once, server, seconds).result()
                found[server.name] = _summary(one, many) | _of_the_server(before, after)
                found[server.name] |= percentiles(behind)
                on_progress(f"{server.name}: {found[server.name]}")
        return {"servers": found, "machine": machine(place.version)}


def table(found: dict[str, Any]) -> str:
    """Say it as a table for a person."""
    lines = [
        f"| server | p50, p99 ms at {RATE}/s | rows/s in batches of {BATCH} | failed |",
        "|---|---:|---:|---:|",
    ]
    for name, each in found["servers"].items():
        lines.append(
            f"| {name} | {each['p50_ms']:.2f}, {each['p99_ms']:.2f} "
            f"| {each['rows_per_second']:,} | {each['failed']} |"
        )
    for name in NAMES.values():
        ours = found["servers"][name]
        lines.append(
            f"{name}, by its own clock: {ours['within_2_ms']:.1%} within 2 ms, "
            f"{ours['within_10_ms']:.1%} within 10 ms; {ours['releases']} releases taken over"
        )
        events, age_s, told = (
            f"{ours[key][0]:.{digits}f}, {ours[key][1]:.{digits}f}"
            for key, digits in (("behind_events", 0), ("age_s", 2), ("says_behind_events", 0))
        )
        lines.append(
            f"{name}, the state that answered, p50, p99: {events} events behind, "
            f"{age_s} s old; behind_events said {told}"
        )
    return "\n".join(lines)


def _measured(server: Server) -> dict[str, float]:
    """Return what headrace's metrics say, by name; nothing of others."""
    if not server.task:
        return {}
    text = urllib.request.urlopen(f"http://{HOST}:{server.port}/metrics").read().decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.replace(f',task="{server.task}"', ""): float(value) for name, _, value in lines}


def _of_the_server(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Say which share of requests the server answered soon, by its own clock."""
    if not before:
        return {}
    since = {name: value - before.get(name, 0.0) for name, value in after.items()}
    bucket = 'headrace_predict_seconds_bucket{le="%s"}'
    total = since[bucket % "+Inf"]
    releases = next(value for name, value in since.items() if "releases_total" in name)
    return {
        "within_2_ms": round(since[bucket % "0.002"] / total, 4),
        "within_10_ms": round(since[bucket % "0.01"] / total, 4),
        "releases": round(releases),
    }


def _watched(server: Server, kafka: KafkaConnection) -> AbstractContextManager[list[Look]]:
    """Look how old the state is that answers, if that is headrace's."""
    url = f"http://{HOST}:{server.port}/v1/tasks/{server.task}"
    return staleness(kafka, server.topic, url) if server.task else nullcontext([])


def _summary(one: Asked, many: Asked) -> dict[str, Any]:
    p50, p99 = np.percentile(one.ms, [50, 99]) if one.ms else (np.nan, np.nan)
    return {
        "requests": one.sent,
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "rows_per_second": round(BATCH * len(many.ms) / many.seconds),
        "failed": one.failed + many.failed,
    }


@contextmanager
def _headrace(
    write: Callable[[Path, str], Task],
    place: Arena,
    stream: Sequence[bytes],
    lines: Path,
    ask: list[Any],
) -> Iterator[Server]:
    """Serve what a learner releases, while it learns PACE events a second."""
    path, task = place.task(write)
    port, stop = free_port(), threading.Event()
    named = [str(path), "--bootstrap", place.kafka.servers]
    headrace = [sys.executable, "-m", "headrace"]
    state = ["--state", str(place.folder / f"state-{task.name}")]
    _send(place.kafka, task.input.topic, stream[:LEARNED])

    def feed() -> None:
        sink, lot = place.kafka.sink(), PACE // 10
        for at in range(LEARNED, len(stream), lot):
            if stop.wait(0.1):
                return
            sink.send(task.input.topic, stream[at : at + lot])
            sink.flush()

    feeder = threading.Thread(target=feed)
    target = f"/v1/tasks/{task.name}/predict"
    with (
        _process([*headrace, "learn", *named, *state]),
        _process([*headrace, "serve", *named, "--port", str(port)]),
    ):
        _await(port, "GET", "/readyz", b"")
        feeder.start()
        try:
            names = task.name, task.input.topic
            yield Server(NAMES[write], port, target, _json(ask[0]), _json(ask), *names)
        finally:
            stop.set()
            feeder.join()


@contextmanager
def _fastapi(
    place: Arena, stream: Sequence[bytes], lines: Path, ask: list[Any]
) -> Iterator[Server]:
    port = free_port()
    with _process([*_script("fastapi_river"), str(lines), str(port)]):
        one = _json(ask[0])
        _await(port, "POST", "/predict", one)
        yield Server("River in FastAPI", port, "/predict", one, _json(ask))


@contextmanager
def _mlflow(place: Arena, stream: Sequence[bytes], lines: Path, ask: list[Any]) -> Iterator[Server]:
    port, rows = free_port(), [event["features"] for event in ask]
    with _process([*_script("mlflow_river"), str(lines), str(place.folder / "model"), str(port)]):
        one = _json({"dataframe_records": rows[:1]})
        _await(port, "POST", "/invocations", one)
        many = _json({"dataframe_records": rows})
        yield Server("River in MLflow", port, "/invocations", one, many)


def paced(server: Server, seconds: float) -> Asked:
    """Ask about one event at a time, RATE a second."""
    return asyncio.run(_paced(server, seconds))


def at_once(server: Server, seconds: float) -> Asked:
    """Ask about BATCH events at a time, AT_ONCE requests at once."""
    return asyncio.run(_at_once(server, seconds))


async def _paced(server: Server, seconds: float) -> Asked:
    chance, due_s, ms, failed, tasks = random.Random(0), 0.0, list[float](), 0, []
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await _Connection.open(server.port))
    request = _request("POST", server.path, server.one)
    began_s = time.perf_counter()

    async def one(due_s: float) -> None:
        nonlocal failed
        connection = await free.get()
        try:
            status = await connection.ask(request)
        finally:
            free.put_nowait(connection)
        if status == 200:
            ms.append(1000 * (time.perf_counter() - began_s - due_s))
        else:
            failed += 1

    while (due_s := due_s + chance.expovariate(RATE)) < seconds:
        if (wait_s := due_s - (time.perf_counter() - began_s)) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(one(due_s)))
    await asyncio.gather(*tasks)
    return Asked(len(tasks), failed, ms, time.perf_counter() - began_s)


async def _at_once(server: Server, seconds: float) -> Asked:
    request, ms, failed = _request("POST", server.path, server.many), list[float](), 0
    began_s = time.perf_counter()

    async def ask() -> None:
        nonlocal failed
        connection = await _Connection.open(server.port)
        while (now_s := time.perf_counter()) - began_s < seconds:
            if await connection.ask(request) == 200:
                ms.append(1000 * (time.perf_counter() - now_s))
            else:
                failed += 1

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return Asked(len(ms) + failed, failed, ms, time.perf_counter() - began_s)


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @staticmethod
    async def open(port: int) -> _Connection:
        return _Connection(*await asyncio.open_connection(HOST, port, limit=1 << 24))

    async def ask(self, request: bytes) -> int:
        """Send a request, read the answer to its end, and return its status."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length))
        return int(head[9:12])


def _request(method: str, path: str, body: bytes) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _script(name: str) -> list[str]:
    script = Path(__file__).with_name(f"{name}.py")
    return ["uv", "run", "--no-project", "--script", str(script)]


def _send(kafka: KafkaConnection, topic: str, values: Sequence[bytes]) -> None:
    sink = kafka.sink()
    sink.send(topic, values)
    sink.flush()


@contextmanager
def _process(command: Sequence[str]) -> Iterator[None]:
    """Run a command, and those that it starts, while the context is open."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
            if process.poll() is not None:
                log.seek(0)
                told = log.read().decode(errors="replace").splitlines() or ["?"]
                raise HeadraceError(f"bench: {command[0]} ended: {told[-1]}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _await(port: int, method: str, path: str, body: bytes) -> None:
    """Wait until a server answers with 200."""

    async def answers() -> bool:
        connection = await _Connection.open(port)
        return await connection.ask(_request(method, path, body)) == 200

    give_up_s = time.monotonic() + READY_S
    while time.monotonic() < give_up_s:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            if asyncio.run(answers()):
                return
        time.sleep(0.2)
    raise HeadraceError(f"bench: no server answers at port {port} within {READY_S:g} s")
