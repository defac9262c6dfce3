"""All commands, put together: the one place that knows producers and stream."""

from __future__ import annotations

import logging
from importlib.metadata import version as version_of
from typing import Annotated, Any, Literal

import typer

from headrace.cli import (
    archive,
    audit,
    blame,
    cluster,
    doctor,
    export,
    init,
    offline,
    pipeline,
    replay,
    running,
    serve,
    status,
)
from headrace.stream.process.terminal import LogHandler, log_as_json, say

PANELS = {
    "Start here": ("demo", "init", "doctor", "infer", "check", "evaluate"),
    "Run": (
        "up",
        "topics",
        "produce",
        "learn",
        "serve",
        "ask",
        "status",
        "normalize",
        "tail",
        "dead-letters",
        "acls",
        "certificates",
    ),
    "Look back": ("blame", "verify", "replay", "state"),
    "Take along": ("export", "archive", "table", "schema"),
}
EPILOG = (
    "Start with `headrace demo`, which shows it all; with `headrace init`, for a file or a topic "
    "of your own; with `headrace doctor`, which says what this machine lacks.",
    "Exit codes: 0 done. 1 failed. 2 wrong usage, task file or topic. 3 no broker. 4 records not "
    "acknowledged. 5 a commit in doubt: start again. 6 another learner took over. 7 the state "
    "needs a decision of yours. 8 an audit failed. 70 hung: start again. 130 interrupted.",
    "Each option has a variable: of `learn --micro-batch` it is HEADRACE_LEARN_MICRO_BATCH.",
)

app = running.make_app(
    "Online learning on live Kafka streams: predict, be scored, learn at once.", EPILOG
)
for commands in (
    pipeline,
    status,
    serve,
    init,
    doctor,
    offline,
    blame,
    audit,
    replay,
    export,
    archive,
    cluster,
):
    commands.add_to(app)
_PANEL = {name: panel for panel, names in PANELS.items() for name in names}


def _name(registered: Any) -> str:
    return str(registered.name or registered.callback.__name__)


app.registered_commands.sort(key=lambda each: [*_PANEL].index(_name(each)))
for command in app.registered_commands:
    command.rich_help_panel = _PANEL[_name(command)]
for group in app.registered_groups:
    group.rich_help_panel = _PANEL[_name(group)]


def _tell_version(wanted: bool) -> None:
    if wanted:
        say(f"headrace {version_of('headrace')}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version),
    ] = False,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="Least level of what libraries log that is shown."),
    ] = "warning",
    log: Annotated[
        Literal["text", "json"],
        typer.Option(help="How notes, errors and logs on standard error are written."),
    ] = "text",
) -> None:
    """Take what goes for every command."""
    if log == "json":
        log_as_json()
    logging.basicConfig(
        level=log_level.upper(),
        handlers=[LogHandler()],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if log_level in ("warning", "error"):  # that nobody answers is told by who asked
        for name in ("kafka.net.connection", "kafka.net.manager", "gcsfs"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def run() -> int:
    """Run the command that the arguments name, and give its exit code."""
    return running.run(app, "headrace")
