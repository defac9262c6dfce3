"""The one way to a terminal: a character that a terminal would obey, or hide, is shown instead.

Data comes from strangers: an escape sequence in it could rewrite the screen, a bidi mark could
show text in another order than it has. So nothing else in headrace writes to standard output or
standard error, except protocols between its own processes.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import sys
import threading
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from headrace.stream.errors import UsageError

LOG = "HEADRACE_LOG"  # the variable, and that of --log: text or json
WIDTH = 1000  # where there is no terminal: tables are as wide as what is in them
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
_JOINED = frozenset({"Lo", "Lm", "Mn", "Mc", "So", "Sk"})


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Return the text with what a terminal would obey or hide as escapes: `\u001b`, `\u202e`.

    These are control and format characters, line and paragraph separators and lone surrogates, but
    those of `keep`, and joiners within emoji and between letters of scripts that need them. The
    escapes are those of TOML, so that a printed task file reads as the same task.
    """
    return _escaped(text, keep, _escape)


def as_json(value: Any) -> str:
    """Return one line of JSON, with the same characters as JSON's escapes.

    All that is not ASCII is escaped where standard output is not Unicode.
    """
    line = json.dumps(value, ensure_ascii=not _says_unicode(), default=str)
    return _escaped(line, "", _json_escape)


def as_toml(text: str) -> str:
    """Return TOML that is TOML whatever the encoding of standard output: it has to be UTF-8."""
    return visible(text if _says_unicode() else text.encode("ascii", "visible").decode())


def say(value: Any) -> None:
    """Print one line of text, or one line of JSON for anything else, on standard output."""
    with _writing():
        sys.stdout.write(f"{visible(value) if isinstance(value, str) else as_json(value)}\n")
        sys.stdout.flush()


def note(text: str, level: str = "info", logger: str = "headrace") -> None:
    """Print a line for a person on standard error, or for machines as `log_as_json` says.

    Nobody may be there to read it.
    """
    line = visible(text)
    if _logs_json():
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = as_json({"time": now, "level": level, "logger": logger, "message": text})
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def log_as_json() -> None:
    """Write notes and logs as lines of JSON from here on, here and in processes started here."""
    os.environ[LOG] = "json"


def answers() -> bool:
    """Return whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """Ask a person, and return the line that is answered; "" at the end of what there is."""
    sys.stderr.write(visible(question))
    sys.stderr.flush()
    return sys.stdin.readline()


def flush() -> None:
    """Write what waits; nobody may be there any more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


class Terminal(Console):
    """Print what rich can draw; text is neither markup nor emoji codes, and is made visible."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal:
            self.width = WIDTH

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as `say` does."""
        with _writing():
            super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a cell or a title visible before its width is measured."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Make all text visible that is drawn, whatever it was in."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)


class LogHandler(logging.Handler):
    """Write what libraries log as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if _logs_json():
            text = logging.Formatter("%(message)s").format(record)
            note(text, record.levelname.lower(), record.name)
        else:
            note(self.format(record))


def guard() -> None:
    """Bring what Python and libraries write themselves under the same rule: logs and tracebacks.

    A character that the encoding of the output lacks becomes an escape, too. Closed streams
    are empty ones.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115  closed
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  closed
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="visible")
    logging.lastResort = LogHandler(logging.WARNING)
    warnings.showwarning = _warn
    sys.excepthook = _tell
    threading.excepthook = _tell_of_thread


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"the output cannot be written: {error.strerror}") from error


def _logs_json() -> bool:
    return os.environ.get(LOG) == "json"


def _says_unicode() -> bool:
    return codecs.lookup(sys.stdout.encoding or "utf-8").name.startswith("utf")


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    note(f"headrace: {category.__name__}: {message}", "warning")


def _tell(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    note("".join(traceback.format_exception(kind, error, trace)).rstrip(), "error")


def _tell_of_thread(error: threading.ExceptHookArgs) -> None:
    if error.exc_type is not SystemExit:  # which ends a thread, and is no fault
        _tell(error.exc_type, error.exc_value, error.exc_traceback)


def _escaped(text: str, keep: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep or not _is_hidden(text, at) else escape(char)
        for at, char in enumerate(text)
    )


def _is_hidden(text: str, at: int) -> bool:
    if unicodedata.category(text[at]) not in _HIDDEN:
        return False
    around = (text[max(at - 1, 0) : at], text[at + 1 : at + 2])
    joins = text[at] in _JOINERS and all(map(_is_joined, around))
    return not joins


def _is_joined(char: str) -> bool:
    return char > "\x7f" and unicodedata.category(char) in _JOINED


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error("visible", _unencodable)
