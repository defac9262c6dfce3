from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.stream.archive.directory import SCHEMA, ArchiveDirectory, Segment, to_parquet
from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.archive.writer import archive
from headrace.stream.errors import HeadraceError, HistoryError, RecoveryError, UsageError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.storage import open_store

TOPIC = "events.test"
Row = tuple[int, int, int, bytes | None, bytes | None]


def rows_of(partition: int, start: int, stop: int) -> list[Row]:
    """Make records with holes among the offsets and anything for bytes."""
    chosen = random.Random(partition)
    rows: list[Row] = []
    for offset in range(start, stop):
        key = chosen.choice([None, b"", b"k%d" % offset])
        value = chosen.choice([None, b"", chosen.randbytes(20), b'{"id":%d}' % offset])
        if offset % 7 != 3:
            rows.append((partition, offset, offset * 10 - 5, key, value))
    return rows


def parquet_of(segment: Segment, rows: list[Row]) -> bytes:
    batch = pa.record_batch(
        [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
        ],
        schema=SCHEMA,
    )
    return to_parquet(TOPIC, segment, [batch])


def fill(place: Path, cuts: dict[int, list[int]]) -> dict[int, list[Row]]:
    """Write an archive whose files begin and end at the cuts."""
    directory, written = ArchiveDirectory(str(place), TOPIC), dict[int, list[Row]]()
    for partition, at in cuts.items():
        for start, stop in pairwise(at):
            segment = Segment(partition, start, stop, "2026-03-05")
            directory.put(segment, parquet_of(segment, rows_of(partition, start, stop)))
            written.setdefault(partition, []).extend(rows_of(partition, start, stop))
    return written


def files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.parquet"))


def read(history: ArchiveHistory, *ranges: Range) -> list[Row]:
    got = history.read(ranges)
    columns = (got.partitions, got.offsets, got.timestamps_ms, got.keys, got.values)
    return list(zip(*columns, strict=True))


def test_ranges_are_given_in_their_order_whatever_files_they_cross(tmp_path: Path) -> None:
    cuts = {0: [0, 10, 500, 501, 2000], 3: [70, 90, 1500]}
    written: dict[int, list[Row]] = {}
    for partition, at in cuts.items():
        for start, stop in pairwise(at):
            rows = rows_of(partition, start, stop) or [(partition, start, 0, None, b"x")]
            segment = Segment(partition, start, stop, "2026-03-05")
            ArchiveDirectory(str(tmp_path), TOPIC).put(segment, parquet_of(segment, rows))
            written.setdefault(partition, []).extend(rows)
    history = ArchiveHistory(str(tmp_path), TOPIC)
    assert history.begins() == {0: 0, 3: 70}
    assert history.ends() == {0: 2000, 3: 1500}

    chosen = random.Random(5)
    for _ in range(300):
        ranges = []
        for partition in chosen.sample([0, 3, 0], 3):
            low, high = history.begins()[partition], history.ends()[partition]
            start = chosen.randrange(low, high)
            ranges.append(Range(partition, start, chosen.randint(start, high)))
        wanted = [row for p, a, b in ranges for row in written[p] if a <= row[1] < b]
        assert read(history, *ranges) == wanted
    assert read(history) == []
    assert read(history, Range(0, 5, 5)) == []


@pytest.mark.parametrize(
    "unknown", [Range(0, 90, 110), Range(1, 0, 1), Range(2, 0, 60), Range(0, 200, 300)]
)
def test_what_the_archive_does_not_have_is_refused(tmp_path: Path, unknown: Range) -> None:
    fill(tmp_path, {0: [0, 100], 2: [50, 100]})
    history = ArchiveHistory(str(tmp_path), TOPIC)
    with pytest.raises(HistoryError) as refused:
        history.read([Range(0, 0, 10), unknown])
    for named in (TOPIC, f"partition {unknown.partition}", f"{unknown.start} to {unknown.stop}"):
        assert named in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_what_is_written_meanwhile_is_found(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100]})
    history = ArchiveHistory(str(tmp_path), TOPIC)
    read(history, Range(0, 50, 100))
    fill(tmp_path, {0: [100, 200]})
    assert read(history, Range(0, 100, 200)) == rows_of(0, 100, 200)
    assert history.ends() == {0: 200}


