"""The memory of a process where small objects come and go by millions, and copies of whole states.

What Python's garbage collector and the C library do by themselves is made for other programs.
"""

from __future__ import annotations

import ctypes
import gc
import sys

LARGE_BYTES = 1 << 20
_M_MMAP_THRESHOLD = -3  # of mallopt(3)


def tune_memory() -> None:
    """Leave alone what is there now, look for cycles seldom, and give back what is freed.

    Half the time may go into looking for cycles; Kafka's messages and the tuples made of them hold
    none. It lasts as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    if sys.platform == "linux":
        _give_back()


def _give_back() -> None:
    """Let glibc map each large block by itself, to be unmapped when it is freed.

    Else the size from which it does so grows to that of blocks that were freed, to 32 MiB: copies
    of a state then lie in the heaps of whichever threads took them, of which there are eight for
    each core, and free memory is left in all of them. What compiling has left is given back now.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):  # musl has neither
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        libc.malloc_trim(0)
