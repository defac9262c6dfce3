"""All commands, put together: the one place that knows producers, stream and bench."""

from __future__ import annotations

import traceback

import typer

from stream.cli import archive, audit, cluster, offline, pipeline, replay
from stream.cli.ending import deadline
from stream.errors import HeadraceError
from stream.terminal import guard, note, visible

INTERRUPTED = 130

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


def run() -> int:
    """Run the command that the arguments name, and give its exit code."""
    guard()
    try:
        code = app(prog_name="headrace", standalone_mode=False) or 0
        if code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code)
    except HeadraceError as error:
        for line in error.args:
            note(visible(f"headrace: {line}", keep="\t"))
        return error.exit_code
    except typer.TyperException as error:
        if message := " ".join(error.format_message().split()):  # none when help has been shown
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "headrace"
            note(f"{command}: {message.rstrip('.')}; see `{command} --help`")
        return error.exit_code
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # as `| head` leaves it
            return 0
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        note(f"headrace: {deadline.told}")
        return deadline.code
    except BrokenPipeError:
        return 0
    except Exception:
        note(traceback.format_exc().rstrip())
        return 1
