"""Commands that need no Kafka: check, schema, infer, evaluate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    TaskFile,
    bar,
    connection_of,
    load_task,
    score_table,
    tell_comparison,
)
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.scores import shown
from headrace.stream.process.terminal import as_toml, note, say, visible

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
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
) -> None:
    """Write a task file to start from: column types are guessed from the first rows.

    Example: headrace infer power.csv --target price > power.toml
    """
    from headrace.stream.evaluation import infer as guess
    from headrace.stream.formats.files import describe, form_of, names_files

    options: dict[str, Any] = {"kind": kind, "drop": _names(drop), "time": time, "entity": entity}
    first = source[0]
    if len(source) > 1 or form_of(first) or names_files(first):
        found = guess.infer_file(source, target, **options)
        for line in describe(source):
            note(line)
    else:
        found = guess.infer_topic(connection_of(bootstrap, kafka_config), first, target, **options)
    note(guess.describe(found))
    say(as_toml(guess.to_toml(found).rstrip()))


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
    if task is not None:
        loaded = load_task(task)
    elif target is None:
        raise UsageError("--target: missing; name a task file, or the column to predict")
    else:
        from headrace.stream.evaluation import infer as guess

        loaded = guess.infer_file(
            input, target, kind=kind, drop=_names(drop), time=time, entity=entity
        )
        if not as_json:
            note(guess.describe(loaded))
    metric = "accuracy" if loaded.spec.classes else "mae"
    from headrace.stream.formats.files import describe, total_rows
    from headrace.stream.process.garbage import tune_memory

    total = total_rows(input)
    for line in [] if as_json else describe(input):
        note(line)
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

    with bar(
        "evaluating", min(filter(None, (total, limit)), default=None), quiet=as_json
    ) as update:

        def on_progress(events: int, report: Callable[[], dict[str, Any]]) -> None:
            update(events, lambda: f"{metric} {shown(report()['all'][metric])}")

        found = run(
            loaded,
            input,
            limit=limit,
            other=other,
            trace=trace,
            curve=curve,
            names=names,
            on_progress=on_progress,
        )
    if plot:
        found.plot(plot)
    if as_json:
        say(found.as_json())
        return
    if found.comparison:
        tell_comparison(names, found.metrics, found.comparison, found.baselines)
    else:
        score_table({"headrace": found.metrics} | found.baselines)
        _tell_rarest(found.per_class.get("all", {}))
    for line in found.told_further():
        say(line)
    _tell(found.as_json())


def check(task: TaskFile) -> None:
    """Say in words what a task will do, or which key is wrong and what was expected."""
    loaded = load_task(task)
    from headrace.stream.evaluation.explain import explain  # JAX takes seconds to import

    for line in explain(loaded):
        say(visible(line, keep=""))


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


def _done(steps: list[dict[str, Any]]) -> str:
    """Count what was done about drift."""
    counts = Counter(step["action"] for step in steps)
    told = ", ".join(f"{n} {action}{'s' if n > 1 else ''}" for action, n in counts.items())
    return f" ({told})" if told else ""


def _tell_rarest(classes: dict[str, dict[str, Any]]) -> None:
    """Print how the rarest class is found, if one label in ten at most is of it."""
    there = {name: line for name, line in classes.items() if line["support"] > 0}
    events = sum(line["support"] for line in there.values())
    name, line = min(there.items(), key=lambda each: each[1]["support"], default=("", {}))
    if len(there) < 2 or line["support"] > events / 10:
        return
    scores = ", ".join(f"{key} {shown(line[key])}" for key in ("recall", "precision", "f1"))
    area = line.get("pr_auc")
    more = f", pr_auc {shown(area)} (by chance {shown(line['support'] / events)})" if area else ""
    say(f"{visible(name)}, {line['support']:,.0f} of {events:,.0f}: {scores}{more}")


def _tell(found: dict[str, Any]) -> None:
    """Print for a person what became of the rows, and what it took."""
    codes = ", ".join(f"{code} {n}" for code, n in found["reject_codes"].items())
    say(
        f"{found['events']:,} events, {found['learned']:,} learned, {found['rejected']:,} rejected"
        f"{f' ({codes})' if codes else ''}, {len(found['drifts'])} drift alarms"
        f"{_done(found['ladder'])}; "
        f"{found['seconds']:.1f} s, {found['events_per_second']:,.0f} events/s, "
        f"{found['peak_rss_mb']:.0f} MB"
    )
