# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["pyspark==4.1.1"]
# ///
"""Print, as JSON, what Spark reads of a Delta and of an Iceberg table."""

from __future__ import annotations

import json
import sys

from pyspark.sql import SparkSession

DELTA = "org.apache.spark.sql.delta.catalog.DeltaCatalog"


def main(jars: str, delta: str, iceberg: str) -> None:
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.jars", jars)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config(
            "spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"
        )
        .getOrCreate()
    )
    told = {}
    for kind, place in (("delta", delta), ("iceberg", iceberg)):
        rows = spark.read.format(kind).load(place).orderBy("partition", "offset").collect()
        told[kind] = [
            [str(row.date), row.partition, row.offset, row.timestamp_ms]
            + [None if value is None else value.hex() for value in (row.key, row.value)]
            for row in rows
        ]
    spark.stop()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
