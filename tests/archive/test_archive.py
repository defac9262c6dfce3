from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer

from headrace.stream.archive import writer as archives
from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.archive.writer import archive
from headrace.stream.errors import HeadraceError, HistoryError, RecoveryError, TopicError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import History, Range
from headrace.stream.storage.local import LocalStore
from tests.support.topics import make_again

MakeTopic = Callable[..., str]
Row = tuple[int, int, int, bytes | None, bytes | None]  # as the columns of the files
DAY_MS = 86_400_000
MIDNIGHT_MS = 1_772_668_800_000  # 2026-03-05


def send(
    kafka: KafkaConnection,
    topic: str,
    records: Sequence[tuple[int, int, bytes | None, bytes | None]],
) -> None:
    """Write (partition, timestamp_ms, key, value)."""
    from kafka import KafkaProducer

    with closing(KafkaProducer(bootstrap_servers=kafka.servers)) as producer:
        for partition, time_ms, key, value in records:
            producer.send(topic, value, key=key, partition=partition, timestamp_ms=time_ms)
        producer.flush()


@pytest.fixture
def lasting(topic: MakeTopic) -> MakeTopic:
    """Make topics that keep old records, which Kafka would else remove within the test."""
    return partial(topic, retention_ms=-1)


def simple(count: int, partitions: int = 1) -> list[tuple[int, int, bytes | None, bytes | None]]:
    return [(i % partitions, MIDNIGHT_MS + i, None, b'{"id":%d}' % i) for i in range(count)]


def in_kafka(kafka: KafkaConnection, topic: str) -> list[Row]:
    """Read the committed records with the other client."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=kafka.servers, isolation_level="read_committed", enable_auto_commit=False
    )
    with closing(consumer):
        parts = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends, rows = consumer.end_offsets(parts), []
        while any(consumer.position(part) < ends[part] for part in parts):
            for batch in consumer.poll(timeout_ms=500).values():
                rows += [(r.partition, r.offset, r.timestamp, r.key, r.value) for r in batch]
    return sorted(rows, key=lambda row: row[:2])


def files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.parquet"), key=lambda path: path.name)


def in_files(place: Path) -> list[Row]:
    """Read the files as anybody's tool would, and check that each is what its name says."""
    rows: list[Row] = []
    ends: dict[int, int] = {}
    for path in files(place):
        partition, start, stop = map(int, path.stem.split("-"))
        assert ends.get(partition, start) == start
        ends[partition] = stop
        table = pq.ParquetFile(path).read()
        found = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        assert found, path
        assert all(row[0] == partition and start <= row[1] < stop for row in found)
        day = datetime.fromtimestamp(max(found[0][2], 0) / 1000, UTC).date().isoformat()
        assert path.parent.name == f"date={day}"
        rows += found
    return rows


def given_again(history: History, ranges: Sequence[Range]) -> list[Row]:
    got = history.read(ranges)
    columns = (got.partitions, got.offsets, got.timestamps_ms, got.keys, got.values)
    return list(zip(*columns, strict=True))


def left_over(place: Path) -> list[Path]:
    return [
        p for p in place.rglob("*") if p.is_file() and p.suffix != ".parquet" and p.name != "lock"
    ]