def test_no_archive_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"headrace archive events\.test --to"):
        ArchiveHistory(str(tmp_path), TOPIC)
    with pytest.raises(UsageError, match="cannot be a topic"):
        ArchiveHistory(str(tmp_path), "../events")


def test_a_hole_and_an_overlap_name_both_files(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100, 200, 300], 1: [0, 10]})
    first, second, third, _ = files(tmp_path)
    moved = second.rename(tmp_path / "moved")
    with pytest.raises(HistoryError, match="leave a hole") as refused:
        ArchiveHistory(str(tmp_path), TOPIC)
    assert first.name in str(refused.value) and third.name in str(refused.value)
    moved.rename(second)
    ArchiveHistory(str(tmp_path), TOPIC)
    segment = Segment(0, 150, 200, "2026-03-06")
    other = tmp_path / TOPIC / segment.name
    other.parent.mkdir(mode=0o700)
    other.write_bytes(b"")
    with pytest.raises(HistoryError, match="overlap") as refused:
        ArchiveHistory(str(tmp_path), TOPIC)
    assert second.name in str(refused.value) and other.name in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "date=2026-03-05/notes.txt",
        "date=2026-13-45/00000-00000000000000000100-00000000000000000200.parquet",
        "date=2026-03-05/00000-00000000000000000200-00000000000000000100.parquet",
        "00000-00000000000000000100-00000000000000000200.parquet",
        "date=2026-03-05/part\nof.parquet",
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {0: [0, 100]})
    path = tmp_path / TOPIC / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(HistoryError, match="is no file of this archive") as refused:
        ArchiveHistory(str(tmp_path), TOPIC)
    assert len(str(refused.value).splitlines()) == 1


def test_hidden_files_of_other_tools_do_no_harm(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100]})
    (tmp_path / TOPIC / ".DS_Store").write_bytes(b"")
    (tmp_path / TOPIC / "date=2026-03-05" / "_SUCCESS").write_bytes(b"")
    assert ArchiveHistory(str(tmp_path), TOPIC).ends() == {0: 100}


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100]})
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(HistoryError, match="is damaged or none of ours") as refused:
            ArchiveHistory(str(tmp_path), TOPIC).read([Range(0, 0, 100)])
        assert path.name in str(refused.value)


def test_rot_is_never_given_out(tmp_path: Path) -> None:
    """Flip single bits: each is refused, or stands where nothing that is read depends on it."""
    written = fill(tmp_path, {0: [0, 300]})[0]
    (path,) = files(tmp_path)
    whole, chosen, refused = path.read_bytes(), random.Random(3), 0
    for _ in range(300):
        rotten = bytearray(whole)
        rotten[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(rotten)
        try:
            assert read(ArchiveHistory(str(tmp_path), TOPIC), Range(0, 0, 300)) == written
        except HistoryError:
            refused += 1
    assert refused > 150


def test_rot_in_the_table_of_contents_does_not_hide_records(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 300]})
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    assert whole.count(b"[[0, 299, ") == 1
    path.write_bytes(whole.replace(b"[[0, 299, ", b"[[0, 199, "))
    with pytest.raises(HistoryError, match="damaged"):
        ArchiveHistory(str(tmp_path), TOPIC).read([Range(0, 250, 300)])


def test_a_file_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100], 1: [0, 100]})
    one, other = files(tmp_path)
    other.write_bytes(one.read_bytes())
    history = ArchiveHistory(str(tmp_path), TOPIC)
    history.read([Range(0, 0, 100)])
    with pytest.raises(HistoryError, match=other.name):
        history.read([Range(1, 0, 100)])


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100]})
    (path,) = files(tmp_path)
    pq.write_table(pa.table({"offset": [1, 2]}), path)
    with pytest.raises(HistoryError, match=path.name):
        ArchiveHistory(str(tmp_path), TOPIC).read([Range(0, 0, 100)])


