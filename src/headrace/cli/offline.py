"""Commands that need no Kafka: check, schema, infer, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    Stop,
    TaskFile,
    bar,
    connection_of,
    load_task,
)
from headrace.cli.findings import refuse_doubts, tell_found
from headrace.cli.guessing import Strict, Target, with_options
from headrace.cli.running import INTERRUPTED
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.options import Options
from headrace.stream.evaluation.scores import shown
from headrace.stream.process.terminal import as_toml, note, say, visible

if TYPE_CHECKING:
    from headrace.stream.task import Task


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (infer, evaluate, check, schema):
        app.command()(command)


@with_options
def infer(
    source: Annotated[
        list[str],
        typer.Argument(help="Files (- is standard input), or a topic.", metavar="FILE...|TOPIC"),
    ],
    target: Annotated[str, typer.Option(help="The column to predict.", metavar="COLUMN")],
    *,
    options: Options,
    strict: Strict = False,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
) -> None:
    """Write a task file to start from: column types are guessed from rows of all parts.

    What is left out, refused, or read in a way that a person should know of, is told
    on standard error; what is left out stands in the file as comments, too. With
    --strict any of it is exit code 1, and no task file is written.

    Example: headrace infer power.csv --target price > power.toml
    """
    from headrace.stream.evaluation import infer as guess
    from headrace.stream.evaluation.inspection import inspect_file, inspect_topic
    from headrace.stream.formats.files import describe, form_of, names_files

    first = source[0]
    if len(source) > 1 or form_of(first) or names_files(first):
        found = guess.guess_file(source, target, options)
        _note_all(describe(source))
        seen = inspect_file(found.task, source)
    else:
        kafka = connection_of(bootstrap, kafka_config)
        found = guess.guess_topic(kafka, first, target, options)
        seen = inspect_topic(found.task, kafka)
    _note_all([*guess.describe(found.task), *found.lines(), *seen.lines()])
    if strict:
        refuse_doubts([*found.lines(), *seen.doubts()])
    say(as_toml(found.to_toml().rstrip()))


@with_options
def evaluate(
    task: Annotated[
        str | None,
        typer.Argument(help="The task file, or its URL; without one, it is inferred."),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="CSV, JSON, Parquet, Arrow, Avro, Excel: a path, glob, URL, or - for standard "
            "input; once for each.",
            metavar="FILE",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Read so many rows at most.", min=1)] = None,
    target: Target = None,
    *,
    options: Options,
    strict: Strict = False,
    label_delay: Annotated[
        str | None,
        typer.Option(
            help="Let labels come late: 500 events, 10m of event time (s, m, h, d), or drawn with "
            "that mean: exp(500), exp(1d).",
            metavar="DELAY",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Learn the rows with this task file too, as it is, and compare row by row.",
            metavar="TASK2",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw how learning went: .html, .png or .svg.", metavar="FILE"),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write every prediction to this Parquet file.", metavar="FILE.parquet"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how well a stream would be learned: test-then-train over a file, beside baselines.

    --compare says which of two tasks learns the file better. Both see each row;
    what only one of them scores is left out, and counted. The difference, in
    accuracy or in absolute error, has bounds that hold with 95 % confidence at
    every row at once: look early, look often, stop when you like. (For numbers
    they hold in the limit of many rows; of few they say nothing.) Options such as
    --drop change TASK and never TASK2: so a task can be compared with itself, with
    and without a column.

    --plot draws accuracy, or the mean absolute error, in a fading window, with
    its baselines, each drift alarm, and what the members of the pool weigh; with
    --compare both tasks, and the difference between its bounds. HTML needs no
    network.

    --trace writes a line for each row of the file: offset, id, time, prediction,
    probabilities (or low and high), label, whether the label was scored, whose
    prediction it answers, and the code if the row was refused. The file appears
    whole, at the end, or not at all.

    With --strict rows that are refused, warnings, and what a guess leaves out or is
    not sure of, are exit code 1. Ctrl-C ends it with what is known so far, the plot
    too, and without a trace.

        headrace evaluate --input power.csv --target price

        headrace evaluate power.toml -i power.csv --plot power.html

        headrace evaluate power.toml -i power.csv --compare wider.toml --json

        headrace evaluate power.toml -i power.csv --compare power.toml --drop load

        headrace evaluate power.toml -i power.csv --trace power.parquet
    """
    if not input:
        raise UsageError("--input: missing; name a file, such as of CSV, JSON or Parquet")
    other = load_task(compare) if compare else None
    from headrace.stream.evaluation.file_rows import length
    from headrace.stream.evaluation.subjects import subject, told_apart
    from headrace.stream.formats.files import called, describe
    from headrace.stream.process.garbage import tune_memory

    chosen, rows = subject(task, target, input, options), length(input, limit)
    _note_all([*describe(input), *chosen.said])
    if strict:
        refuse_doubts(chosen.doubts)
    from headrace.stream.evaluation.evaluate import evaluate as run  # JAX takes seconds to import
    from headrace.stream.evaluation.plot import Curve, check_plot
    from headrace.stream.evaluation.trace import check_trace

    if plot:
        check_plot(plot)
    if trace:
        check_trace(trace)
    tune_memory()
    names = told_apart(chosen.task.name, task, compare)
    stop = Stop(begun=False)
    with bar(
        "evaluating",
        rows.rows,
        quiet=as_json,
        estimated=not rows.exact,
        first_note="compiling…",
    ) as update:
        found = run(
            chosen.task,
            input,
            limit=limit,
            other=other,
            trace=trace,
            curve=Curve() if plot else None,
            label_delay=label_delay,
            names=names,
            on_progress=_shown(chosen.task, update, stop),
            stop=stop,
        )
    if plot:
        found.plot(plot, source=called(input))
    if stop():
        note(f"interrupted after {found.events:,} rows{rows}: what follows is of these")
        if trace:
            note(visible(f"--trace {trace}: not written, as not every row has its line", keep=""))
    tell_found(found, names, as_json=as_json)
    if stop():
        raise typer.Exit(INTERRUPTED)
    if strict:
        refuse_doubts(found.told_rows())


def _shown(
    task: Task, update: Callable[..., None], stop: Stop
) -> Callable[[int, Callable[[], dict[str, Any]]], None]:
    """Return what moves a bar as rows are learned, from when on there is something to tell."""
    metric = "accuracy" if task.spec.classes else "mae"

    def on_progress(events: int, report: Callable[[], dict[str, Any]]) -> None:
        stop.begin()
        update(events, lambda: f"{metric} {shown(report()['all'][metric])}")

    return on_progress


def check(
    task: TaskFile,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="Read rows of this file, too, as `evaluate` does; once for each.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Say in words what a task will do, or which key is wrong and what was expected.

    With a file: which of its first rows are refused, and why, and which columns
    must not be learned from: leaks of the target, constants, copies, ids. Exit
    code 1 if nothing would be learned.
    """
    loaded = load_task(task)
    from headrace.stream.evaluation.explain import explain  # JAX takes seconds to import

    for line in explain(loaded):
        say(visible(line, keep=""))
    if input:
        from headrace.stream.evaluation.inspection import inspect_file
        from headrace.stream.rows.refusals import literals_told

        seen = inspect_file(loaded, input)
        for line in (*seen.lines(), *literals_told(seen.non_finite)):
            say(visible(line, keep=""))
        seen.check()


def schema() -> None:
    """Print the JSON Schema of the task file."""
    from headrace.stream.task import Task

    say(json.dumps(Task.model_json_schema(), indent=2))


def _note_all(lines: Iterable[str]) -> None:
    for line in lines:
        note(visible(line, keep=""))
