"""The peers' environment: one of its own for each library, made by uv from bench/peers/uv.lock."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from bench.learning.cache import folder
from headrace.stream.errors import HeadraceError

PROJECT = Path(__file__).parents[1] / "peers"


class PeerError(HeadraceError):
    """A peer could not be installed, failed, or took too long."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def run(extra: str, module: str, request: dict[str, Any], *, limit_s: float | None = None) -> str:
    """Run a module of the peers, and give the last line that it wrote.

    Raises:
        PeerError: with its exit code and the last line of what it said.
    """
    command = ["uv", "run", "--quiet", "--frozen", "--project", str(PROJECT), "--extra", extra]
    command += ["python", "-m", f"peers.{module}", json.dumps(request)]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
        "UV_PROJECT_ENVIRONMENT": str(folder("environments") / extra),
        "PYTHONPATH": str(PROJECT.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return output(command, f"{extra}, {module}", environment, limit_s=limit_s)


def output(
    command: list[str],
    name: str,
    environment: dict[str, str] | None = None,
    *,
    limit_s: float | None = None,
) -> str:
    """Run a process to its end, and give the last line that it wrote.

    Raises:
        PeerError: with its exit code and the last line of what it said.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # uv's child has to end with it
    )
    try:
        said, complaints = process.communicate(timeout=limit_s)
    except BaseException as error:
        os.killpg(process.pid, 9)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise PeerError(f"{name}: stopped after {limit_s:,.0f} s") from error
        raise
    lines = said.strip().splitlines()
    if process.returncode:
        why = complaints.strip().splitlines() or lines or ["?"]
        last = why[-1] if process.returncode != 3 else (lines or why)[-1]
        raise PeerError(f"{name}: {last[:300]}", process.returncode)
    return lines[-1] if lines else ""


@cache
def version(package: str) -> str:
    """Return the version of a peer's package that the lock file names; the newest, of several."""
    lock = tomllib.loads((PROJECT / "uv.lock").read_text("utf-8"))
    found = [entry["version"] for entry in lock["package"] if entry["name"] == package]
    if not found:
        raise PeerError(f"{package}: not in {PROJECT / 'uv.lock'}")
    return str(found[-1])
