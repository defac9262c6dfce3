"""CapyMOA's ABCD on streams of inputs: `python -m peers.abcd REQUEST`.

The request is JSON: `streams`, paths of arrays float64[n, F] of numpy, inputs in [0, 1]. The last
line printed is a list with, for each, its changes: `at`, `since`, and the inputs, least p first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def changes(path: Path) -> list[dict[str, Any]]:
    """Return the changes that ABCD finds with its defaults."""
    from capymoa.drift.detectors import ABCD

    detector, found = ABCD(), []
    for at, row in enumerate(np.load(path)):
        detector.add_element(row)
        if detector.detected_change():
            ranked = np.argsort(detector.get_dims_p_values()).tolist()
            since = int(detector.last_change_point or at)
            found.append({"at": at, "since": since, "inputs": ranked})
    return found


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    told = [changes(Path(path)) for path in asked["streams"]]
    sys.stdout.write("\n" + json.dumps(told) + "\n")
