"""How a command ends: in order, soon after it was asked to, and without what comes after."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

GRACE_S = 4.5  # after a signal; then the process ends where it stands


class Deadline:
    """End this process GRACE_S after a first SIGINT or SIGTERM, whatever it is doing.

    Python runs signal handlers between two instructions of the main thread, which may be waiting
    for Kafka or compiling meanwhile: so a thread reads the signal from a pipe.
    """

    code = 130
    """The exit code then, unless a command knows a better one."""

    told = "interrupted"

    def start(self) -> None:
        """Watch from now on; to be called once, from the main thread."""
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is open closes
        sys.unraisablehook = _ask_again
        threading.Thread(target=self._watch, args=(read,), name="deadline", daemon=True).start()

    def _watch(self, read: int) -> None:
        while not {signal.SIGINT, signal.SIGTERM} & set(os.read(read, 1)):
            pass
        time.sleep(GRACE_S)
        with suppress(OSError):
            os.write(2, f"headrace: {self.told}; did not end by itself in time\n".encode())
        os._exit(self.code)


def _ask_again(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt once more where the interrupt came into a callback, which lets nothing through."""
    if lost.exc_type is KeyboardInterrupt:
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(lost)


deadline = Deadline()


def leave(code: int) -> NoReturn:
    """End the process now: what the threads of XLA and of clients still do is of no interest.

    An interpreter that is taken down around them can crash.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
