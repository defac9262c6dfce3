from __future__ import annotations

import subprocess
import sys
from ctypes import CDLL

import pytest

GLIBC = sys.platform == "linux" and hasattr(CDLL(None), "mallinfo2")

# A block that is mapped by itself is given back when it is freed; mallinfo2(3) counts such bytes.
MAPPED = """
import ctypes, sys
import numpy as np
from headrace.stream.process.garbage import tune_memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split())]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
if sys.argv[1] == "tuned":
    tune_memory()
for _ in range(3):
    np.ones(30 << 20, np.uint8)  # freed at once, as the copy of a state is
before = mallinfo().hblkhd
array = np.ones(4 << 20, np.uint8)
print(mallinfo().hblkhd - before >= array.nbytes)
"""


@pytest.mark.skipif(not GLIBC, reason="glibc 2.33 or newer tells what it has mapped")
@pytest.mark.parametrize(("how", "mapped"), [("tuned", "True"), ("as it is", "False")])
def test_large_blocks_are_given_back_although_larger_ones_were_freed(how: str, mapped: str) -> None:
    command = [sys.executable, "-c", MAPPED, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == mapped