def test_of_two_archivers_one_meets_the_claim_or_the_file_of_the_other(tmp_path: Path) -> None:
    ours, theirs = (ArchiveDirectory(str(tmp_path), TOPIC) for _ in range(2))
    long, short = (Segment(0, 0, stop, "2026-03-05") for stop in (100, 90))
    claim = tmp_path / TOPIC / long.claim
    claim.parent.mkdir(mode=0o700, parents=True)
    claim.write_text(long.name)
    with pytest.raises(HeadraceError, match="another archiver"):
        theirs.put(short, parquet_of(short, rows_of(0, 0, 90)))
    assert claim.exists() and not files(tmp_path)

    (found,) = theirs.claims()  # started anew, they take over what we had claimed
    assert found == long
    theirs.put(found, parquet_of(found, rows_of(0, 0, 100)), claimed=True)
    ours.put(long, parquet_of(long, rows_of(0, 0, 100)), claimed=True)  # we were only slow
    assert [path.name for path in files(tmp_path)] == [Path(long.name).name]
    with pytest.raises(HeadraceError, match="another archiver"):
        ours.put(short, parquet_of(short, rows_of(0, 0, 90)))
    assert [path.name for path in files(tmp_path)] == [Path(long.name).name]
    assert not claim.exists()


def test_claims_that_cannot_be_are_named_and_outdated_ones_dropped(tmp_path: Path) -> None:
    fill(tmp_path, {0: [0, 100]})
    directory = ArchiveDirectory(str(tmp_path), TOPIC)
    old, beyond = Segment(0, 0, 50, "2026-03-05"), Segment(0, 150, 200, "2026-03-05")
    (tmp_path / TOPIC / old.claim).write_text(old.name)
    assert directory.claims() == []
    assert not (tmp_path / TOPIC / old.claim).exists()
    for text in (beyond.name, "\xff\n", Segment(0, 100, 200, "2026-03-05").name):
        (tmp_path / TOPIC / beyond.claim).write_text(text)
        with pytest.raises(HistoryError):
            directory.claims()


READ_ALL = """
import resource, sys
from headrace.stream.archive.reader import ArchiveHistory
from headrace.stream.kafka.history import Range
history = ArchiveHistory(sys.argv[1], "events.test")
history.read([Range(0, 0, 1)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ends = history.ends()
for at in range(0, ends[0], 500):
    assert len(history.read([Range(p, at, at + 500) for p in ends]).values) == 500 * len(ends)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_reading_takes_memory_for_a_row_group_and_not_for_the_archive(tmp_path: Path) -> None:
    directory, chosen = ArchiveDirectory(str(tmp_path), TOPIC), random.Random(1)
    for partition in range(2):
        for start in range(0, 40_000, 10_000):
            segment = Segment(partition, start, start + 10_000, "2026-03-05")
            rows: list[Row] = [
                (partition, at, 0, None, chosen.randbytes(1250) * 2)
                for at in range(start, start + 10_000)
            ]
            directory.put(segment, parquet_of(segment, rows))
    raw_mib = 80_000 * 2500 / 2**20
    grown = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit / 2**20 < raw_mib / 2


def test_a_url_serves_as_well_as_a_directory() -> None:
    place = f"memory://archive-{random.randrange(10**9)}"
    directory = ArchiveDirectory(place, TOPIC)
    for start in (0, 100):
        segment = Segment(0, start, start + 100, "2026-03-05")
        directory.put(segment, parquet_of(segment, rows_of(0, start, start + 100)))
    with pytest.raises(HeadraceError, match="another archiver"):
        directory.put(segment, parquet_of(segment, rows_of(0, 100, 200)))
    written = rows_of(0, 0, 100) + rows_of(0, 100, 200)
    assert read(ArchiveHistory(place, TOPIC), Range(0, 0, 200)) == written
    assert directory.claims() == []


def test_to_look_into_a_store_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    for place in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        store = open_store(str(place))
        assert store.names() == []
        store.delete("x")
        store.sweep()
        with pytest.raises(FileNotFoundError):
            store.read("x")
        with pytest.raises(HistoryError, match="holds no archive of t"):
            ArchiveHistory(str(place), "t")
        checkpoints = Checkpoints(str(place), run="ab")
        assert checkpoints.newest({}, accept=lambda manifest: True) is None
        assert list(tmp_path.iterdir()) == []
    store.create("x", b"1")
    assert store.names() == ["x"]


def test_who_holds_an_archive_is_called_an_archiver(tmp_path: Path) -> None:
    directory = ArchiveDirectory(str(tmp_path), "t")
    with directory.held(), pytest.raises(RecoveryError, match="in use by another archiver"):
        archive(KafkaConnection("127.0.0.1:1"), "t", str(tmp_path))
