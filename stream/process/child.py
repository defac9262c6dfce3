"""A `headrace` command as a child process: imported early, begun when told, never left behind.

Most of a command's start is imports, and they need no broker: so a child imports at once, and
waits for one line on its standard input, which names the command. From then on the end of that
input means that its owner is gone, SIGKILL included, and ends the child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, cast

LAST_BYTES = 4096


class Child:
    """Hold a child that has begun to import; `name` is what errors call it.

    Args:
        preload: modules to import besides the command line's.
        environment: of the process; default: of this one.
    """

    def __init__(
        self,
        name: str,
        *,
        preload: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.ready = False  # it has printed a JSON object with the key "ready"
        self.said: dict[str, Any] = {}  # the last JSON object that it printed
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headrace.cli.child", *preload],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # a terminal's Ctrl-C reaches the owner alone
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def begin(self, *command: str) -> None:
        """Run the command, given as on the command line without `headrace`."""
        pipe = cast("IO[bytes]", self._process.stdin)
        with suppress(BrokenPipeError):  # it has died: `trouble` says so
            pipe.write(json.dumps(command).encode() + b"\n")
            pipe.flush()

    @property
    def pid(self) -> int:
        """Return the process id, which is also its session's and its group's."""
        return self._process.pid

    @property
    def trouble(self) -> str | None:
        """Say in a line how it ended when it ended otherwise than by exit code 0, else None."""
        code = self._process.poll()
        return f"{self.name} ended with exit code {code}: {self._last_line()}" if code else None

    @property
    def ended(self) -> bool:
        """Return whether it has ended, however."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self, give_up_s: float) -> bool:
        """Wait for the end until a moment of the monotonic clock; True when it has ended."""
        try:
            self._process.wait(max(give_up_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1)
        return True

    def close(self) -> None:
        """End it now if it still runs, and let go of it."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(1)
        with suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()
        cast("IO[bytes]", self._process.stdout).close()
        self._log.close()

    def _listen(self) -> None:
        for line in cast("IO[bytes]", self._process.stdout):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    self.said = found
                    self.ready = self.ready or "ready" in found

    def _last_line(self) -> str:
        if self._log.closed:
            return ""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(end - LAST_BYTES, 0))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
