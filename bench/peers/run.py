"""Run one peer over one prepared stream: `python -m peers.run REQUEST`, in the peers' environment.

The request is JSON: module, peer, settings, stream, rows, and the row that is the first to be
scored. The last line printed is the result.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from .rows import read
from .score import score


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a peer: its module makes it (not timed), and it learns the rows (timed)."""
    rows = read(Path(request["stream"]), request["rows"])
    module = import_module(f".{request['module']}", __package__)
    learn = module.make(request["peer"], request["settings"], rows)
    started = time.perf_counter()
    said = learn()
    seconds, first = time.perf_counter() - started, request.get("scored_from", 0)
    return {
        "metrics": score(rows.classes, rows.y[first:], said[first:]),
        "events": len(rows.x),
        "seconds": seconds,
    }


if __name__ == "__main__":
    result = run(json.loads(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
