"""Run what the documentation shows: the shell and Python blocks of a page, as its reader would.

A page's blocks become one shell script with the page's own line numbers. In a fence,

* ```sh is run by bash with `set -euo pipefail`, in order, in one shell, in a folder that holds
  nothing but `power.csv`;
* ```python is run by the interpreter of the tests; blocks with no ```sh between them share names;
* a command that ends with ` &` stays in the background. At the end of the page each of them gets
  SIGINT, the last one first, and has to end with exit code 0;
* ```toml has to be TOML, and a whole task file (one with a `name`) has to be valid;
* ```text, ```ini, ```yaml and ```json are for reading. Any other fence is a mistake.

`headrace up` gets a port and a data directory of the test, by options.
"""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
KAFKA = ("README.md", "getting-started.md", "guarantees.md", "late-labels.md", "serving.md")
SKIPPED = "## Two commands"  # the README's: CI runs the second, tests/demo/test_demo.py the first
READ_ONLY = {"text", "ini", "yaml", "json"}
LIMIT_S = 240
_FENCE = "```"
_FIRST_LINE = ". ../finish.sh"
_FINISH = """
set -euo pipefail -m
trap 'failed="line $LINENO: $BASH_COMMAND"' ERR
trap finish EXIT
finish() {
  code=$?; running=
  [ $code = 0 ] || echo "$0: exit code $code, ${failed:-a variable that is not set}" >&2
  for job in $(jobs -p); do running="$job $running"; done
  for job in $running; do
    kill -INT "$job" || true
    ended=0; wait "$job" || ended=$?
    [ $ended = 0 ] || { echo "$0: a command in the background: exit code $ended" >&2; code=1; }
  done
  exit $code
}
"""


class Block(NamedTuple):
    """Hold a fenced block: its language, the number of its first line, its lines."""

    language: str
    first: int
    lines: list[str]


def blocks(page: Path, *, whole: bool = False) -> list[Block]:
    """Return the fenced blocks of a page; without the section that is SKIPPED, unless `whole`."""
    found: list[Block] = []
    block: Block | None = None
    skipped = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if block is not None and line == _FENCE:
            found += [] if skipped and not whole else [block]
            block = None
        elif block is not None:
            block.lines.append(line)
        elif line.lstrip().startswith(_FENCE):
            assert line.startswith(_FENCE), f"{page.name}, line {number}: an indented fence"
            block = Block(line.removeprefix(_FENCE), number + 1, [])
        elif line.startswith("#"):
            skipped = line == SKIPPED
    assert block is None, f"{page.name}: the block of line {number} never ends"
    return found


def runs(page: Path) -> bool:
    """Return whether a page has something to run; README's Python is run by test_library.py."""
    return any(
        block.language == "sh" or (block.language == "python" and page != README)
        for block in blocks(page)
    )


def run(page: Path, tmp_path: Path, **env: str) -> None:
    """Run the blocks of a page; fail with its output if one of its lines does.

    Args:
        tmp_path: a folder that is empty.
        env: what the environment has besides; PORT is the one of `headrace up`.
    """
    shell: dict[int, str] = {1: _FIRST_LINE}
    program: Path | None = None
    python: dict[int, str] = {}
    for language, first, lines in blocks(page):
        if language == "sh":
            shell |= enumerate(lines, first)
            program, python = None, {}
        elif language == "python" and page != README:
            if program is None:
                program = tmp_path / f"{page.stem}-{first}.py"
            shell = {at: line for at, line in shell.items() if program.name not in line}
            shell[first] = f'"$PYTHON" "../{program.name}"'
            python |= enumerate(lines, first)
            program.write_text(_lines(python), "utf-8")
    up = f"headrace up --port {env.get('PORT')} --data kafka"
    (tmp_path / page.name).write_text(re.sub(r"\bheadrace up\b", up, _lines(shell)), "utf-8")
    (tmp_path / "finish.sh").write_text(_FINISH, "utf-8")
    place = tmp_path / "empty"
    place.mkdir()
    write_power(place / "power.csv")
    surroundings = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "UV_PROJECT": str(ROOT),  # `uv run` runs what it would in the checkout
        "UV_NO_SYNC": "1",
        **env,
    }
    with (tmp_path / "output").open("w+", encoding="utf-8") as output:
        shell_process = psutil.Popen(
            ["bash", f"../{page.name}"],
            cwd=place,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = shell_process.wait(LIMIT_S)
        except psutil.TimeoutExpired:
            code = "none, it took too long"
            left = [*shell_process.children(recursive=True), shell_process]
            for process in left:
                process.kill()
            psutil.wait_procs(left)
        output.seek(0)
        assert code == 0, f"{page.name}: exit code {code}\n{output.read()}"


def write_power(path: Path) -> None:
    """Write the file that the documentation speaks of: time, load, temperature and price."""
    rng, begin = random.Random(0), datetime(2026, 1, 1, tzinfo=UTC)
    lines = ["time,load,temperature,price"]
    for hour in range(2_000):
        time = (begin + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:%M:%SZ")
        load = 6.0 + 2.0 * math.sin(hour / 24 * math.tau) + rng.random()
        temperature = 12.0 + 8.0 * rng.random()
        price = 2.0 * load + 0.1 * temperature
        lines.append(f"{time},{load:.3f},{temperature:.2f},{price:.3f}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _lines(by_number: dict[int, str]) -> str:
    """Return a text with these lines, counted from 1, and empty ones between them."""
    return "".join(f"{by_number.get(at, '')}\n" for at in range(1, max(by_number) + 1))
