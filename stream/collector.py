"""Python's garbage collector, where millions of short-lived objects come and go."""

from __future__ import annotations

import gc


def look_rarely() -> None:
    """Leave alone what is there now, and look for cycles seldom: half the time may go into it.

    Kafka's messages and the tuples made of them hold no cycles. It lasts as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
