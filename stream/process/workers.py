"""Keep worker processes running: restart one that dies, and leave none behind.

A worker holds the other end of its standard input open and reads the end of file as "stop":
however its owner ends, SIGKILL included, the kernel closes that pipe. On its standard output a
worker writes one line once it is ready.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, cast

from headrace.stream.errors import AccessError, HeadraceError

GRACE_S = 4.0
TICK_S = 0.05
RESTARTS = 5
USELESS = AccessError.exit_code  # what a worker ends with that is not to be started again
FIRST_RESTART_S = 0.25  # doubles with each restart: the fifth waits 4 s
STEADY_S = 60.0  # a worker that ran so long has its restarts back


def keep_running(
    command: Sequence[str],
    count: int,
    *,
    environment: Mapping[str, str] | None = None,
    stop: Callable[[], bool],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run `count` processes of one command until told to stop; all have ended when this returns.

    Args:
        environment: of the processes; default: of this one.
        on_ready: called once, when every process has said that it is ready.

    Raises:
        HeadraceError: a worker died again and again.
        AccessError: one ended with exit code 2: it may not do what it has to.
    """
    workers = [_Worker(command, environment) for _ in range(count)]
    waiting = True
    try:
        while not stop():
            for worker in workers:
                worker.tend()
            if waiting and all(worker.ready for worker in workers):
                waiting = False
                on_ready()
            time.sleep(TICK_S)
    finally:
        for worker in workers:
            worker.ask_to_end()
        give_up = time.monotonic() + GRACE_S
        for worker in workers:
            worker.end(give_up)


class _Worker:
    """Hold one place among the workers, and the process that fills it now."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self._command, self._environment = command, environment
        self._ready = False
        self._restarts = 0
        self._died = 0.0
        self._process = self._start()

    @property
    def ready(self) -> bool:
        """Return whether the process has written its line."""
        if not self._ready:
            self._ready = bool(cast("IO[bytes]", self._process.stdout).read())
        return self._ready

    def tend(self) -> None:
        """Start the process again when it has died, after a while that grows."""
        if self._process.poll() is None:
            return
        if self._process.returncode == USELESS:
            raise AccessError("a worker may not do what it has to: its own message says what")
        now = time.monotonic()
        if not self._died:
            self._died = now
            if now - self._started > STEADY_S:
                self._restarts = 0
        if self._restarts == RESTARTS:
            raise HeadraceError(
                f"a worker died {RESTARTS + 1} times, the last time with exit code "
                f"{self._process.returncode}: its own message says why"
            )
        if now - self._died >= FIRST_RESTART_S * 2**self._restarts:
            self._restarts += 1
            self._close()
            self._process = self._start()

    def ask_to_end(self) -> None:
        """Close the pipe that keeps the process running."""
        with suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()

    def end(self, give_up: float) -> None:
        """Wait for the end until `give_up` (monotonic seconds), then make it."""
        try:
            self._process.wait(max(give_up - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start in a session of its own: a terminal's Ctrl-C reaches the owner alone."""
        self._started, self._died, self._ready = time.monotonic(), 0.0, False
        process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.set_blocking(cast("IO[bytes]", process.stdout).fileno(), False)
        return process

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            cast("IO[bytes]", pipe).close()


def say_ready() -> None:
    """Tell the owner, in a worker, that it is ready."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def on_end(stop: Callable[[], object]) -> None:
    """Have `stop` called, in a worker, when its owner is gone or wants it to end.

    It is called in another thread. A process that still runs GRACE_S later ends there and then.
    """

    def watch() -> None:
        os.read(0, 1)
        stop()
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
