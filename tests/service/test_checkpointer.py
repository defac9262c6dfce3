from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headrace.stream.errors import RecoveryError
from headrace.stream.ledger import fingerprint
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.ledger import Consumed, Entry, Record, Saved
from headrace.stream.ledger.position import Position
from headrace.stream.service import checkpointer
from headrace.stream.service.checkpointer import EVERY_CPU_S, EVERY_EVENTS, EVERY_S, Checkpointer
from headrace.stream.task import parse
from headrace.stream.training.snapshot import Snapshot, digest
from tests.support.events import TASK

RUN = "5f3a"
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "['weights']": ("float32", (2,)),
    "recent": ("uint8", (-1,)),
    "came": ("uint8", (1,)),
    "frame": ("float64", (1,)),
}


class Clock:
    """Be the time of the checkpointer."""

    def __init__(self) -> None:
        self.now_s, self.worked_s = 1_000.0, 50.0

    def monotonic(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.worked_s

    def time_ns(self) -> int:
        return 1_700_000_000 * 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(checkpointer, "time", made)
    yield made


class Slow(Checkpoints):
    """Write when it is let: and fail as long as the disk is full."""

    def __init__(self, place: Path, clock: Clock) -> None:
        super().__init__(str(place), run=RUN)
        self.full, self.takes_s, self.go = False, 3.0, threading.Event()
        self._clock = clock

    def save(self, *checkpoint: object) -> None:
        assert self.go.wait(30)
        self._clock.now_s += self.takes_s
        if self.full:
            raise RecoveryError("no space left")
        super().save(*checkpoint)  # type: ignore[arg-type]


@pytest.fixture
def slow(tmp_path: Path, clock: Clock) -> Slow:
    return Slow(tmp_path / "state", clock)


def made(checkpoints: Checkpoints, kept: Position | None = None) -> tuple[Checkpointer, list[str]]:
    lines: list[str] = []
    return Checkpointer(checkpoints, parse(TASK, "t"), {"raw": "id"}, kept, lines.append), lines


def snapshot(seq: int) -> Snapshot:
    weights = np.array([seq, -seq], np.float32)
    return Snapshot({"weights": weights}, ["a", seq], np.ones(1, np.uint8), np.zeros(1), 10 * seq)


def entry(seq: int) -> Entry:
    record = Record(seq=seq, run=RUN, epoch=1, time_ms=0, chain=f"{seq:064x}")
    return Entry(2 * seq, record)


def at(*stops: int) -> Position:
    return Position(dict(enumerate(stops)))


def test_it_is_due_by_time_by_events_or_by_work_and_never_for_nothing(
    slow: Slow, clock: Clock
) -> None:
    keeper, _ = made(slow, at(100, 50))
    clock.now_s += EVERY_S
    assert not keeper.is_due(at(100, 50))
    assert keeper.is_due(at(100, 51))
    clock.now_s -= 0.001
    assert not keeper.is_due(at(100, 51))
    assert not keeper.is_due(at(99 + EVERY_EVENTS, 50))
    assert keeper.is_due(at(99 + EVERY_EVENTS, 51))
    clock.worked_s += EVERY_CPU_S
    assert keeper.is_due(at(100, 51))
    assert not keeper.is_due(at(100, 50))


def test_a_state_is_written_once_its_record_is_certain_and_no_earlier(
    slow: Slow, clock: Clock
) -> None:
    keeper, lines = made(slow)
    slow.go.set()
    position = at(8, 5)
    position.reading = {0: 9}
    position.counts.events = 12
    keeper.stage(3, snapshot(3), position)
    position.advance(Record(seq=4, run=RUN, epoch=1, time_ms=0, consumed=(Consumed(0, 8, 9, 1),)))
    assert keeper.busy and not keeper.is_stale(at(8, 5)) and keeper.is_stale(position)
    clock.now_s += EVERY_S
    assert not keeper.is_due(position)  # one is being taken
    for seq in (2, 4):
        keeper.on_confirmed(entry(seq))
        keeper.finish()
        assert keeper.busy and slow.newest(SHAPES, accept=lambda _: True) is None
    keeper.on_confirmed(entry(3))
    keeper.finish()
    found = slow.newest(SHAPES, accept=lambda _: True)
    assert found and lines == [] and not keeper.busy and keeper.is_due(position)
    manifest, tensors = found
    assert (manifest.seq, manifest.ledger_offset, manifest.chain) == (3, 6, f"{3:064x}")
    assert (manifest.positions, manifest.reading) == ({0: 8, 1: 5}, {0: 9})
    assert (manifest.counts["events"], manifest.counts["learned"]) == (12, 30)
    assert (manifest.task, manifest.topics) == (
        fingerprint.of_task(parse(TASK, "t")),
        {"raw": "id"},
    )
    assert tensors["['weights']"].tolist() == [3.0, -3.0]
    assert manifest.state == digest(snapshot(3).tensors()) == digest(tensors)
    assert keeper.pop_saved() == Saved(3, manifest.state)
    assert keeper.pop_saved() is None  # it is said once


def test_its_age_counts_from_when_it_was_written(slow: Slow, clock: Clock) -> None:
    keeper, _ = made(slow)
    keeper.stage(1, snapshot(1), at(1))
    keeper.on_confirmed(entry(1))
    clock.now_s += 5.0
    assert keeper.busy and keeper.age_s is None and keeper.pop_saved() is None
    keeper.finish(0.0)  # waits so long at most
    slow.go.set()
    keeper.finish()
    clock.now_s += 7.0
    assert not keeper.busy
    assert keeper.age_s == 7.0


@pytest.mark.parametrize(("takes_s", "rests_s"), [(0.0, 0.0), (0.5, 5.0), (3.0, EVERY_S)])
def test_writing_takes_no_more_than_its_share_unless_it_gets_old(
    slow: Slow, clock: Clock, takes_s: float, rests_s: float
) -> None:
    keeper, _ = made(slow)
    slow.takes_s = takes_s
    slow.go.set()
    keeper.stage(1, snapshot(1), at(1))
    began_s = clock.now_s
    keeper.on_confirmed(entry(1))
    keeper.finish()
    clock.worked_s += EVERY_CPU_S
    clock.now_s = began_s + rests_s - 0.01
    assert not keeper.is_due(at(2)) or not rests_s
    clock.now_s = began_s + rests_s + 0.01
    assert keeper.is_due(at(2))


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_next_one_tried(
    slow: Slow, clock: Clock
) -> None:
    keeper, lines = made(slow)
    slow.full = True
    slow.go.set()
    for seq in (1, 2):
        keeper.stage(seq, snapshot(seq), at(seq))
        keeper.on_confirmed(entry(seq))
        keeper.finish()
        assert lines.pop() == f"the checkpoint of record {seq} was not written: no space left"
        assert (lines, keeper.pop_saved(), keeper.age_s, keeper.busy) == ([], None, None, False)
    clock.now_s += EVERY_S
    assert keeper.is_due(at(3))
    slow.full = False
    keeper.stage(3, snapshot(3), at(3))
    keeper.on_confirmed(entry(3))
    keeper.finish()
    assert lines == []
    found = slow.newest(SHAPES, accept=lambda _: True)
    assert found and found[0].seq == 3
