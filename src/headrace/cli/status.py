"""The command that says whether a service needs a person: status."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    TaskFile,
    connection_of,
    load_task,
    score_table,
)
from headrace.stream.evaluation.scores import counted
from headrace.stream.process.terminal import say

if TYPE_CHECKING:
    from headrace.stream.service.status import Status

MOST = 8  # partitions and codes that are told


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(status)


def status(
    task: TaskFile,
    refused: Annotated[
        float,
        typer.Option(help="Share of the last events that may be refused.", min=0.0, max=1.0),
    ] = 0.05,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Say on one screen how a service stands; exit code 1 if it needs a person.

    From its topics alone, wherever it runs. It needs one if events wait and no learner gives a
    sign, if lag grows, a partition stands still, no checkpoint is written, too many events are
    refused, or late labels stopped coming.
    """
    from headrace.stream.service.status import look

    found = look(
        load_task(task),
        connection_of(bootstrap, kafka_config),
        now_ms=time.time_ns() // 1_000_000,
        most_refused=refused,
    )
    if as_json:
        say(found.as_json())
    else:
        for line in _lines(found):
            say(line)
        if found.metrics:
            say("")
            score_table({"headrace": found.metrics} | found.metrics["baselines"])
    if found.troubles:
        raise typer.Exit(1)


def _lines(found: Status) -> Iterator[str]:
    """Tell a person."""
    from headrace.stream.service.status import spell

    yield f"{found.task}: {'needs you' if found.troubles else 'ok'}"
    for trouble in found.troubles:
        told = f"! {trouble.code}: {trouble.told}"
        yield from textwrap.wrap(told, 79, subsequent_indent="  ")
    metrics, age_s = found.metrics, found.age_s
    if metrics is None or age_s is None:
        return
    yield (
        f"learned     {counted(metrics['events'], 'event')}, {metrics['learned']:,} labels; "
        f"{metrics['events_per_second']:,.0f} events/s, {spell(age_s)} ago"
    )
    behind = [f"{p}: {count:,}" for p, count in found.waiting.items() if count]
    yield f"waiting     {_some(behind) or 'nothing'}" + (" (by partition)" if behind else "")
    saved_s = metrics["checkpoint_age_s"]
    yield f"checkpoint  {'none yet' if saved_s is None else f'{spell(saved_s + age_s)} old'}"
    if labels := metrics.get("labels"):
        delays = {name[:-3]: value for name, value in labels["delay"].items() if value is not None}
        after = ", ".join(f"{name} {spell(value / 1000)}" for name, value in delays.items())
        yield f"labels      {labels['pending']:,} events wait for one; delay {after or 'unknown'}"
    refused = [f"{code} {count:,}" for code, count in found.refused.items()]
    yield (
        f"refused     {metrics['rejected'] + metrics['repeated']:,}"
        + (f"; newest: {_some(refused)}" if refused else "")
    )
    if alarm := found.alarm:
        told = f"{alarm['kind']} at event {alarm['id']}"
        if "detector" in alarm:
            told += f": {alarm['detector']}, error {alarm['before']:.3g} to {alarm['after']:.3g}"
        yield f"drift       {told}"


def _some(told: list[str]) -> str:
    more = [f"{len(told) - MOST:,} more"] if len(told) > MOST else []
    return ", ".join([*told[:MOST], *more])
