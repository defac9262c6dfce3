"""The bench `torture`: what streams that are meant to break a learner do to ours."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from headrace.cli.console import AsJson
from headrace.stream.process.terminal import note, say


def torture(
    streams: Annotated[
        str, typer.Option(help="Streams; a first word chooses all of its kind.", metavar="A,B")
    ] = "",
    rows: Annotated[int, typer.Option(help="Rows of each stream.", min=100)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 1,
    as_json: AsJson = False,
) -> None:
    """Learn outliers, offsets, jumps, growth, noise and gaps with the defaults, beside baselines.

    Each stream is learned twice, its labels as two classes and as numbers. The baselines say the
    last label, the commonest or the mean one, of all or the newest thousand, and the median.

        python -m bench torture --streams spikes,walk --rows 100000
    """
    from bench.learning.contestants import choose
    from bench.torture.run import Kind, Tried, learn
    from bench.torture.streams import STREAMS, draw
    from bench.torture.table import as_json as told
    from bench.torture.table import table

    chosen = choose(streams, STREAMS, "streams") or [*STREAMS]
    found: dict[Kind, dict[str, Tried]] = {}
    for kind in get_args(Kind):
        found[kind] = {}
        for name in chosen:
            found[kind][name] = learn(draw(name, rows, seed), kind)
            note(f"{name}: {kind} {found[kind][name].score:.4g}")
    say(told(found) if as_json else table(found))
