"""Spark and Flink beside a learner, as in `examples/`, and Spark on tables of archives: real ones,
in environments of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import headrace
from headrace.stream.archive.delta import DeltaArchive
from headrace.stream.archive.iceberg import IcebergArchive
from headrace.stream.archive.tables import export
from headrace.stream.audit.verify import verify
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.kafka.topics import ensure
from tests.support.archives import Record, end_threads_of_pyiceberg, write_segment
from tests.support.events import good, task_text
from tests.support.maven import ensure_jar
from tests.support.topics import read

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # installing them takes minutes

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = "\n[model]\nhidden = [4]\nneighbours = 10\n"
JARS = {
    "spark": [
        (
            "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",
            "64539c45e5d39f7ddb747312c239f38f5208d08c1a0ddf7d70beb2fbd9373705",
        ),
        (
            "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.2.0",
            "641c7947afc8aa1189e433b7c2d305293993c8691bc1c2062d6d4f513b12518c",
        ),
        (
            "org.apache.kafka:kafka-clients:3.9.2",
            "014b4ef36884478a932641818b080c36a8f8e2e92dc771e800c9d2694f4f83d8",
        ),
        (
            "org.apache.commons:commons-pool2:2.12.1",
            "5273c8bc8c0dca2211175c0d27efbd7228efae99689aac001a8e1ef8e872e9ef",
        ),
    ],
    "flink": [
        (
            "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
            "5605c691d11a501382c383fecba37a7a552467da5ab7ba904ef5d6f3d62c5616",
        ),
    ],
    "tables": [
        (
            "io.delta:delta-spark_4.1_2.13:4.1.0",
            "9b05d7a82196ee1f1073733a45a2faae59161e52b86ae918fe6742fad6eaf036",
        ),
        (
            "io.delta:delta-storage:4.1.0",
            "6d0520ffcc35b582369f92c23fa24e14a5bb935cf6e31ed7f47c5046ae17cb25",
        ),
        (
            "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0",
            "d6ea6c5d099288daeb7d5a92061bd3d7d8f296492632b42378e5f2f0e3066242",
        ),
    ],
}  # connectors to Kafka, and to tables, and their sha256
Example = Callable[..., str]
Started = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


@pytest.fixture(scope="module")
def java() -> str:
    """Return the home of a Java 17 or 21, which both need; Kafka's own here is newer."""
    candidates = [os.environ.get("JAVA_HOME"), *map(str, Path("/usr/lib/jvm").glob("*"))]
    on_path = shutil.which("java")
    candidates += [str(Path(on_path).resolve().parents[1])] if on_path else []
    for home in filter(None, candidates):
        program = Path(home) / "bin/java"
        if program.exists():
            done = subprocess.run([program, "-version"], capture_output=True, text=True)
            if re.search(r'version "(17|21)\b', done.stderr):
                return home
    pytest.skip("NOT RUN: no Java 17 or 21")


def jars(engine: str) -> list[str]:
    """Return an engine's jars; fetch those that are not there."""
    return [str(ensure_jar(engine, coordinates, sha256)) for coordinates, sha256 in JARS[engine]]


def command(kafka: KafkaConnection, java: str, engine: str, *arguments: str) -> dict[str, Any]:
    """Return how to call an example's script with `uv run`, as its first lines say."""
    given = {"spark": ["--jars", ",".join(jars("spark"))], "flink": ["--jar", *jars("flink")]}
    script = EXAMPLES / engine / f"{engine}_beside.py"
    called = ["uv", "run", "--quiet", "--script", str(script)]
    called += ["--bootstrap", kafka.servers, *given[engine], *arguments]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {"args": called, "env": env | {"JAVA_HOME": java}, "text": True}


