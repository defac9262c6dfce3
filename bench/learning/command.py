"""The bench `learning`: how well headrace learns, beside its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.console import AsJson
from headrace.stream.process.terminal import note, say


def learning(
    streams: Annotated[
        str, typer.Option(help="Streams; a first word chooses all of its kind.", metavar="A,B")
    ] = "",
    peers: Annotated[
        str,
        typer.Option(help="Contestants, such as no-change,headrace,river,vw.", metavar="A,B"),
    ] = "",
    rows: Annotated[int | None, typer.Option(help="Only the first so many rows.", min=2)] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of shared data; default: ../shared/data.", file_okay=False),
    ] = None,
    label_delay: Annotated[
        int,
        typer.Option(
            help="Let each label come so many rows late; of headrace's peers, River's models then.",
            min=0,
        ),
    ] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Run the streams that are held out instead.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is in the cache.")
    ] = False,
    cached: Annotated[
        bool, typer.Option("--cached", help="Measure nothing; show what is in the cache.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop a peer after so long on one stream.", min=0.01)
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write bench/RESULTS.md and the peers' scores.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Learn real and drawn streams with headrace's defaults and with the peers, on the same rows.

    Test-then-train in file order. Each result is kept in your cache by its content (rows, peer,
    settings, version), so a second run measures only what is new; the peers' scores behind
    bench/RESULTS.md come with the repository, without speeds (`--fresh` measures all again). Peers
    are installed by uv from bench/peers, each library in an environment of its own; the first run
    of each fetches it (3 GB in all).

        python -m bench learning --streams electricity,nab --peers headrace,river,vw --rows 20000
    """
    from bench.learning import table
    from bench.learning.contestants import CONTESTANTS, choose
    from bench.learning.run import Options, default_data, run, selected
    from bench.learning.streams import STREAMS
    from bench.learning.write import write as write_section

    asked = selected(choose(streams, STREAMS, "streams"), held_out=held_out)
    options = Options(
        data=data or default_data(),
        rows=rows,
        fresh=fresh,
        label_delay=label_delay,
        cached=cached,
        write=write,
        limit_s=None if minutes is None else 60 * minutes,
    )
    contestants = choose(peers, CONTESTANTS, "peers") or [*CONTESTANTS]
    found = run(asked, contestants, options, note)
    if write:
        write_section(table.table(found), held_out=held_out)
    say(found | {"ranks": table.summary(found)} if as_json else table.details(found))
