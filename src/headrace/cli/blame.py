"""The command that says what made the error rise: blame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import AsJson, Stop, TaskFile, bar, bars, load_task
from headrace.cli.running import INTERRUPTED
from headrace.stream.evaluation.scores import shown
from headrace.stream.process.terminal import note, say, visible

if TYPE_CHECKING:
    from headrace.stream.evaluation.blame import Blame


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(blame)


def blame(
    task: TaskFile,
    input: Annotated[
        list[str],
        typer.Option(
            "--input", "-i", help="A file, as of `evaluate`; once for each.", metavar="FILE"
        ),
    ],
    limit: Annotated[int | None, typer.Option(help="Read so many rows at most.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Say of each drift alarm what made the error rise: which inputs, and which entities.

    The file is learned twice, as `evaluate` learns it. Of each alarm: since when
    the error is another, and by how much each input's part in it rose; an input
    that tells something takes away from the error, until it breaks. `usual` is
    what no input explains, such as a new mix of labels. Standard errors (±) say
    how sure that is. Entities are told with what their errors add to the rise.

    Example: headrace blame power.toml -i power.csv
    """
    loaded, stop = load_task(task), Stop(begun=False)
    from headrace.stream.evaluation.blame import blame as run  # JAX takes seconds to import
    from headrace.stream.evaluation.file_rows import length

    rows = length(input, limit)
    with bar(
        "learning twice",
        rows.rows and 2 * rows.rows,
        quiet=as_json,
        estimated=not rows.exact,
        first_note="compiling…",
    ) as update:

        def on_progress(done: int) -> None:
            stop.begin()
            update(done)

        found = run(loaded, input, limit=limit, on_progress=on_progress, stop=stop)
    if stop():
        note("interrupted: nothing is known before the rows were learned twice")
        raise typer.Exit(INTERRUPTED)
    if as_json:
        say({"alarms": [each.as_json() for each in found]})
        return
    for each in found:
        for line in _lines(each):
            say(line)
    if not found:
        say("no drift alarm before which the error changed")


def _lines(found: Blame) -> Iterator[str]:
    """Tell of one alarm."""
    verb = "rose" if found.after > found.before else "fell"
    yield (
        f"row {found.at:,} ({found.detector}): the error {verb} from {shown(found.before)} to "
        f"{shown(found.after)} at row {found.since:,}"
    )
    yield from bars(found.inputs | {"usual": found.rest}, found.noise)
    if found.moved:
        yield f"  moved: {visible(', '.join(found.moved), keep='')}"
    if found.sources:
        yield "  by entity:"
        yield from bars(found.sources)
