"""Archives as Delta and Iceberg tables: every record once, whoever is killed or races whom."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from headrace.stream.archive import tables
from headrace.stream.archive.delta import DeltaArchive
from headrace.stream.archive.iceberg import IcebergArchive
from headrace.stream.archive.tables import ArchiveTable, Exported, export
from headrace.stream.errors import HistoryError, StoreError, UsageError
from tests.support.archives import Record, end_threads_of_pyiceberg, write_segment
from tests.support.hostile import Run

TOPIC, ID = "events.pump-7", "aBcD"
DAYS = ("2026-03-05", "2026-03-06", "2026-03-07")


class Archive:
    """Hold an archive of two partitions, and all its records."""

    def __init__(self, place: Path, topic_id: str = ID, seed: int = 1) -> None:
        self.place, self._id, self._chosen = place, topic_id, random.Random(seed)
        self.records: list[tuple[Any, ...]] = []
        self._ends = {0: 0, 1: 40}  # retention had removed the first ones

    def write(self, segments: int, rows: int = 50) -> None:
        for number in range(segments):
            partition, day = number % 2, DAYS[min(number // 2, 2)]
            records = list[Record]()
            offset = self._ends[partition]
            for _ in range(rows):
                key, value = self._chosen.choice([(None, b"x"), (b"", None), (b"k\0", b"\xff" * 9)])
                records.append(Record(partition, offset, offset - 7, key, value))
                offset += self._chosen.choice([1, 1, 1, 4])  # markers leave holes
            self._ends[partition] = offset
            write_segment(self.place, TOPIC, records, offset, day, self._id)
            self.records += [(date.fromisoformat(day), *record) for record in records]

    @property
    def ends(self) -> dict[int, int]:
        return dict(self._ends)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path / "archive")
    made.write(6)
    return made


class Kind:
    """Open tables of one kind, and read them as others do."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.place = name, place

    def open(self, topic: str = TOPIC) -> ArchiveTable:
        kind = DeltaArchive if self.name == "delta" else IcebergArchive
        return kind(str(self.place), topic)

    def export(self, archive: Archive, **settings: Any) -> Exported:
        return export(str(archive.place), TOPIC, self.open(), **settings)

    def theirs(self) -> Any:
        """Return the table as its own library has it."""
        if self.name == "delta":
            return deltalake.DeltaTable(str(self.place))
        return self.catalog().load_table(("headrace", "events_pump_7"))

    def catalog(self) -> SqlCatalog:
        where = f"sqlite:///{self.place / 'catalog.db'}"
        return SqlCatalog("headrace", uri=where, warehouse=self.place.as_uri())

    def read(self) -> list[tuple[Any, ...]]:
        """Return all rows, as DuckDB reads them by Arrow."""
        found = self.theirs()
        rows = found.to_pyarrow_dataset() if self.name == "delta" else found.scan().to_arrow()
        assert rows is not None
        wanted = 'date, "partition", "offset", timestamp_ms, "key", "value"'
        query = f'SELECT {wanted} FROM rows ORDER BY "partition", "offset"'
        return duckdb.execute(query).fetchall()


@pytest.fixture(autouse=True)
def no_threads_of_pyiceberg() -> Iterator[None]:
    yield
    end_threads_of_pyiceberg()


