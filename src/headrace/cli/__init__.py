"""The command line."""

from __future__ import annotations

from importlib import import_module
from typing import NoReturn

from headrace.cli.ending import deadline, leave


def main() -> NoReturn:
    """Run the command line; user mistakes end in one line and an exit code, not a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong usage, task file or topic, 3 no broker, 4 not
    acknowledged, 5 a commit in doubt, 6 fenced, 7 a state that needs a decision, 8 an audit failed,
    70 hung, 130 interrupted.
    """
    start("headrace.cli.commands")


def start(commands: str) -> NoReturn:
    """Run what a module of commands has as `run`, and end this process with its exit code."""
    deadline.start()
    # Late: imports take their time, and can be interrupted.
    leave(import_module(commands).run())
