"""The commands `archive` and `table`: keep a topic for longer than Kafka does, and as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.console import AsJson, Bootstrap, KafkaConfig, Stop, bar, connection_of
from headrace.stream.errors import UsageError
from headrace.stream.evaluation.scores import counted
from headrace.stream.process.terminal import say

if TYPE_CHECKING:
    from headrace.stream.archive.tables import ArchiveTable


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(no_args_is_help=True)(archive)
    app.command(no_args_is_help=True)(table)


def archive(
    topic: Annotated[str, typer.Argument(help="The topic to keep.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="A directory, or a URL such as s3://bucket/path (needs the extra s3).",
            metavar="PLACE",
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Most records of a file.", min=1)] = 250_000,
    every: Annotated[
        float,
        typer.Option(help="With --follow: seconds after which a file is written.", min=0.1),
    ] = 60.0,
    bootstrap: Bootstrap = None,
    kafka_config: KafkaConfig = None,
    as_json: AsJson = False,
) -> None:
    """Keep a topic as Parquet files by day, so that Kafka's retention does not end its history.

    Each record stands there once, with its partition, offset, timestamp, key and
    value as they were. Run it as often as you like: it goes on where the files
    end, also after it was killed. Without --follow it stops at what is now the
    end of the topic. Run it more often than records expire: where Kafka has
    removed what the archive lacks, it stops and says so.

        headrace archive events.sensor --to s3://history/kafka --follow

    Any tool that knows Parquet can read the files, DuckDB for instance:

        SELECT * FROM 's3://history/kafka/events.sensor/*/*.parquet'
    """
    from headrace.stream.archive import writer as archives
    from headrace.stream.process.garbage import tune_memory

    kafka, stop = connection_of(bootstrap, kafka_config), Stop()
    tune_memory()
    with bar("archiving", None, quiet=as_json, unit="records") as update:
        done = archives.archive(
            kafka,
            topic,
            to,
            follow=follow,
            rows_per_file=rows,
            every_s=every,
            stop=stop,
            on_progress=lambda read, waiting: update(read, f"records, {waiting:,} wait"),
        )
    ends = ", ".join(f"{p}: {end:,}" for p, end in sorted(done.ends.items()))
    say(
        asdict(done)
        if as_json
        else f"{counted(done.records, 'record')} in {counted(done.files, 'new file')}, "
        f"{counted(done.size_bytes, 'byte')}; "
        f"{topic} is kept in {to} up to offset {ends or 'nothing yet'}"
    )


def table(
    topic: Annotated[str, typer.Argument(help="The topic that was archived.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Where `headrace archive` writes: a directory or a URL.", metavar="PLACE"
        ),
    ],
    delta: Annotated[
        str | None,
        typer.Option(
            help="A Delta table: a directory, or a URL such as s3://bucket/path (extra delta).",
            metavar="PLACE",
        ),
    ] = None,
    iceberg: Annotated[
        str | None,
        typer.Option(
            help="An Iceberg table: a directory, with a catalog in SQLite (extra iceberg).",
            metavar="PLACE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add what was archived of a topic to a Delta or an Iceberg table.

    The table gets the columns of the archive's files, and their date, by which
    it is partitioned. Run it as often as you like: the table itself says up to
    which offset it holds each partition, in the same commit as the records, so
    that none is doubled or lost, also after it was killed or run twice at once.

        headrace table events.sensor --from s3://history/kafka --delta s3://tables/sensor
    """
    from headrace.stream.archive.tables import export
    from headrace.stream.process.garbage import tune_memory

    found, stop = _table_at(topic, delta, iceberg), Stop()
    tune_memory()
    with bar("exporting", None, quiet=as_json, unit="records") as update:
        done = export(
            source,
            topic,
            found,
            stop=stop,
            on_progress=lambda records: update(records, "records"),
        )
    ends = ", ".join(f"{p}: {end:,}" for p, end in sorted(done.ends.items()))
    say(
        asdict(done)
        if as_json
        else f"{counted(done.records, 'record')} in {counted(done.commits, 'commit')}; "
        f"{delta or iceberg} holds "
        f"{topic} up to offset {ends or 'nothing yet'}"
    )


def _table_at(topic: str, delta: str | None, iceberg: str | None) -> ArchiveTable:
    from headrace.stream.archive.delta import DeltaArchive
    from headrace.stream.archive.iceberg import IcebergArchive

    if delta and not iceberg:
        return DeltaArchive(delta, topic)
    if iceberg and not delta:
        return IcebergArchive(iceberg, topic)
    raise UsageError("expected either --delta PLACE or --iceberg PLACE")
