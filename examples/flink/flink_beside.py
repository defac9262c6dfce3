# /// script
# requires-python = ">=3.11,<3.12"
# dependencies = ["apache-flink==2.3.0", "setuptools<81"]
# ///
"""Flink beside headrace: send the events that a task learns, and read what it said of them.

    uv run flink_beside.py send events.json --topic events.text
    uv run flink_beside.py join --task spam --topic events.text --label label --to found.joined

`send` writes each line of a JSON file to a topic, in Flink's transactions: exactly once.

`join` puts each prediction beside its event's label, by the event's partition and offset, and
writes it to a topic, exactly once; records of transactions that were aborted are not read. It ends
at what is now the end of the topics, or with `--follow` never. The topics have to be there.
Begun again, a job begins again: Flink goes on only from a checkpoint or savepoint that it is given.

Needs Java 17, and the jar of Flink's SQL connector for Kafka:
org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

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
    join_parser.add_argument("--follow", action="store_true", help="never end")
    for each in (send_parser, join_parser):
        each.add_argument("--topic", required=True, help="topic of the events")
    options = parser.parse_args()
    settings = Configuration()
    for key, value in {
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


def send(tables: TableEnvironment, options: argparse.Namespace) -> None:
    """Write the lines of a JSON file to the topic."""
    path = options.file.resolve().as_uri()
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
    tables.execute_sql(
        f"INSERT INTO joined SELECT p.id, p.prediction, e.`{options.label}`, p.step, "  # noqa: S608
        "p.`partition`, p.`offset` FROM predictions AS p JOIN events AS e "
        "ON p.`partition` = e.`partition` AND p.`offset` = e.`offset`"
    ).wait()
    _read(tables, options, "metrics", f"{options.task}.metrics", METRICS)
    with tables.execute_sql("SELECT time_ms, events, `all` FROM metrics").collect() as found:
        for time_ms, events, scores in found:
            print(f"{time_ms} {events:>12,} events  {scores}")


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
