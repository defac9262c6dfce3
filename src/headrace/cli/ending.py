"""How a command ends: in order, soon after it was asked to, and without what comes after."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from headrace.stream.process import scratch
from headrace.stream.process.signals import ENDING

GRACE_S = 4.8  # after a signal; then the process ends where it stands


class Deadline:
    """End this process when it is told to by a signal: at once, or after GRACE_S.

    At once, where a command has not said that there is anything to end in order. Python would
    raise KeyboardInterrupt between two instructions of the main thread: which waits for Kafka or
    compiles meanwhile, or is in the midst of a library's start or of a callback of XLA, and these
    make of it what they will. So a thread reads the signal from a pipe.
    """

    code = 130
    """The exit code after GRACE_S, unless a command knows a better one."""

    told = "interrupted"

    def start(self) -> None:
        """Watch from now on; to be called once, from the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, _leave_it_to_the_thread)
        threading.Thread(target=self._watch, args=(read,), name="deadline", daemon=True).start()

    def _watch(self, read: int) -> None:
        while (number := os.read(read, 1)[0]) not in ENDING:
            pass
        if signal.getsignal(number) is not _leave_it_to_the_thread:
            time.sleep(GRACE_S)
            _say(f"{self.told}; did not end by itself in time")
            os._exit(self.code)
        scratch.remove_all()
        if os.isatty(2):
            _write("\x1b[?25h")  # a progress bar hides the cursor
        _say("interrupted")
        os._exit(130)


def _leave_it_to_the_thread(number: int, frame: Any) -> None:
    pass


def _say(line: str) -> None:
    _write(f"headrace: {line}\n")


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())


deadline = Deadline()


def leave(code: int) -> NoReturn:
    """End the process now: what the threads of XLA and of clients still do is of no interest.

    An interpreter that is taken down around them can crash.
    """
    from headrace.stream.process.terminal import flush

    flush()
    os._exit(code)
