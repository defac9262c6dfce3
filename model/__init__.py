"""The learning core: pure JAX, one compiled loop. Knows arrays; never Kafka, clocks or files.

XLA is told a few things before it starts, unless the environment already says otherwise: to make
the whole loop one compiled function (else each of its tiny operations is dispatched, which takes
three times as long as they do), without the library calls that would keep it from that; to keep
loops of more than four rounds loops, which takes three quarters of the time to compile and up to a
tenth less to run; to make vector code of large products of matrices too, which is forty times as
fast; to run it on one thread, in the order of the program where it does dispatch; and to use the
instruction set that any machine of the last ten years has, so that a state is the same bits on all
of them.
"""

from __future__ import annotations

import os
import platform

_FLAGS = [
    "--xla_backend_extra_options="
    "xla_cpu_small_while_loop_byte_threshold=1000000000,-unroll-full-max-count=4,"
    "xla_force_enable_experimental_llvm_ir_gemm",
    "--xla_cpu_experimental_ynn_fusion_type=",
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
    "--xla_cpu_multi_thread_eigen=false",
]
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS.append("--xla_cpu_max_isa=AVX2")

_given = os.environ.get("XLA_FLAGS", "")
_missing = [flag for flag in _FLAGS if flag.split("=")[0] not in _given]
os.environ["XLA_FLAGS"] = " ".join([*_given.split(), *_missing])
