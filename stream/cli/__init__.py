"""The command line."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

from stream.cli.ending import deadline, leave
from stream.errors import HeadraceError


def main() -> NoReturn:
    """Run the command line; user mistakes end in one line and an exit code, not a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong usage or task file, 3 no broker, 4 not acknowledged, 5 a
    commit in doubt, 6 fenced, 7 a state that needs a decision, 8 an audit failed, 70 hung, 130
    interrupted.
    """
    deadline.start()
    leave(_run())


def _run() -> int:
    try:
        from stream.cli.commands import app  # late: an interrupt during imports is one, too

        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except HeadraceError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"headrace: {line}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("headrace: interrupted\n")
        return 130
    except BrokenPipeError:
        return 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0
