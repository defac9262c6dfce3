"""Compiled programs are kept from one process to the next, whatever became of their files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import jax
from jax import numpy as jnp
from headrace.stream.training.programs import keep_programs
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: jnp.sin(x) + 1)(1.0)
"""


def _run(place: Path) -> dict[str, bytes]:
    environment = os.environ | {"XDG_CACHE_HOME": str(place), "JAX_COMPILATION_CACHE_DIR": ""}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert not ran.stderr
    return {path.name: path.read_bytes() for path in place.rglob("*-cache")}


@pytest.mark.parametrize("size", [0, 1000])
def test_a_program_that_was_cut_off_is_written_again_without_a_word(
    tmp_path: Path, size: int
) -> None:
    first = _run(tmp_path)
    assert first
    for name, content in first.items():
        assert len(content) > size
        (tmp_path / "headrace/xla" / name).write_bytes(content[:size])
    again = _run(tmp_path)
    assert again.keys() == first.keys()
    assert all(len(content) > size for content in again.values())
