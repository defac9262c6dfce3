"""How a command line runs: mistakes end in one line and an exit code, not in a traceback."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import typer
from typer.main import get_command

from headrace.cli.ending import deadline
from headrace.stream.errors import HeadraceError
from headrace.stream.process.terminal import guard, note, visible

INTERRUPTED = 130
_OF_PYDANTIC = re.compile(r"Input should be (?:a valid )?")


def make_app(about: str, epilog: Iterable[str] = ()) -> typer.Typer:
    """Make a command line without commands.

    Args:
        epilog: lines at the end of its help.
    """
    return typer.Typer(
        help=about,
        epilog="\n\n".join(epilog) or None,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(app: typer.Typer, name: str) -> int:
    """Run the command that the arguments name, and give its exit code.

    Each option may come from the environment instead, such as `HEADRACE_LEARN_MICRO_BATCH`.

    Args:
        name: of the command line, as it calls itself.
    """
    guard()
    try:
        prefix = name.replace(" ", "_").upper()
        command = polished(get_command(app))
        code = command(prog_name=name, standalone_mode=False, auto_envvar_prefix=prefix) or 0
        if code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return int(code)
    except HeadraceError as error:
        for line in error.args:
            note(visible(f"{name}: {line}", keep="\t"), "error")
        return error.exit_code
    except typer.TyperException as error:
        if message := " ".join(error.format_message().split()):  # none when help has been shown
            context = getattr(error, "ctx", None)
            at = context.command_path if context else name
            message = message.rstrip(".").replace("Value error, ", "")
            message = _OF_PYDANTIC.sub("expected ", message)
            told = f"{at}: {message}{'' if message.endswith('?') else ';'} see `{at} --help`"
            note(told, "error")
        return error.exit_code
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # as `| head` leaves it
            return 0
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        note(f"{name}: {deadline.told}", "error")
        return deadline.code
    except BrokenPipeError:
        return 0
    except Exception:
        note(traceback.format_exc().rstrip(), "error")
        return 1


def polished(command: Any) -> Any:
    """Make the help of a command, and of those under it, read well; return it.

    Paragraphs wrap with the terminal, a switch is a FLAG and no `<bool>`, and of the variables only
    those are listed that have a name of their own.
    """
    for inner in getattr(command, "commands", {}).values():
        polished(inner)
    if command.help:
        command.help = "\n\n".join(map(_wrapping, command.help.split("\n\n")))
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = parameter.metavar or "FLAG"
        if not parameter.envvar:
            parameter.show_envvar = False
    command.get_help_option = partial(_help_option, command.get_help_option)
    return command


def _help_option(made: Callable[[Any], Any], context: Any) -> Any:
    option = made(context)
    if option:
        option.metavar = "FLAG"
    return option


def _wrapping(paragraph: str) -> str:
    """Make one line of a paragraph; what is set off by four spaces is an example, and stays."""
    return paragraph if paragraph.startswith("    ") else " ".join(paragraph.split())
