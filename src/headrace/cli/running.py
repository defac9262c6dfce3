"""How a command line runs: mistakes end in one line and an exit code, not in a traceback."""

from __future__ import annotations

import traceback

import typer

from headrace.cli.ending import deadline
from headrace.stream.errors import HeadraceError
from headrace.stream.process.terminal import guard, note, visible

INTERRUPTED = 130


def make_app(about: str) -> typer.Typer:
    """Make a command line without commands."""
    return typer.Typer(
        help=about,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(app: typer.Typer, name: str) -> int:
    """Run the command that the arguments name, and give its exit code.

    Args:
        name: of the command line, as it calls itself.
    """
    guard()
    try:
        code = app(prog_name=name, standalone_mode=False) or 0
        if code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code)
    except HeadraceError as error:
        for line in error.args:
            note(visible(f"{name}: {line}", keep="\t"))
        return error.exit_code
    except typer.TyperException as error:
        if message := " ".join(error.format_message().split()):  # none when help has been shown
            context = getattr(error, "ctx", None)
            command = context.command_path if context else name
            note(f"{command}: {message.rstrip('.')}; see `{command} --help`")
        return error.exit_code
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # as `| head` leaves it
            return 0
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        note(f"{name}: {deadline.told}")
        return deadline.code
    except BrokenPipeError:
        return 0
    except Exception:
        note(traceback.format_exc().rstrip())
        return 1
