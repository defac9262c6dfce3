from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from headrace.stream.process import watchdog
from headrace.stream.process.watchdog import EXIT_CODE, Watchdog

HUNG = """
import sys, time
from headrace.stream.process import watchdog
watchdog.LOOK_S = 0.01
with watchdog.Watchdog(0.1) as dog:
    dog.alive("waiting for the moon")
    time.sleep(60)
"""


class Clock:
    """Be the time of the watchdog, and its way to end the process."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.ended: list[int] = []
        self._looked = threading.Semaphore(0)

    def monotonic(self) -> float:
        if threading.current_thread().name == "watchdog":
            self._looked.release()
        return self.now_s

    def exit(self, code: int) -> None:
        self.ended.append(code)
        self.now_s = 0.0  # here the watchdog lives on, but has no more to say

    def await_look(self) -> None:
        """Wait until it has looked and come to its end with it: it begins to look once more."""
        while self._looked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._looked.acquire(timeout=30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(watchdog, "LOOK_S", 0.001)
    monkeypatch.setattr(watchdog, "time", made)
    monkeypatch.setattr(watchdog, "os", SimpleNamespace(_exit=made.exit))
    yield made


def test_signs_of_life_keep_it_quiet(clock: Clock) -> None:
    with Watchdog(30.0) as dog:
        for _ in range(5):
            clock.now_s += 29.0
            clock.await_look()
            dog.alive("learning")
    assert clock.ended == []


def test_silence_ends_the_process_and_says_what_it_was_at(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Watchdog(30.0) as dog:
        dog.alive("reading")
        dog.alive("waiting for the moon")
        clock.now_s += 31.0
        clock.await_look()
    assert clock.ended == [EXIT_CODE]
    assert "no sign of life for 31 s while waiting for the moon; ended" in capsys.readouterr().err


def test_what_came_before_the_block_and_what_comes_after_it_count_for_nothing(clock: Clock) -> None:
    dog = Watchdog(30.0)
    clock.now_s += 60.0
    with dog:
        clock.await_look()
    clock.now_s += 60.0
    assert not any(each.name == "watchdog" for each in threading.enumerate())
    assert clock.ended == []


def test_a_process_that_hangs_ends_at_once_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == EXIT_CODE == 70
    assert done.stderr.startswith("headrace: no sign of life for 0 s while waiting for the moon;")
    assert done.stderr.count("\n") == 1
