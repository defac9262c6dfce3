# /// script
# requires-python = ">=3.11"
# dependencies = ["pyspark==4.2.0"]
# ///
"""Spark beside headrace: send the events that a task learns, and read what it said of them.

    uv run spark_beside.py send events/ --topic events.text
    uv run spark_beside.py join --task spam --topic events.text --label label --to found/

`send` writes each line of the JSON files in a folder to a topic, those once that are there, and the
next time the new ones. Spark's Kafka sink may write one twice after a failure: headrace refuses an
id that came before.

`join` puts each prediction beside its event's label, by the event's partition and offset, and
copies the metrics; into Parquet, each once however often it is run: Spark's checkpoint says how far
it is, and records of transactions that were aborted are not read.

Needs Java 17. Kafka's connector comes from Maven, or from `--jars a.jar,b.jar`.
"""

from __future__ import annotations

import argparse

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import StringType, StructType

CONNECTOR = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"
PREDICTION = "id STRING, prediction STRING, step BIGINT, partition INT, offset BIGINT"
METRICS = "time_ms BIGINT, events BIGINT, `all` MAP<STRING, STRING>"


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description="Spark beside headrace.")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's address")
    parser.add_argument("--jars", help="Kafka's connector, where Maven is not asked for it")
    commands = parser.add_subparsers(dest="command", required=True)
    send_parser = commands.add_parser("send", help="write JSON files to a topic")
    send_parser.add_argument("folder")
    join_parser = commands.add_parser("join", help="put predictions beside labels")
    join_parser.add_argument("--task", required=True, help="the task's name")
    join_parser.add_argument("--label", required=True, help="the field with the label")
    join_parser.add_argument("--to", required=True, help="folder of the Parquet files")
    join_parser.add_argument(
        "--within", default="7 days", help="most time between an event and its prediction"
    )
    for each in (send_parser, join_parser):
        each.add_argument("--topic", required=True, help="topic of the events")
    options = parser.parse_args()
    connector = ("spark.jars", options.jars) if options.jars else ("spark.jars.packages", CONNECTOR)
    spark = (
        SparkSession.builder.master("local[2]")
        .config(*connector)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    if options.command == "send":
        send(spark, options)
    else:
        join(spark, options)


def send(spark: SparkSession, options: argparse.Namespace) -> None:
    """Write the lines of JSON files to the topic."""
    lines = spark.readStream.text(options.folder)
    query = (
        lines.writeStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap)
        .option("topic", options.topic)
        .option("checkpointLocation", f"{options.folder.rstrip('/')}.sent")
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


def join(spark: SparkSession, options: argparse.Namespace) -> None:
    """Write each prediction beside its label to `joined`, and the metrics to `metrics`."""
    label = StructType().add(options.label, StringType())
    events = _read(spark, options, options.topic).select(
        f.col("partition").alias("of_partition"),
        f.col("offset").alias("of_offset"),
        f.col("timestamp").alias("sent"),
        f.from_json("value", label)[options.label].alias("label"),
    )
    said = _read(spark, options, f"{options.task}.predictions").select(
        f.from_json("value", PREDICTION).alias("said"), f.col("timestamp").alias("predicted")
    )
    events = events.withWatermark("sent", options.within)
    said = said.withWatermark("predicted", options.within)
    span = f.expr(f"INTERVAL {options.within}")
    joined = said.join(
        events,
        (f.col("said.partition") == f.col("of_partition"))
        & (f.col("said.offset") == f.col("of_offset"))
        & f.col("predicted").between(f.col("sent") - span, f.col("sent") + span),
    ).select(
        "said.id", "said.prediction", "label", "said.step", "said.partition", "said.offset",
        "sent", "predicted",
    )  # fmt: skip
    metrics = _read(spark, options, f"{options.task}.metrics").select(
        f.from_json("value", METRICS).alias("found")
    )
    for name, table in {"joined": joined, "metrics": metrics.select("found.*")}.items():
        query = (
            table.writeStream.format("parquet")
            .option("path", f"{options.to}/{name}")
            .option("checkpointLocation", f"{options.to}/.{name}")
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()


def _read(spark: SparkSession, options: argparse.Namespace, topic: str) -> DataFrame:
    """Read what was committed to a topic, from its beginning or from where the checkpoint is."""
    return (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("kafka.isolation.level", "read_committed")
        .load()
        .withColumn("value", f.col("value").cast("string"))
    )


if __name__ == "__main__":
    main()
