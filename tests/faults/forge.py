"""Learners by the dozen: forked from one process that has imported everything, killed at will.

A start of Python and JAX costs seconds that tell nothing about recovery. What is forked has no
threads, no JAX backend and no Kafka client yet, so a fork is as good as a fresh process. The forge
itself is this file run as a script; tests hold a `Forge`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import psutil

PRELOAD = (
    "jax",
    "optax",
    "flax",
    "headrace.stream.service.learn",
    "headrace.cli.pipeline",
    "headrace.stream.service.recovery",
)


class Forged:
    """Hold one `headrace` command under way."""

    def __init__(self, place: Path) -> None:
        self.place = place  # of its output: <place>.out, <place>.err
        self.begun_s = time.time()
        self.pid = 0
        self.code: int | None = None
        self.born, self.dead = threading.Event(), threading.Event()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines that it printed; a last one that was cut off is left out."""
        text = self._text("out")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def errors(self) -> str:
        """Return what it said on standard error."""
        return self._text("err")

    def _text(self, kind: str) -> str:
        path = self.place.with_suffix(f".{kind}")
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Wait for its word that it is ready; False if it ended without it."""
        give_up_s = time.monotonic() + timeout_s
        while '"ready"' not in self._text("out"):
            if self.dead.is_set():
                return '"ready"' in self._text("out")
            assert time.monotonic() < give_up_s, f"not ready in {timeout_s} s: {self.errors}"
            time.sleep(0.01)
        return True

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for the end, and give the exit code; minus the signal that killed it."""
        assert self.dead.wait(timeout_s), f"runs for more than {timeout_s} s: {self.errors}"
        return cast("int", self.code)

    def go(self) -> Forged:
        """Let one that is held begin."""
        self.begun_s = time.time()
        self.send(signal.SIGUSR1)
        return self

    def wait_stopped(self, timeout_s: float = 60.0) -> None:
        """Wait until it stands still, by SIGSTOP."""
        give_up_s = time.monotonic() + timeout_s
        while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:
            assert not self.dead.is_set(), self.errors
            assert time.monotonic() < give_up_s, f"still runs: {self.errors}"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; to one that has ended, none."""
        if not self.dead.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill -9, and give the code it ended with: its own if it was quicker."""
        self.send(signal.SIGKILL)
        return self.wait()


class Forge:
    """Fork `headrace` commands; ends them all when it is closed."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._numbers = directory, count()
        self._forged: dict[int, Forged] = {}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if k != "HEADRACE_FAILPOINT"},
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def start(
        self,
        *command: str,
        failpoint: str = "",
        stops: bool = False,
        held: bool = False,
        settings: dict[str, Any] | None = None,
        mutants: tuple[str, ...] = (),
    ) -> Forged:
        """Fork a command.

        Args:
            stops: the failpoint stops the process (SIGSTOP) instead of killing it.
            held: it compiles, and begins when told by `go`.
            settings: module constants to be set before it begins, such as
                {"headrace.stream.service.checkpointer.EVERY_S": 0.5}.
            mutants: functions of `mutants` to be called before it begins.
        """
        number = next(self._numbers)
        forged = self._forged[number] = Forged(self._directory / f"{number:04d}")
        job = {
            "number": number,
            "command": command,
            "place": str(forged.place),
            "failpoint": failpoint,
            "stops": stops,
            "held": held,
            "settings": settings or {},
            "mutants": mutants,
        }
        pipe = cast("IO[bytes]", self._process.stdin)
        pipe.write(json.dumps(job).encode() + b"\n")
        pipe.flush()
        assert forged.born.wait(60), "the forge is cold"
        return forged

    def clear(self) -> None:
        """Kill what still runs."""
        for forged in self._forged.values():
            forged.kill()
        self._forged.clear()

    def close(self) -> None:
        """End the forge and all that it forked."""
        cast("IO[bytes]", self._process.stdin).close()
        self._process.wait(30)
        self._reader.join(5)
        cast("IO[bytes]", self._process.stdout).close()

    def _listen(self) -> None:
        for line in cast("IO[bytes]", self._process.stdout):
            said = json.loads(line)
            forged = self._forged[said["number"]]
            if "pid" in said:
                forged.pid = said["pid"]
                forged.born.set()
            else:
                forged.code = said["code"]
                forged.dead.set()


def serve() -> dict[str, Any] | None:
    """Be the forge. Returns a job in each forked process, None in the forge at its end."""
    alarm, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(wake)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # here, so that none comes too early
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    orders = b""
    while True:
        ready, _, _ = select.select([0, alarm], [], [])
        if alarm in ready:
            with suppress(BlockingIOError):
                os.read(alarm, 512)
            _reap(children)
        if 0 not in ready:
            continue
        chunk = os.read(0, 65_536)
        if not chunk:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            while children:
                os.waitpid(next(iter(children)), 0)
                children.pop(next(iter(children)))
            return None
        *lines, orders = (orders + chunk).split(b"\n")
        for line in lines:
            job: dict[str, Any] = json.loads(line)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(alarm)
                os.close(wake)
                return job
            children[pid] = job["number"]
            _say(number=job["number"], pid=pid)


def _reap(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say(number=children.pop(pid), code=os.waitstatus_to_exitcode(status))


def _say(**said: int) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


def become(job: dict[str, Any]) -> None:
    """Be one command, in the forked process."""
    if sys.platform == "linux":  # die with the forge, even if that is killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.setpgid(0, 0)
    for descriptor, kind in ((1, "out"), (2, "err")):
        opened = os.open(f"{job['place']}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if job["failpoint"]:
        os.environ["HEADRACE_FAILPOINT"] = job["failpoint"]
        place = importlib.reload(importlib.import_module("headrace.stream.process.failpoint"))
        if job["stops"]:
            vars(place)["os"] = SimpleNamespace(getpid=os.getpid, kill=stop_here)
    for name, value in job["settings"].items():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name
        setattr(importlib.import_module(module), constant, value)
    sys.argv[1:] = job["command"]
    for mutant in job["mutants"]:
        getattr(importlib.import_module("mutants"), mutant)()
    if job["held"]:
        hold(Path(job["command"][1]), int(job["command"][-1]))
    from headrace.cli import main

    main()


def stop_here(*_: int) -> None:
    """Stand still at once: a stop sent to the whole process lets this thread go on for a while."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def hold(task: Path, micro_batch: int) -> None:
    """Compile before the time has come, and wait for the word to begin."""
    from headrace.stream.task import load
    from headrace.stream.training.trainer import Trainer

    Trainer(load(task), micro_batch)
    signal.sigwait({signal.SIGUSR1})


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        for module in PRELOAD:
            importlib.import_module(module)
        found = serve()
    if found:
        become(found)