@pytest.fixture(params=["delta", "iceberg"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return Kind(request.param, tmp_path / "out" / "table")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each segment be a commit of its own."""
    monkeypatch.setattr(tables, "COMMIT_BYTES", 1)


def in_order(archive: Archive) -> list[tuple[Any, ...]]:
    return sorted(archive.records, key=lambda row: (row[1], row[2]))


def test_the_table_is_the_archive_record_by_record(archive: Archive, kind: Kind) -> None:
    done = kind.export(archive)
    assert done == Exported(1, 300, archive.ends)
    assert kind.read() == in_order(archive)
    assert kind.export(archive) == Exported(0, 0, archive.ends)
    archive.write(4)
    assert kind.export(archive) == Exported(1, 200, archive.ends)
    assert kind.read() == in_order(archive)


def test_a_day_is_read_without_the_others(archive: Archive, kind: Kind) -> None:
    """By the partitions of the table: those who plan a query see which files to open."""
    kind.export(archive)
    found = kind.theirs()
    if kind.name == "delta":
        files = found.file_uris(file_pruning_predicate=[("date", "=", DAYS[1])])
        assert 0 < len(files) < len(found.file_uris())
    else:
        from pyiceberg.expressions import EqualTo

        files = [*found.scan(EqualTo(term="date", value=DAYS[1])).plan_files()]
        assert 0 < len(files) < len([*found.scan().plan_files()])


def test_an_archive_that_is_cut_elsewhere_can_go_on(
    archive: Archive, kind: Kind, tmp_path: Path
) -> None:
    """As one that was made again from Kafka: only where its offsets lie counts."""
    kind.export(archive)
    cut, whole = tmp_path / "cut", Archive(tmp_path / "whole")
    whole.write(6)
    whole.write(2)
    by_partition = {p: [r for r in whole.records if r[1] == p] for p in (0, 1)}
    for partition, records in by_partition.items():
        for start in range(0, len(records), 70):
            part = [Record(*row[1:]) for row in records[start : start + 70]]
            rest = records[start + 70 : start + 71]
            stop = rest[0][2] if rest else whole.ends[partition]
            write_segment(cut, TOPIC, part, stop, DAYS[2], ID)
    assert export(str(cut), TOPIC, kind.open()).records == 100
    assert [row[1:] for row in kind.read()] == [row[1:] for row in in_order(whole)]


def test_many_commits_are_remembered(kind: Kind, tmp_path: Path, small: None) -> None:
    """Also behind a checkpoint of Delta's log, which comes every hundred commits."""
    archive, count = Archive(tmp_path / "archive"), 230 if kind.name == "delta" else 30
    archive.write(count, rows=2)
    assert kind.export(archive).commits == count
    assert kind.export(archive) == Exported(0, 0, archive.ends)
    assert len(kind.read()) == 2 * count


def test_one_of_two_that_saw_the_same_is_refused(archive: Archive, kind: Kind) -> None:
    first, second, stale = kind.open(), kind.open(), kind.open()
    rows = _rows(archive)
    for table in (first, second, stale):  # all find none, and one makes it
        assert table.reached([0, 1]) == {}
    for table in (first, second):
        assert not table.append(rows, {0: 10, 1: 50}, ID)
    for reached in ({0: 10, 1: 50}, {0: 20, 1: 60}):
        first.reached([0, 1]), second.reached([0, 1])
        assert first.append(rows, reached, ID)
        assert not second.append(rows, reached, ID)
        assert second.reached([0, 1]) == reached
    assert not stale.append(rows, {0: 10, 1: 50}, ID)
    assert len(kind.read()) == 2 * rows.num_rows


def _rows(archive: Archive) -> pa.Table:
    columns = zip(*archive.records[:10], strict=True)
    arrays = [pa.array(c, of.type) for c, of in zip(columns, tables.SCHEMA, strict=True)]
    return pa.table(arrays, schema=tables.SCHEMA)


def test_threads_that_race_double_nothing(kind: Kind, tmp_path: Path, small: None) -> None:
    archive = Archive(tmp_path / "archive")
    archive.write(16)
    done, start = list[Exported](), threading.Barrier(4)

    def work() -> None:
        start.wait()
        while True:
            try:
                done.append(kind.export(archive))
                return
            except StoreError as error:  # SQLite's lock, for one who starts again
                assert "locked" in str(error) or "exists" in str(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kind.read() == in_order(archive)
    assert sum(each.records for each in done) == len(archive.records)
    assert all(each.ends == archive.ends for each in done)


_EXPORT = """
import sys
from headrace.stream.archive import tables
from headrace.stream.archive.{name} import {table}
tables.COMMIT_BYTES = 1
tables.export({place!r}, {topic!r}, {table}({to!r}, {topic!r}),
    on_progress=lambda records: print(records, flush=True))
"""


@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_goes_on(kind: Kind, tmp_path: Path) -> None:
    archive, chosen = Archive(tmp_path / "archive"), random.Random(3)
    archive.write(60)
    table = "DeltaArchive" if kind.name == "delta" else "IcebergArchive"
    told = {"name": kind.name, "table": table, "topic": TOPIC}
    code = _EXPORT.format(**told, place=str(archive.place), to=str(kind.place))
    kills = 0
    while kills < 6:
        child = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE)
        assert child.stdout
        commits = chosen.randrange(1, 6)
        if not all(child.stdout.readline() for _ in range(commits)):
            child.wait()
            break
        time.sleep(chosen.random() * 0.03)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        kills += 1
    assert kills >= 4
    kind.export(archive)
    assert kind.read() == in_order(archive)


def test_what_others_do_to_the_table_is_no_matter(
    archive: Archive, kind: Kind, small: None
) -> None:
    """A compaction, or rows of their own, between our commits and amid one."""
    kind.export(archive)

    def interfere() -> None:
        theirs = kind.theirs()
        if kind.name == "delta":
            theirs.optimize.compact()
        else:
            theirs.append(_rows(archive).slice(0, 1))

    interfere()
    archive.write(2)
    table = kind.open()
    table.reached([0, 1])
    interfere()
    if kind.name == "iceberg":  # compaction may have had nothing to do
        assert not table.append(_rows(archive), {0: 9, 1: 9}, ID)
    assert kind.export(archive).records == 100
    interfere()
    assert kind.export(archive) == Exported(0, 0, archive.ends)
    found = [row for row in kind.read() if row not in archive.records[:1]]
    assert found == [row for row in in_order(archive) if row not in archive.records[:1]]


def test_what_does_not_fit_is_refused(archive: Archive, kind: Kind, tmp_path: Path) -> None:
    kind.export(archive)
    with pytest.raises(HistoryError, match="holds no archive of other"):
        export(str(archive.place), "other", kind.open("other"))
    made_anew = Archive(tmp_path / "anew", topic_id="other id")
    made_anew.write(20)
    with pytest.raises(HistoryError, match="was made anew since the table was begun"):
        kind.export(made_anew)
    behind = Archive(tmp_path / "behind")
    behind.write(2)
    with pytest.raises(HistoryError, match=r"the table ends at offset \d+, and .* holds 0 to \d+"):
        kind.export(behind)
    assert kind.read() == in_order(archive)


def test_a_damaged_file_adds_nothing(archive: Archive, kind: Kind, small: None) -> None:
    file = sorted(archive.place.rglob("00000-*.parquet"))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(HistoryError, match="damaged"):
        kind.export(archive)
    assert len(kind.read()) == 50  # of the segment before it
    file.write_bytes(whole)
    kind.export(archive)
    assert kind.read() == in_order(archive)


def test_another_table_is_left_alone(archive: Archive, tmp_path: Path) -> None:
    place = str(tmp_path / "theirs")
    deltalake.write_deltalake(place, pa.table({"x": [1]}))
    with pytest.raises(UsageError, match="a table with the columns x int64: expected one that"):
        export(str(archive.place), TOPIC, DeltaArchive(place, TOPIC))
    ours = str(tmp_path / "ours")
    export(str(archive.place), TOPIC, DeltaArchive(ours, TOPIC))
    write_segment(archive.place, "other", [Record(0, 0, 0, None, None)], 1, DAYS[0])
    with pytest.raises(UsageError, match=rf"a table of {TOPIC}, not of other"):
        export(str(archive.place), "other", DeltaArchive(ours, "other"))


def test_expired_snapshots_are_told(archive: Archive, tmp_path: Path) -> None:
    kind = Kind("iceberg", tmp_path / "out")
    kind.export(archive)
    ours = kind.theirs().current_snapshot().snapshot_id
    kind.theirs().append(_rows(archive))
    kind.theirs().maintenance.expire_snapshots().by_id(ours).commit()
    with pytest.raises(HistoryError, match=r"no snapshot of headrace\.events_pump_7 says"):
        kind.export(archive)


def test_the_command(archive: Archive, kind: Kind, run: Run) -> None:
    to = f"--{kind.name}", str(kind.place)
    told = run("table", TOPIC, "--from", archive.place, *to, "--json").is_safe()
    assert told.code == 0, told.err
    assert told.values == [
        {"commits": 1, "records": 300, "ends": {str(p): at for p, at in archive.ends.items()}}
    ]
    assert "0 records in 0 commits" in run("table", TOPIC, "--from", archive.place, *to).out
    assert kind.read() == in_order(archive)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected either --delta PLACE or --iceberg PLACE"),
        (("--delta", "a", "--iceberg", "b"), "expected either --delta PLACE or --iceberg PLACE"),
        (("--iceberg", "s3://bucket/x"), "expected a directory"),
        (("--delta", "nonsense://x"), "nonsense://x"),
    ],
)
def test_wrong_usage_is_one_line(
    archive: Archive, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    done = run("table", TOPIC, "--from", archive.place, *arguments).is_safe()
    assert done.code in (2, 3) and said in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("option", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_a_missing_package_is_named(
    archive: Archive, run: Run, option: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [package, f"{package}.catalog.sql"]:
        monkeypatch.setitem(sys.modules, module, None)
    done = run("table", TOPIC, "--from", archive.place, f"--{option}", "x").is_safe()
    assert done.code == 2 and f"pip install 'headrace[{option}]'" in done.err
    assert not Path("x").exists()
