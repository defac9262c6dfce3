"""The programs that XLA compiled, kept in the user's cache: later starts take seconds less."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
from jax._src.compilation_cache import decompress_executable

from headrace.stream.process.paths import cache_dir

CHECKED = "checked"  # a file as old as the last look at programs that were new then
SLACK_S = 1.0  # of what file systems say of times


def keep_programs() -> None:
    """Let XLA keep compiled programs in the user's cache, unless JAX was told of a place already.

    Where the directory cannot be written, programs are compiled at each start. A program that was
    not written to its end (the disk was full, or the process was killed) is deleted: JAX would
    warn of it at each start, and never write it again. Only those are read for this that are new
    since the last start.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir:
        return
    place = cache_dir("xla")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_cut_off(place)
    except OSError:
        return
    config.update("jax_compilation_cache_dir", str(place))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _delete_cut_off(place: Path) -> None:
    now_s, checked = time.time(), place / CHECKED
    since_s = checked.stat().st_mtime - SLACK_S if checked.exists() else 0.0
    checked.touch()
    for path in place.glob("*-cache"):
        with suppress(FileNotFoundError):  # another process was quicker
            if path.stat().st_mtime >= since_s and not _is_whole(path):
                path.unlink()
    os.utime(checked, (now_s, now_s))


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    try:
        decompress_executable(content)
    except Exception:
        return False
    return True
