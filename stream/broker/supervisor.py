"""Keep one command running for exactly as long as its owner lives. A script, never imported.

The owner holds the other end of this process's standard input and never writes. However the
owner ends, SIGKILL included, the kernel closes that pipe, and this process ends the command.
A parent-death signal would do the same on Linux alone, and per thread instead of per process.

The job is one JSON argument, see `stream.broker.embedded`. The command's pid goes to standard
output.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any


def _leave(*_: object) -> None:
    raise SystemExit(1)


def main(job: dict[str, Any]) -> int:
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in ending:
        signal.signal(number, _leave)
    # The command holds `lives` open without knowing: its end of file is the command's death.
    died, lives = os.pipe()
    command = subprocess.Popen(
        job["command"],
        cwd=job["cwd"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=(lives, job["lock"]),
    )
    os.close(lives)
    try:
        os.write(1, b"%d\n" % command.pid)
        os.close(1)
        # A fork of the owner holds the pipe open too, so that the owner's pid is asked as well.
        while os.getppid() == job["owner"] and not select.select([0, died], [], [], 1.0)[0]:
            pass
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        command.terminate()
        try:
            command.wait(job["grace_s"])
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
        if job["remove"] and os.getppid() != job["owner"]:  # an owner that lives does it itself
            shutil.rmtree(job["cwd"], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
