"""Commands that need no Kafka: check, schema, infer, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from headrace.cli.findings import tell_found
from headrace.cli.running import INTERRUPTED
from headrace.stream.errors import HeadraceError, UsageError
from headrace.stream.evaluation.scores import shown
from headrace.stream.process.terminal import as_toml, note, say, visible

if TYPE_CHECKING:
    from headrace.stream.task import Task

Kind = Annotated[
    Literal["classify", "regress"] | None, typer.Option(help="Default: from the target's values.")
]
Target = Annotated[str | None, typer.Option(help="The column to predict.", metavar="COLUMN")]
Drop = Annotated[str, typer.Option(help="Columns to leave out.", metavar="A,B")]
Time = Annotated[str | None, typer.Option(help="The column with event time.", metavar="COLUMN")]
Entity = Annotated[
    str | None,
    typer.Option(help="The column with the entity that lags belong to.", metavar="COLUMN"),
]
MaxClasses = Annotated[
    int | None,
    typer.Option(help="Most classes that the target may have; default: 50.", min=2, max=1000),
]
_GONE = "-> not there"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (infer, evaluate, check, schema):
        app.command()(command)


def infer(
    source: Annotated[
        list[str],
        typer.Argument(help="Files (- is standard input), or a topic.", metavar="FILE...|TOPIC"),
    ],
    target: Annotated[str, typer.Option(help="The column to predict.", metavar="COLUMN")],
    kind: Kind = None,
    drop: Drop = "",
    time: Time = None,
    entity: Entity = None,
    max_classes: MaxClasses = None,
    decimal: Annotated[
        Literal[".", ","] | None,
        typer.Option(help="The decimal mark, where texts do not show which it is."),
    ] = None,
    dayfirst: Annotated[
        bool | None,
        typer.Option(
            "--dayfirst/--no-dayfirst",
            help="How dates such as 03/04/2026 are read; default: as they show it themselves.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if anything is left out, refused or not sure.")
    ] = False,
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

    options = guess.Options(kind, _names(drop), time, entity, decimal, dayfirst, max_classes)
    first = source[0]
    if len(source) > 1 or form_of(first) or names_files(first):
        found = guess.guess_file(source, target, options)
        for line in describe(source):
            note(visible(line, keep=""))
        seen = inspect_file(found.task, source)
    else:
        kafka = connection_of(bootstrap, kafka_config)
        found = guess.guess_topic(kafka, first, target, options)
        seen = inspect_topic(found.task, kafka)
    unsure = [*found.lines(), *seen.doubts()]
    note("\n".join([guess.describe(found.task), *found.lines()]))
    for line in seen.lines():
        note(visible(line, keep=""))
    if strict and unsure:
        lines = "1 line above says" if len(unsure) == 1 else f"{len(unsure)} lines above say"
        raise HeadraceError(f"--strict: {lines} what is left out, refused or not sure")
    say(as_toml(found.to_toml().rstrip()))


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
    kind: Kind = None,
    drop: Drop = "",
    time: Time = None,
    entity: Entity = None,
    max_classes: MaxClasses = None,
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
            help="Learn the rows with this task file too, and compare row by row.",
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
    they hold in the limit of many rows; of few they say nothing.)

    --plot draws accuracy, or the mean absolute error, in a fading window, with
    its baselines, each drift alarm, and what the members of the pool weigh; with
    --compare both tasks, and the difference between its bounds. HTML needs no
    network.

    --trace writes a line for each row of the file: offset, id, time, prediction,
    probabilities (or low and high), label, whether the label was scored, whose
    prediction it answers, and the code if the row was refused. The file appears
    whole, at the end, or not at all.

        headrace evaluate --input power.csv --target price

        headrace evaluate power.toml -i power.csv --plot power.html

        headrace evaluate power.toml -i power.csv --compare wider.toml --json

        headrace evaluate power.toml -i power.csv --trace power.parquet
    """
    if not input:
        raise UsageError("--input: missing; name a file, such as of CSV, JSON or Parquet")
    other = load_task(compare) if compare else None
    options: dict[str, Any] = {
        "kind": kind,
        "max_classes": max_classes,
        "drop": _names(drop),
        "time": time,
        "entity": entity,
    }
    if task is not None:
        loaded = _overridden(load_task(task), task, target, options)
    elif target is None:
        raise UsageError("--target: missing; name a task file, or the column to predict")
    else:
        from headrace.stream.evaluation import infer as guess

        inferred = guess.guess_file(input, target, guess.Options(**options))
        loaded = inferred.task
        if not as_json:
            note("\n".join([guess.describe(loaded), *inferred.lines()]))
    metric = "accuracy" if loaded.spec.classes else "mae"
    from headrace.stream.formats.files import about_rows, called, describe, total_rows
    from headrace.stream.process.garbage import tune_memory

    counted = total_rows(input)
    total = counted or about_rows(input)
    for line in [] if as_json else describe(input):
        note(visible(line, keep=""))
    from headrace.stream.evaluation.evaluate import evaluate as run  # JAX takes seconds to import
    from headrace.stream.evaluation.plot import Curve, check_plot
    from headrace.stream.evaluation.trace import check_trace

    if plot:
        check_plot(plot)
    if trace:
        check_trace(trace)
    tune_memory()
    curve = Curve() if plot else None
    names = _labels(loaded.name, task, compare)

    stop = Stop(begun=False)
    with bar(
        "evaluating",
        min(filter(None, (total, limit)), default=None),
        quiet=as_json,
        estimated=not counted and not (limit and limit < (total or 0)),
        first_note="compiling…",
    ) as update:

        def on_progress(events: int, report: Callable[[], dict[str, Any]]) -> None:
            stop.begin()  # from here on there is something to tell
            update(events, lambda: f"{metric} {shown(report()['all'][metric])}")

        found = run(
            loaded,
            input,
            limit=limit,
            other=other,
            trace=trace,
            curve=curve,
            label_delay=label_delay,
            names=names,
            on_progress=on_progress,
            stop=stop,
        )
    if plot:
        found.plot(plot, source=called(input))
    if stop():
        of = f" of {'' if counted else 'about '}{total:,}" if total else ""
        note(f"interrupted after {found.events:,} rows{of}: what follows is of these")
    tell_found(found, names, as_json=as_json)
    if stop():
        raise typer.Exit(INTERRUPTED)


def _overridden(loaded: Task, path: str, target: str | None, options: dict[str, Any]) -> Task:
    """Return a task with what options say otherwise, and note what that changes."""
    from headrace.stream.evaluation.overrides import override
    from headrace.stream.ledger.fingerprint import differences, settings_of

    changed = override(loaded, path, target=target, **options)
    for line in differences(settings_of(loaded), settings_of(changed)):
        key, _, values = line.partition(": ")
        told = "left out" if values.endswith(_GONE) else values
        note(visible(f"{path}, changed: {key}: {told}", keep=""))
    return changed


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

        seen = inspect_file(loaded, input)
        for line in seen.lines():
            say(visible(line, keep=""))
        seen.check()


def schema() -> None:
    """Print the JSON Schema of the task file."""
    from headrace.stream.task import Task

    say(json.dumps(Task.model_json_schema(), indent=2))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _labels(name: str, task: str | None, other: str | None) -> tuple[str, str]:
    """Name the two tasks as they are told apart best: by their files, where they stand."""
    if other is None:
        return "headrace", ""
    first, second = Path(task).stem if task else name, Path(other).stem
    if first == second:
        first, second = str(task or name), str(other)
    return first, second if first != second else f"{second}, again"
