"""The command that audits: verify."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import (
    AsJson,
    Bootstrap,
    KafkaConfig,
    StartFrom,
    StateKey,
    TaskFile,
    bar,
    connection_of,
    load_task,
    read_key,
    read_start,
)
from headrace.stream.evaluation.scores import counted
from headrace.stream.process.terminal import say

if TYPE_CHECKING:
    from headrace.stream.audit.report import Audit


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(verify)


def verify(
    task: TaskFile,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Learn it all again from the beginning, and compare."),
    ] = False,
    archive: Annotated[
        str | None,
        typer.Option(help="With --deep: read raw events from there.", metavar="DIR|URL"),
    ] = None,
    start_from: StartFrom = None,
    state_key: StateKey = None,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Audit a service, running or stopped, from Kafka alone; exit code 8 if anything is wrong.

    The ledger is dense and chained, no offset is left out or taken twice, predictions are as many
    as the ledger says and the very bytes, alarms and dead letters are as many, metrics count what
    it does, no transaction hangs. With --deep every prediction and every announced state is
    computed again in this process, and must come out the same, and keys are those of the events.
    """
    from headrace.stream.archive.reader import ArchiveHistory
    from headrace.stream.audit.verify import verify as audit
    from headrace.stream.process.garbage import tune_memory

    loaded, kafka = load_task(task), connection_of(bootstrap, kafka_config)
    start = read_start(start_from, loaded, read_key(state_key))
    tune_memory()
    kept = closing(ArchiveHistory(archive, loaded.input.topic)) if archive else nullcontext()
    with kept as history, bar("verifying", None, quiet=as_json, unit="records") as update:

        def on_progress(what: str, done: int, total: int) -> None:
            update(done, what)

        found = audit(
            loaded, kafka, deep=deep, history=history, start=start, on_progress=on_progress
        )
    if as_json:
        say(found.as_json())
    else:
        for line in _lines(found):
            say(line)
    if not found.sound:
        raise typer.Exit(8)


def _lines(audit: Audit) -> Iterator[str]:
    """Tell a person."""
    counts = audit.counts
    yield (
        f"{counted(audit.records, 'record')} of {counted(audit.runs, 'run')}, "
        f"{counted(audit.epochs, 'start')}: {counted(counts.events, 'event')} predicted, "
        f"{counts.rejected:,} refused, {counted(counts.repeated, 'repeated id')}, "
        f"{counted(audit.absent, 'offset')} without a record"
    )
    yield f"{counts.duplicates:,} rows came twice and were dropped, {counts.healed:,} were healed"
    if truth := audit.truth:
        told = [f"{truth.scored - truth.implied:,} scored their event"]
        for count, what in (
            (truth.rescored, "scored it again"),
            (truth.relearned, "were learned instead of an earlier one"),
            (truth.repeated, "came again"),
            (truth.unasked, "answer no prediction"),
            (truth.refused, "refused"),
            (truth.held, "wait for their event"),
        ):
            told += [f"{count:,} {what}"] if count else []
        yield f"{counted(truth.labels, 'label')}: {', '.join(told)}"
        implied = f" ({truth.implied:,} of them as they expired)" if truth.implied else ""
        yield (
            f"{truth.scored:,} events are scored{implied}, {truth.expired:,} expired without a "
            f"label, {audit.pending:,} of the last run wait for theirs"
        )
    yield f"{audit.predictions:,} predictions are the bytes that the ledger says" + (
        f", {audit.expired:,} are gone by retention" if audit.expired else ""
    )
    if audit.state:
        yield (
            f"{audit.recomputed:,} events learned again from zero, {audit.checkpoints:,} announced "
            f"states equal; the state is {audit.state}"
        )
    yield from (f"WRONG  {finding}" for finding in audit.findings)
    rate = counts.events / max(audit.seconds, 1e-9)
    yield f"{'sound' if audit.sound else 'NOT SOUND'}; {audit.seconds:.1f} s, {rate:,.0f} events/s"
