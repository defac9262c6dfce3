from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from headrace.stream.engines.faust import _Begun, pump, records_of
from headrace.stream.engines.stage import Stage
from headrace.stream.errors import DeliveryError, HeadraceError
from headrace.stream.events import DeadLetter, Feature, Records
from headrace.stream.process.workers import RESTARTS, keep_running
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, parse

TASK = """
name = "{name}"
[input]
topic = "raw"
[target]
field = "y"
kind = "regress"
[features]
x = {{ kind = "number" }}
"""


class Outbox:
    """Keep what is sent; what is kept counts only once it is flushed."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.waiting: list[tuple[str, bytes, bytes | None, int]] = []
        self.arrived: list[tuple[str, bytes, bytes | None, int]] = []

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        assert keys is not None and partitions is not None
        self.waiting += zip([topic] * len(values), values, keys, partitions, strict=True)

    def flush(self) -> None:
        if self.broken:
            raise DeliveryError("1 records were not acknowledged")
        self.arrived += self.waiting
        self.waiting = []

    def refresh(self, topic: str) -> None:
        raise AssertionError("no topic grows here")

    def of(self, topic: str) -> list[tuple[bytes, bytes | None, int]]:
        return [(value, key, at) for name, value, key, at in self.arrived if name == topic]


def task(name: str = "t") -> Task:
    return parse(TASK.format(name=name), name)


def event(offset: int, value: bytes | None, log: list[Any], partition: int = 0) -> Any:
    message = SimpleNamespace(
        topic="raw",
        value=value,
        key=b"k%d" % offset,
        partition=partition,
        offset=offset,
        timestamp=1_700_000_000.5 + offset,
    )
    return SimpleNamespace(message=message, ack=lambda: log.append(offset))


def good(offset: int) -> bytes:
    return b'{"id":"e%d","y":1,"x":%d}' % (offset, offset)


async def batches(*given: list[Any]) -> AsyncIterator[list[Any]]:
    for each in given:
        yield each


def test_a_batch_is_acknowledged_only_after_all_its_outputs_arrived() -> None:
    log: list[Any] = []
    stage = Stage([task("a"), task("b")], outbox := Outbox(), lambda: 10)

    def publish(records: Records) -> None:
        stage(records)
        log.append(len(outbox.arrived))

    first = [event(0, good(0), log), event(1, b"{", log)]
    asyncio.run(pump(batches(first, [event(2, good(2), log)]), publish))
    assert log == [6, 0, 1, 8, 2]  # two tasks: a row each for every event, and the dead letters


def test_nothing_is_acknowledged_when_an_output_was_refused() -> None:
    log: list[Any] = []
    stage = Stage([task()], Outbox(broken=True), lambda: 10)
    with pytest.raises(DeliveryError):
        asyncio.run(pump(batches([event(0, good(0), log), event(1, good(1), log)]), stage))
    assert log == []


def test_every_record_gets_one_row_in_its_partition_under_its_key() -> None:
    values = [good(0), b"not json", None, good(3)]
    events = [event(at, value, [], partition=at % 2) for at, value in enumerate(values)]
    records = records_of(events)
    Stage([task()], outbox := Outbox(), lambda: 10)(records)
    rows, letters = outbox.of("t.features"), outbox.of("t.dead-letter")
    assert [(key, partition) for _, key, partition in rows] == [
        (b"k0", 0),
        (b"k1", 1),
        (b"k2", 0),
        (b"k3", 1),
    ]
    found = [msgspec.msgpack.decode(value, type=Feature) for value, _, _ in rows]
    assert [(f.topic, f.partition, f.offset, f.reject) for f in found] == [
        ("raw", 0, 0, None),
        ("raw", 1, 1, "json"),
        ("raw", 0, 2, "tombstone"),
        ("raw", 1, 3, None),
    ]
    assert [f.time_ms for f in found[::3]] == [1_700_000_000_500, 1_700_000_003_500]
    assert letters[0][1:] == (b"k1", 1) and letters[1][1:] == (b"k2", 0)
    dead = [msgspec.json.decode(value, type=DeadLetter) for value, _, _ in letters]
    assert dead == Normalizer(task()).features(records)[1]
    assert [letter.raw for letter in dead] == [b"not json", None]


async def _plain(gate: asyncio.Future[str], log: list[str]) -> str:
    try:
        log.append(await gate)
        await asyncio.sleep(0)
        return "done"
    except ValueError as error:
        log.append(str(error))
        return "mended"
    finally:
        log.append("left")


async def _directly(gate: asyncio.Future[str], log: list[str]) -> str:
    return await _plain(gate, log)


async def _begun(gate: asyncio.Future[str], log: list[str]) -> str:
    coroutine = _plain(gate, log)
    result: str = await _Begun(coroutine, coroutine.send(None))
    return result


@pytest.mark.parametrize("end", ["result", "error", "cancel"])
def test_a_coroutine_begun_by_hand_ends_as_any_other(end: str) -> None:
    async def trace(start: Callable[..., Awaitable[str]]) -> list[str]:
        log: list[str] = []
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        running = asyncio.ensure_future(start(gate, log))
        await asyncio.sleep(0)
        assert not running.done()
        if end == "result":
            gate.set_result("came")
        elif end == "error":
            gate.set_exception(ValueError("wrong"))
        else:
            running.cancel()
        try:
            log.append(await running)
        except asyncio.CancelledError:
            log.append("cancelled")
        return log

    expected = asyncio.run(trace(_directly))
    assert asyncio.run(trace(_begun)) == expected
    assert {"result": "came", "error": "mended", "cancel": "cancelled"}[end] in expected


def test_a_worker_that_keeps_dying_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.stream.process.workers.FIRST_RESTART_S", 0.01)
    command = [sys.executable, "-c", "import sys; sys.exit(7)"]
    with pytest.raises(HeadraceError, match=rf"died {RESTARTS + 1} times.*exit code 7"):
        keep_running(command, 2, stop=lambda: False)


def test_workers_that_ignore_their_end_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.stream.process.workers.GRACE_S", 0.5)
    script = "import time; print('ready', flush=True); time.sleep(60)"
    ready: list[bool] = []
    keep_running(
        [sys.executable, "-c", script],
        2,
        stop=lambda: bool(ready),
        on_ready=lambda: ready.append(True),
    )
    assert ready == [True]  # and the fixture of all tests finds no process left
