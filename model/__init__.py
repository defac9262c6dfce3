"""The learning core: pure JAX, one compiled loop. Knows arrays; never Kafka, clocks or files.

XLA is told three things before it starts, unless the environment already says otherwise: to keep
the program order of the tiny operations of the loop (1.7 times faster than its concurrent
schedule), to run them on one thread, and to use the instruction set that any machine of the last
ten years has, so that a state is the same bits on all of them.
"""

from __future__ import annotations

import os
import platform

_FLAGS = [
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_multi_thread_eigen=false",
]
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS.append("--xla_cpu_max_isa=AVX2")

_given = os.environ.get("XLA_FLAGS", "")
_missing = [flag for flag in _FLAGS if flag.split("=")[0] not in _given]
os.environ["XLA_FLAGS"] = " ".join([*_given.split(), *_missing])