def test_the_archive_is_the_topic_byte_for_byte(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name, chosen = lasting(partitions=3), random.Random(11)
    send(
        kafka,
        name,
        [
            (
                chosen.randrange(3),
                MIDNIGHT_MS + i * DAY_MS // 1000 + chosen.choice([0, 0, -60_000]),
                *chosen.choice([(None, b""), (b"", None), (chosen.randbytes(8), None)]),
            )
            if i % 5 == 0
            else (
                chosen.randrange(3),
                MIDNIGHT_MS + i * DAY_MS // 1000,
                chosen.choice([None, b"", chosen.randbytes(8)]),
                chosen.choice([b"", chosen.randbytes(300), b'{"x":1}', b"PAR1\x00\xff"]),
            )
            for i in range(3_000)
        ],
    )
    with closing(Producer({"bootstrap.servers": kafka.servers})) as producer:
        producer.produce(name, None, None, 1)  # kafka-python refuses to send nothing at all
    done = archive(kafka, name, str(tmp_path), rows_per_file=300)
    truth = in_kafka(kafka, name)
    assert in_files(tmp_path) == truth
    assert len(truth) == done.records == 3_001
    assert done.files == len(files(tmp_path)) and done.size_bytes == sum(
        path.stat().st_size for path in files(tmp_path)
    )
    assert max(pq.read_metadata(path).num_rows for path in files(tmp_path)) == 300
    assert len({path.parent.name for path in files(tmp_path)}) >= 3  # days

    history = ArchiveHistory(str(tmp_path), name)
    assert history.ends() == done.ends
    ranges = [Range(p, 0, end) for p, end in sorted(done.ends.items())]
    assert given_again(history, ranges) == truth
    assert left_over(tmp_path) == []


def test_a_day_begins_a_new_file_and_wild_times_do_not(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting()

    def send_days(*days: int) -> None:
        send(kafka, name, [(0, MIDNIGHT_MS + day * DAY_MS, None, b"x") for day in days])

    send_days(*[0] * 50, *[1] * 50, *[0, 1] * 100, *[2] * 50)
    archive(kafka, name, str(tmp_path), rows_per_file=130)
    send_days(*[0, 2] * 20)
    archive(kafka, name, str(tmp_path))
    starts = [int(path.stem.split("-")[1]) for path in files(tmp_path)]
    assert starts == [0, 50, 180, 300, 350]
    assert in_files(tmp_path) == in_kafka(kafka, name)


def test_running_it_again_writes_what_came_since(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting(partitions=2)
    assert archive(kafka, name, str(tmp_path)).files == 0
    for count in (500, 1, 700):
        send(kafka, name, simple(count, partitions=2))
        assert archive(kafka, name, str(tmp_path)).records == count
        assert archive(kafka, name, str(tmp_path)).files == 0
    assert in_files(tmp_path) == in_kafka(kafka, name)


def test_offsets_without_records_are_covered_and_open_transactions_waited_for(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    from kafka import KafkaProducer

    name = lasting()
    producer = KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=name)
    with closing(producer):
        producer.init_transactions()
        for number in range(12):
            producer.begin_transaction()
            for i in range(5):
                producer.send(name, b"%d-%d" % (number, i), timestamp_ms=MIDNIGHT_MS)
            producer.flush()
            if number == 10:
                done = archive(kafka, name, str(tmp_path))
                assert done.records == 30 and done.ends == {0: 60}
            (producer.abort_transaction if number % 3 == 0 else producer.commit_transaction)()
        done = archive(kafka, name, str(tmp_path), rows_per_file=4)
    assert done.ends == {0: 72}  # 60 records, and a marker for each transaction
    assert in_files(tmp_path) == in_kafka(kafka, name)
    history = ArchiveHistory(str(tmp_path), name)
    assert given_again(history, [Range(0, 0, 6)]) == []
    assert given_again(history, [Range(0, 0, 72)]) == in_kafka(kafka, name)


RUN = """
import sys
from headrace.stream.archive.writer import archive
from headrace.stream.kafka.connection import KafkaConnection
archive(KafkaConnection(sys.argv[1]), sys.argv[2], sys.argv[3], rows_per_file=int(sys.argv[4]))
"""


def run(
    kafka: KafkaConnection, topic: str, place: Path, rows: int, failpoint: str = ""
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, kafka.servers, topic, str(place), str(rows)],
        env=os.environ | {"HEADRACE_FAILPOINT": failpoint},
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> int:
    assert "Error" not in process.communicate(timeout=60)[1]
    return process.returncode


def test_killed_at_any_moment_it_has_each_offset_once(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name, chosen = lasting(partitions=2), random.Random()
    send(kafka, name, simple(30_000, partitions=2))
    killed = 0
    for rows in (53, 90, 61, 75, 40):
        before = len(files(tmp_path))
        process = run(kafka, name, tmp_path, rows)
        while process.poll() is None and len(files(tmp_path)) < before + 5:
            time.sleep(0.001)
        time.sleep(chosen.random() * 0.05)
        process.kill()
        killed += ended(process) == -signal.SIGKILL
        in_files(tmp_path)
    assert killed == 5
    assert ended(run(kafka, name, tmp_path, 5_000)) == 0
    assert in_files(tmp_path) == in_kafka(kafka, name)
    assert left_over(tmp_path) == []


def test_killed_at_each_step_of_writing_it_goes_on_with_the_claimed_file(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting()
    send(kafka, name, simple(1_000))
    steps = [
        f"{what} {step}"
        for what in ("claim", "archive")
        for step in ("written", "synced", "renamed")
    ]
    claimed: list[str] = []
    rows: list[Row] = []
    for number, step in enumerate([*steps, "archive claimed"]):
        assert ended(run(kafka, name, tmp_path, 20 + number, f"{step}:2")) == -signal.SIGKILL
        assert all((tmp_path / name / file).is_file() for file in claimed)
        assert in_files(tmp_path)[: len(rows)] == rows
        claims = [path for path in tmp_path.rglob("_claims/*") if path.suffix != ".tmp"]
        claimed = [path.read_text().splitlines()[0] for path in claims]
        rows = in_files(tmp_path)
        assert len(claimed) == (not step.startswith("claim") or step == "claim renamed")
    assert ended(run(kafka, name, tmp_path, 100)) == 0
    assert in_files(tmp_path) == in_kafka(kafka, name)
    assert left_over(tmp_path) == []


@contextmanager
def following(
    kafka: KafkaConnection, topic: str, place: Path, **how: float
) -> Iterator[list[archives.Archived]]:
    done: list[archives.Archived] = []
    ask = threading.Event()

    def follow() -> None:
        with suppress(RecoveryError):  # a topic that is made again ends it
            done.append(archive(kafka, topic, str(place), follow=True, stop=ask.is_set, **how))  # type: ignore[arg-type]

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield done
    finally:
        ask.set()
        thread.join(30)


def test_following_writes_by_time_and_the_rest_at_the_end(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting(partitions=2)
    with following(kafka, name, tmp_path, every_s=0.2) as done:
        for _ in range(3):
            before = len(files(tmp_path))
            send(kafka, name, simple(100, partitions=2))
            give_up = time.monotonic() + 20
            while len(files(tmp_path)) == before:
                assert time.monotonic() < give_up
                time.sleep(0.02)
        send(kafka, name, simple(100, partitions=2))
    assert done[0].files == len(files(tmp_path)) >= 3
    archive(kafka, name, str(tmp_path))
    assert in_files(tmp_path) == in_kafka(kafka, name)


def test_following_keeps_partitions_that_are_added(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    from kafka import KafkaAdminClient

    name = lasting()
    with following(kafka, name, tmp_path, every_s=0.2):
        send(kafka, name, simple(100))
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.create_partitions({name: 3})
        send(kafka, name, simple(300, partitions=3))
        give_up = time.monotonic() + 30
        while in_files(tmp_path) != in_kafka(kafka, name):
            assert time.monotonic() < give_up
            time.sleep(0.1)
    archive(kafka, name, str(tmp_path))
    assert in_files(tmp_path) == in_kafka(kafka, name)


def test_what_retention_removed_is_said_and_nothing_is_skipped(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    name = lasting()
    send(kafka, name, simple(100))
    archive(kafka, name, str(tmp_path / "early"))
    send(kafka, name, simple(100))
    with closing(KafkaAdminClient(bootstrap_servers=kafka.servers)) as admin:
        admin.delete_records({TopicPartition(name, 0): 150})
    before = files(tmp_path)
    with pytest.raises(HistoryError, match="offsets from 100 to 150") as refused:
        archive(kafka, name, str(tmp_path / "early"))
    assert name in str(refused.value) and "another place" in str(refused.value)
    assert files(tmp_path) == before
    archive(kafka, name, str(tmp_path / "late"))
    assert ArchiveHistory(str(tmp_path / "late"), name).begins() == {0: 150}
    assert in_files(tmp_path / "late") == in_kafka(kafka, name)


def test_a_topic_made_anew_is_not_mixed_with_the_old_one(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    old, new = lasting("old"), lasting("new")
    send(kafka, old, simple(100))
    send(kafka, new, simple(50))
    archive(kafka, old, str(tmp_path))
    (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(HistoryError, match="made anew"):
        archive(kafka, new, str(tmp_path))
    with pytest.raises(TopicError, match=r"no topic .*\.missing at"):
        archive(kafka, f"{old}.missing", str(tmp_path))


@pytest.mark.parametrize("following_it", [False, True])
def test_a_topic_of_the_same_name_is_not_the_same_topic(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path, following_it: bool
) -> None:
    """It may be longer than the old one was: offsets alone would not tell."""
    name = lasting()
    send(kafka, name, simple(100))
    with following(kafka, name, tmp_path, every_s=0.2) if following_it else nullcontext():
        if not following_it:
            archive(kafka, name, str(tmp_path))
        give_up = time.monotonic() + 20
        while len(in_files(tmp_path)) < 100:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        make_again(kafka, name, [b"%d" % n for n in range(300)])
        time.sleep(1)
    before = files(tmp_path)
    with pytest.raises(HistoryError, match="made anew"):
        archive(kafka, name, str(tmp_path))
    assert files(tmp_path) == before
    assert len(in_files(tmp_path)) == 100


def test_a_second_archiver_of_a_directory_is_kept_out(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting()
    send(kafka, name, simple(10))
    with following(kafka, name, tmp_path, every_s=0.1):
        while not files(tmp_path):
            time.sleep(0.01)
        with pytest.raises(RecoveryError, match="in use"):
            archive(kafka, name, str(tmp_path))


def test_two_archivers_without_a_lock_never_write_an_offset_twice(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory stands for S3 here: a file is made once only, and there is no lock."""
    monkeypatch.setattr(LocalStore, "lock", lambda self, holder: nullcontext())
    monkeypatch.setattr(LocalStore, "sweep", lambda self: None)
    name = lasting()
    send(kafka, name, simple(4_000))
    ends: list[str] = []

    def work(rows: int) -> None:
        for _ in range(3):
            try:
                archive(kafka, name, str(tmp_path), rows_per_file=rows)
                ends.append("done")
            except HeadraceError as error:
                ends.append(str(error))

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (23, 37, 51)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(ends) == 9
    assert all(end == "done" or "another archiver" in end for end in ends), ends
    archive(kafka, name, str(tmp_path))
    assert in_files(tmp_path) == in_kafka(kafka, name)
    assert left_over(tmp_path) == []


def test_many_partitions_and_large_records_stay_within_the_memory_given(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, chosen = lasting(partitions=5), random.Random(4)
    monkeypatch.setattr(archives, "_OPEN_BYTES", 1 << 20)
    monkeypatch.setattr(archives, "_POLL", 10)
    held: list[int] = []
    take = archives._Writer.take

    def watched(self: archives._Writer, *of: object) -> None:
        take(self, *of)  # type: ignore[arg-type]
        held.append(sum(batch.nbytes for file in self._open.values() for batch in file.batches()))

    monkeypatch.setattr(archives._Writer, "take", watched)
    send(kafka, name, [(i % 5, i, None, chosen.randbytes(100_000)) for i in range(100)])
    archive(kafka, name, str(tmp_path))
    assert max(held) <= 1 << 20
    assert in_files(tmp_path) == in_kafka(kafka, name)


COMMAND = """
import sys, typer
from headrace.cli.archive import add_to
app = typer.Typer()
app.callback()(lambda: None)
add_to(app)
app()
"""


def test_the_command_ends_in_order_when_it_is_interrupted(
    kafka: KafkaConnection, lasting: MakeTopic, tmp_path: Path
) -> None:
    name = lasting()
    send(kafka, name, simple(300))
    command = [sys.executable, "-c", COMMAND, "archive", name, "--to", str(tmp_path), "--json"]
    process = subprocess.Popen(
        [*command, "-b", kafka.servers, "--follow", "--rows", "100"],
        stdout=subprocess.PIPE,
        text=True,
    )
    while len(files(tmp_path)) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    send(kafka, name, simple(50))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    said = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 0
    assert said["records"] == 350 and said["ends"] == {"0": 350}
    assert in_files(tmp_path) == in_kafka(kafka, name)
