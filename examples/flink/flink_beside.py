# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["apache-flink==2.3.0", "setuptools<81"]
# ///
"""Flink beside headrace: send the events that a task learns, and read what it said of them.

    uv run flink_beside.py send events.json --topic events.text
    uv run flink_beside.py join --task spam --topic events.text --label label --to found.joined
    uv run flink_beside.py join ... --follow state

`send` writes each line of a JSON file to a topic, in Flink's transactions: exactly once.

`join` puts each prediction beside its event's label, by the event's partition and offset, and
writes it to a topic, exactly once; records of transactions that were aborted are not read. It ends
at what is now the end of the topics, and begun again writes all of them again. The topics have to
be there.

With `--follow FOLDER` it goes on for ever, and over all runs with this folder each prediction is
written exactly once, in Flink's transactions. Ctrl-C or SIGTERM stops it with a savepoint in the
folder. The next run begins there; after a crash it begins at the last checkpoint, which is kept in
the folder, too.

Needs Java 17, and the jar of Flink's SQL connector for Kafka:
org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from pyflink.common import Configuration
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment, TableResult

PREDICTION = "`id` STRING, `prediction` STRING, `step` BIGINT, `partition` INT, `offset` BIGINT"
METRICS = "`time_ms` BIGINT, `events` BIGINT, `all` MAP<STRING, STRING>"


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description="Flink beside headrace.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's address")
    parser.add_argument("--jar", required=True, type=Path, help="Flink's connector for Kafka")
    commands = parser.add_subparsers(dest="command", required=True)
    send_parser = commands.add_parser("send", help="write a JSON file to a topic")
    send_parser.add_argument("file", type=Path)
    join_parser = commands.add_parser("join", help="put predictions beside labels")
    join_parser.add_argument("--task", required=True, help="the task's name")
    join_parser.add_argument("--label", required=True, help="the field with the label")
    join_parser.add_argument("--to", required=True, help="topic of what is joined")
    join_parser.add_argument(
        "--follow", type=Path, metavar="FOLDER", help="go on for ever; where the state is kept"
    )
    for each in (send_parser, join_parser):
        each.add_argument("--topic", required=True, help="topic of the events")
    options = parser.parse_args()
    follow = options.follow.resolve() if options.command == "join" and options.follow else None
    settings = Configuration()
    for key, value in {
        **(_kept(follow) if follow else {}),
        "pipeline.jars": options.jar.resolve().as_uri(),
        "python.executable": sys.executable,
        "parallelism.default": "1",
        "execution.checkpointing.interval": "2 s",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": "3",
    }.items():
        settings.set_string(key, value)
    tables = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(settings).build()
    )
    (send if options.command == "send" else join)(tables, options)


def _kept(folder: Path) -> dict[str, str]:
    """Return settings that keep checkpoints in a folder, and begin at the newest state there."""
    states = sorted(folder.glob("**/_metadata"), key=lambda file: file.stat().st_mtime_ns)
    return {
        "execution.checkpointing.dir": f"file://{folder}",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        **({"execution.state-recovery.path": f"file://{states[-1].parent}"} if states else {}),
    }


def send(tables: TableEnvironment, options: argparse.Namespace) -> None:
    """Write the lines of a JSON file to the topic."""
    path = f"file://{options.file.resolve()}"
    tables.execute_sql(
        f"CREATE TABLE lines (`line` STRING) WITH "
        f"('connector' = 'filesystem', 'path' = '{path}', 'format' = 'raw')"
    )
    _written(tables, options, "events", options.topic, "`line` STRING", "raw")
    tables.execute_sql("INSERT INTO events SELECT line FROM lines").wait()


def join(tables: TableEnvironment, options: argparse.Namespace) -> None:
    """Write each prediction beside its label, and show the metrics."""
    _read(
        tables,
        options,
        "events",
        options.topic,
        f"`{options.label}` STRING, `partition` INT METADATA VIRTUAL, "
        "`offset` BIGINT METADATA VIRTUAL",
    )
    _read(tables, options, "predictions", f"{options.task}.predictions", PREDICTION)
    _written(
        tables,
        options,
        "joined",
        options.to,
        "`id` STRING, `prediction` STRING, `label` STRING, `step` BIGINT, `partition` INT, "
        "`offset` BIGINT",
        "json",
    )
    job = tables.execute_sql(
        f"INSERT INTO joined SELECT p.id, p.prediction, e.`{options.label}`, p.step, "  # noqa: S608
        "p.`partition`, p.`offset` FROM predictions AS p JOIN events AS e "
        "ON p.`partition` = e.`partition` AND p.`offset` = e.`offset`"
    )
    if options.follow:
        _stop_with_savepoint(job, options.follow.resolve())
        return
    job.wait()
    _read(tables, options, "metrics", f"{options.task}.metrics", METRICS)
    with tables.execute_sql("SELECT time_ms, events, `all` FROM metrics").collect() as found:
        for time_ms, events, scores in found:
            print(f"{time_ms} {events:>12,} events  {scores}")


def _stop_with_savepoint(job: TableResult, folder: Path) -> None:
    """Wait for a signal, then stop a job with a savepoint in a folder; or for it to fail."""
    asked, client = threading.Event(), job.get_job_client()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(1.0):
        if client.get_job_status().result().name == "FAILED":
            client.get_job_execution_result().result()  # raises why
    # As JobClient.stop_with_savepoint, which in 2.3.0 calls what Java does not have any more.
    forms = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType
    stopped = client._j_job_client.stopWithSavepoint(False, f"file://{folder}", forms.CANONICAL)
    print("stopped with", stopped.get())


def _read(
    tables: TableEnvironment, options: argparse.Namespace, name: str, topic: str, columns: str
) -> None:
    """Declare a topic of JSON that is read from its beginning; what is no JSON is left out."""
    bounded = "" if options.follow else "'scan.bounded.mode' = 'latest-offset', "
    tables.execute_sql(
        f"CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', "
        f"'properties.bootstrap.servers' = '{options.bootstrap}', {bounded}"
        "'properties.isolation.level' = 'read_committed', 'scan.startup.mode' = "
        "'earliest-offset', 'format' = 'json', 'json.ignore-parse-errors' = 'true')"
    )


def _written(
    tables: TableEnvironment,
    options: argparse.Namespace,
    name: str,
    topic: str,
    columns: str,
    form: str,
) -> None:
    """Declare a topic that is written in transactions."""
    tables.execute_sql(
        f"CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', "
        f"'properties.bootstrap.servers' = '{options.bootstrap}', 'format' = '{form}', "
        f"'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{topic}', "
        "'properties.transaction.timeout.ms' = '600000')"
    )


if __name__ == "__main__":
    main()