@pytest.fixture
def example(kafka: KafkaConnection, java: str) -> Example:
    """Return what runs an example's script."""

    def run(engine: str, *arguments: str) -> str:
        done = subprocess.run(**command(kafka, java, engine, *arguments), capture_output=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return str(done.stdout)

    return run


@pytest.fixture
def started(kafka: KafkaConnection, java: str, tmp_path: Path) -> Started:
    """Return what starts an example's script, and kills it and its children at the end."""

    @contextmanager
    def start(engine: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with (tmp_path / "printed").open("a") as printed:
            child = subprocess.Popen(
                **command(kafka, java, engine, *arguments),
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    return start


def test_spark_reads_tables_of_archives(java: str, tmp_path: Path) -> None:
    """Spark's own Delta and Iceberg, of what was written in several commits."""
    archive, topic = tmp_path / "archive", "events.spark"
    delta, iceberg = tmp_path / "delta", tmp_path / "iceberg"
    wanted = []
    for part, day in enumerate(("2026-03-05", "2026-03-06")):
        records = [
            Record(0, at, 1000 + at, b"k" if at % 2 else None, None if at % 5 == 0 else good(at))
            for at in range(part * 50, part * 50 + 50)
        ]
        write_segment(archive, topic, records, part * 50 + 50, day)
        for table in (DeltaArchive(str(delta), topic), IcebergArchive(str(iceberg), topic)):
            assert export(str(archive), topic, table).records == 50
        wanted += [
            [day, *each[:3], *(None if v is None else v.hex() for v in each[3:])]
            for each in records
        ]
    end_threads_of_pyiceberg()
    with closing(sqlite3.connect(iceberg / "catalog.db")) as catalog:
        (metadata,) = catalog.execute("SELECT metadata_location FROM iceberg_tables")
    script = Path(__file__).parent / "frameworks/spark_tables.py"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["uv", "run", "--quiet", "--script", script, ",".join(jars("tables")), delta, metadata[0]],
        capture_output=True,
        text=True,
        env=env | {"JAVA_HOME": java},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"delta": wanted, "iceberg": wanted}


class Task:
    """Hold a task, its topics, and its learner's state."""

    def __init__(self, kafka: KafkaConnection, home: Path, name: str) -> None:
        text = task_text(name) + SMALL
        self.task = headrace.Task.load(_written(home / "task.toml", text))
        self.kafka, self.home, self.events = kafka, home, list[bytes]()
        ensure(kafka, topic_specs(self.task))

    def learn(self) -> None:
        headrace.Service(self.task, self.kafka, state=self.home / "state").run(drain=True)

    def abort(self) -> None:
        """Leave a prediction that was never committed."""
        topic = self.task.output("predictions")
        writer = Producer(self.kafka.confluent() | {"transactional.id": f"{topic}.aborted"})
        writer.init_transactions()
        writer.begin_transaction()
        first = read(self.kafka, topic)[0]
        writer.produce(topic, json.dumps(first | {"prediction": "forged"}).encode())
        writer.flush()
        writer.abort_transaction()

    def expected(self) -> list[tuple[int, Any, Any]]:
        """Return offset, prediction and label, as kafka-python reads them."""
        said = read(self.kafka, self.task.output("predictions"))
        raw = {at: json.loads(event) for at, event in enumerate(self.events)}
        return [(each["offset"], each["prediction"], raw[each["offset"]]["label"]) for each in said]


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def events(first: int, last: int) -> list[bytes]:
    return [good(number) for number in range(first, last)]


def test_spark_sends_and_joins_each_once(
    kafka: KafkaConnection, example: Example, tmp_path: Path
) -> None:
    made = Task(kafka, tmp_path, "beside-spark")
    folder, to = tmp_path / "events", tmp_path / "found"
    folder.mkdir()
    topic = made.task.input.topic
    for part, (first, last) in enumerate([(0, 60), (60, 100)]):
        (folder / f"{part}.json").write_bytes(b"\n".join(events(first, last)) + b"\n")
        made.events += events(first, last)
        example("spark", "send", str(folder), "--topic", topic)
        made.learn()
        made.abort()
        said = ("--task", made.task.name, "--topic", topic, "--label", "label", "--to", str(to))
        for _ in range(2 - part):  # once more finds nothing new
            example("spark", "join", *said)
        rows = ds.dataset(to / "joined", format="parquet").to_table().to_pylist()
        found = sorted((row["offset"], row["prediction"], row["label"]) for row in rows)
        assert found == made.expected()
        assert len(found) == last
    metrics = ds.dataset(to / "metrics", format="parquet").to_table().to_pylist()
    published = read(kafka, made.task.output("metrics"))
    assert [row["events"] for row in metrics] == [each["events"] for each in published]
    assert verify(made.task, kafka, deep=True).findings == []


def test_flink_sends_and_joins_each_once(
    kafka: KafkaConnection, topic: Callable[..., str], example: Example, tmp_path: Path
) -> None:
    made = Task(kafka, tmp_path, "beside-flink")
    raw, to = made.task.input.topic, topic("joined")
    file = tmp_path / "events.json"
    file.write_bytes(b"\n".join(events(0, 60)) + b"\n")
    made.events += events(0, 60)
    example("flink", "send", str(file), "--topic", raw)
    assert [json.dumps(each) for each in read(kafka, raw)] == [
        json.dumps(json.loads(event)) for event in made.events
    ]
    made.learn()
    made.abort()
    shown = example(
        *("flink", "join", "--task", made.task.name, "--topic", raw),
        *("--label", "label", "--to", to),
    )
    found = [(row["offset"], row["prediction"], row["label"]) for row in read(kafka, to)]
    assert sorted(found) == made.expected()
    assert "accuracy" in shown
    assert verify(made.task, kafka, deep=True).findings == []


def test_flink_goes_on_from_a_savepoint_and_after_a_crash(
    kafka: KafkaConnection, topic: Callable[..., str], started: Started, tmp_path: Path
) -> None:
    """Over three runs: each prediction once, in the order in which it was made."""
    made = Task(kafka, tmp_path, "beside-flink-following")
    raw, to, state = made.task.input.topic, topic("joined"), tmp_path / "state of flink"
    join = ("flink", "join", "--task", made.task.name, "--topic", raw, "--label", "label")

    def learn(count: int) -> None:
        new = events(len(made.events), len(made.events) + count)
        with closing(Producer(kafka.confluent())) as producer:
            for event in new:
                producer.produce(raw, event)
        made.events += new
        made.learn()

    def joined() -> list[tuple[int, Any, Any]]:
        return [(row["offset"], row["prediction"], row["label"]) for row in read(kafka, to)]

    settings = {"group.id": to, "isolation.level": "read_committed"}
    witness, seen = Consumer(kafka.confluent() | settings), 0
    witness.assign([TopicPartition(to, 0, 0)])
    for number, end in enumerate(("savepoint", "kill -9", "savepoint")):
        learn(40)
        made.abort()
        with started(*join, "--to", to, "--follow", str(state)) as child:
            for more in (0, 30):
                if more:
                    learn(more)
                while child.poll() is None and seen < len(made.events):
                    seen += len(witness.consume(100, 1.0))
                assert child.poll() is None, (tmp_path / "printed").read_text()[-3000:]
            if end == "savepoint":
                child.terminate()
                assert child.wait(300) == 0, (tmp_path / "printed").read_text()[-3000:]
        assert joined() == made.expected(), f"in run {number}"
    witness.close()
    assert (tmp_path / "printed").read_text().count("stopped with") == 2
    assert len(made.events) == 210
