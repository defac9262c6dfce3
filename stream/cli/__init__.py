"""The command line: the one place that puts producers, stream and bench together."""

from __future__ import annotations

import sys

import typer

from stream.cli import archive, audit, cluster, offline, pipeline, replay
from stream.errors import HeadraceError
from stream.terminal import guard, note, visible

app = typer.Typer(
    name="headrace",
    help="Online learning on live Kafka streams: predict, be scored, learn at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (pipeline, offline, audit, replay, archive, cluster):
    commands.add_to(app)


def main() -> None:
    """Run the command line; user mistakes end in one line and an exit code, not a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong usage or task file, 3 no broker, 4 not acknowledged, 5 a
    commit in doubt, 6 fenced, 7 a state that needs a decision, 8 an audit failed, 70 hung, 130
    interrupted.
    """
    guard()
    try:
        sys.exit(app(prog_name="headrace", standalone_mode=False))
    except HeadraceError as error:
        for line in error.args:
            note(visible(f"headrace: {line}", keep="\t"))
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        if message := " ".join(error.format_message().split()):  # none when help has been shown
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "headrace"
            note(f"{command}: {message.rstrip('.')}; see `{command} --help`")
        sys.exit(error.exit_code)
