"""The programs that XLA compiled, kept in the user's cache: later starts take seconds less."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from jax._src.compilation_cache import decompress_executable

from stream.paths import cache_dir


def keep_programs() -> None:
    """Let XLA keep compiled programs in `JAX_COMPILATION_CACHE_DIR`, or else in the user's cache.

    Where the directory cannot be written, programs are compiled at each start. A program that was
    not written to its end (the disk was full, or the process was killed) is deleted: JAX would
    warn of it at each start, and never write it again.
    """
    config: Any = jax.config
    place = Path(config.jax_compilation_cache_dir or cache_dir("xla"))
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = list(place.glob("*-cache"))
    except OSError:
        return
    if not os.access(place, os.W_OK):
        return
    for path in kept:
        with suppress(OSError):
            if not _is_whole(path):
                path.unlink()
    config.update("jax_compilation_cache_dir", str(place))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    try:
        decompress_executable(content)
    except Exception:
        return False
    return True
