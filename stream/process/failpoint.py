"""Places where a test may have this process killed, as a power cut would kill it.

`HEADRACE_FAILPOINT="commit begun:3"` sends SIGKILL at the third time that the place is passed.
"""

from __future__ import annotations

import os
import signal

_name, _, _hits = os.environ.get("HEADRACE_FAILPOINT", "").rpartition(":")
_left = int(_hits) if _name else 0


def failpoint(name: str) -> None:
    """Die here, if the environment says so and it is the time."""
    global _left
    if name == _name:
        _left -= 1
        if not _left:
            os.kill(os.getpid(), signal.SIGKILL)
