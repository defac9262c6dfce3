"""What strangers may put into names and values, and how to see whether a terminal would obey it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn
from unicodedata import category

STRINGS = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "ba\bck\x7f",
    "\u202evil\u2066",
    "\u061cal\u200f",
    "z\u200bw\ufeff",
    "a\u200db",
    "l\u2028p\u2029",
    "n\x85l",
    "c\rr",
    "new\nheadrace: all is well",
    "ta\tb",
    "\U000e0001tag",
    "flow [/min]",
    "[/red]",
    "[link=file:///x]x[/link]",
    ":smile:",
    'size "in"',
    "a = b",
    "it's",
    "\\x1b",
    "%s %(x)s {x} {",
    "größe 水 👩\u200d🔬",
)
Run = Callable[..., "Ran"]
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def obeyed(text: str) -> list[str]:
    """List what a terminal would obey or hide, but line feeds, tabs and joiners of emoji."""
    plain = text.replace("\n", "").replace("\t", "").replace("👩\u200d🔬", "")
    return [f"{char!r}" for char in plain if category(char) in FORBIDDEN]


class Ran(NamedTuple):
    """Hold what a command did."""

    code: int
    out: str
    err: str

    @property
    def values(self) -> list[Any]:
        """Decode each line of standard output, strictly, as JSON."""
        return [json.loads(line, parse_constant=_refuse) for line in self.out.split("\n")[:-1]]

    def is_safe(self) -> Ran:
        """Make sure that it ended on its own and that a terminal shows all and obeys nothing."""
        assert "Traceback" not in self.err, self.err
        assert not obeyed(self.out), self.out
        assert not obeyed(self.err), self.err
        return self


def headrace(*arguments: str | os.PathLike[str], **env: str) -> Ran:
    """Run the command line in a process of its own."""
    surroundings = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP"} | env
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        capture_output=True,
        timeout=120,
        env=surroundings,
    )
    coding = env.get("PYTHONIOENCODING", "utf-8")
    return Ran(done.returncode, done.stdout.decode(coding), done.stderr.decode(coding))


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is no JSON")
