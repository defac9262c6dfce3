"""The benches, put together; `python -m bench` runs one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.learning.command import learning
from bench.torture.command import torture
from headrace.cli import running
from headrace.cli.console import AsJson, Bootstrap
from headrace.stream.process.signals import ENDING
from headrace.stream.process.terminal import note, say

app = running.make_app("Measure headrace and its peers in one run.")
app.command()(learning)
app.command()(torture)


@app.callback()
def bench() -> None:
    """Measure headrace and its peers in one run."""
    for number in ENDING:  # peers are to end with us
        signal.signal(number, signal.default_int_handler)


def run() -> int:
    """Run the bench that the arguments name, and give its exit code."""
    return running.run(app, "bench")


@app.command("pipeline")
def pipeline(
    events: Annotated[int, typer.Option(help="Events in the topic.", min=10_000)] = 400_000,
    peers: Annotated[bool, typer.Option(help="Run the peers too.")] = True,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Measure events -> predictions, each stage alone, latency, and peers on the same topic."""
    from bench.pipeline import run

    found: dict[str, Any] = run(
        events=events,
        peers=peers,
        bootstrap=bootstrap,
        on_progress=(lambda line: None) if as_json else note,
    )
    if as_json:
        say(found)
        return
    from bench.pipeline import table

    say(table(found))


@app.command("late-labels")
def late_labels(
    events: Annotated[int, typer.Option(help="Events in the topic.", min=20_000)] = 200_000,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Labels within events beside labels 10,000 events later in a topic of their own."""
    from bench.late import run, table

    note_or_not = (lambda line: None) if as_json else note
    found = run(events=events, bootstrap=bootstrap, on_progress=note_or_not)
    say(found if as_json else table(found))


@app.command("waiting")
def waiting(as_json: AsJson = False) -> None:
    """What a million rows take that wait for their label, in memory and outside of it."""
    from bench.waiting import table, waiting

    found = waiting()
    say(found if as_json else table(found))


@app.command("serving")
def serving(
    seconds: Annotated[float, typer.Option(help="Of each load.", min=1.0)] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Answers by HTTP while a learner releases, beside River in FastAPI and in MLflow's server."""
    from bench.serving import serving, table

    found = serving(seconds=seconds, on_progress=(lambda line: None) if as_json else note)
    say(found if as_json else table(found))


@app.command("drift")
def drift() -> None:
    """How soon learners are back after a drift, and false alarms without one; prints JSON."""
    from bench.drift import drift

    say(drift(on_progress=note))


@app.command("images")
def images(
    data: Annotated[Path, typer.Option(help="Where MNIST's four files are.", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Learn MNIST, or images in files like its, beside Keras on JAX with the same layers."""
    from bench.images import images, table

    found = images(data, on_progress=note)
    say(found if as_json else table(found))


@app.command("exported")
def exported(
    source: Annotated[Path, typer.Option("--input", "-i", help="A CSV file.", metavar="FILE")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    as_json: AsJson = False,
) -> None:
    """Ask a model of ONNX, and the learner that it was exported from; on one core."""
    from bench.exported import exported, table

    found = exported(source, target, on_progress=note)
    say(found if as_json else table(found))


@app.command("reading")
def reading(
    rows: Annotated[int, typer.Option(help="Rows of the files.", min=10_000)] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Read CSV, JSON lines and Parquet into the learner's rows, beside other readers; one core."""
    from bench.reading import reading, table

    found = reading(rows=rows, on_progress=note)
    say(found if as_json else table(found))


@app.command("memory")
def memory(
    events: Annotated[int, typer.Option(help="Events learned.", min=100_000)] = 5_000_000,
    hostile: Annotated[
        bool, typer.Option(help="A million entities; words and categories without end.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Watch the learner's memory over millions of events; prints JSON."""
    from bench.memory import memory

    say(memory(events=events, hostile=hostile, bootstrap=bootstrap, on_progress=note))


@app.command("history")
def history(
    events: Annotated[int, typer.Option(help="Events behind it.", min=10_000)] = 10_000_000,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Measure recovery after kill -9, verify, archive, and replay, with so many events behind."""
    from bench.history import history, table

    found = history(
        events=events,
        bootstrap=bootstrap,
        on_progress=(lambda line: None) if as_json else note,
    )
    say(found if as_json else table(found))


@app.command("explaining")
def explaining(
    events: Annotated[int, typer.Option(help="Events of a turn.", min=1_000)] = 50_000,
    as_json: AsJson = False,
) -> None:
    """What explanations cost a learner, by the share of events that is explained."""
    from bench.explaining import explaining as run
    from bench.explaining import table

    found = run(events, (lambda line: None) if as_json else note)
    say(found if as_json else table(found))


@app.command("blaming")
def blaming(
    seeds: Annotated[int, typer.Option(help="Streams of each kind.", min=1)] = 8,
    peers: Annotated[bool, typer.Option(help="Ask ABCD too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Which input is blamed where it is known which one broke, beside CapyMOA's ABCD."""
    from bench.blaming import blaming as run
    from bench.blaming import table

    found = run(seeds, peers=peers, on_progress=(lambda line: None) if as_json else note)
    say(found if as_json else table(found))
