"""What a `Child` (`stream.process.child`) runs: it imports, and waits for the command to begin."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence

from headrace.cli import main as headrace
from headrace.stream.process import workers


def main(preload: Sequence[str]) -> None:
    """Be the child: run the command that comes as a line of JSON, or end with the input."""
    for module in ("headrace.cli.commands", *preload):
        importlib.import_module(module)
    line = sys.stdin.readline()
    if not line:
        return
    workers.on_end(lambda: os.kill(os.getpid(), signal.SIGTERM))
    sys.argv[1:] = json.loads(line)
    headrace()


if __name__ == "__main__":
    main(sys.argv[1:])
