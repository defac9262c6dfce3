"""Checkpoints in S3, by a real server that speaks it: whole or not there, also when it dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from headrace.stream.archive import tables
from headrace.stream.archive.delta import DeltaArchive
from headrace.stream.archive.directory import ArchiveDirectory, Segment
from headrace.stream.errors import HeadraceError, RecoveryError, StoreError, UsageError
from headrace.stream.formats import files
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.storage import failures, open_store
from headrace.stream.storage.remote import UrlStore
from tests.support.archives import Record, write_segment
from tests.support.checkpoints import (
    KEY,
    RUN,
    SHAPES,
    assert_keeps_files,
    everything,
    manifest,
    same,
    seq_of,
    state,
)
from tests.support.s3_server import BUCKET, SECRET, S3Server, ensure_jar


@pytest.fixture(scope="module")
def jar() -> Path:
    try:
        return ensure_jar()
    except (OSError, RuntimeError, ImportError) as error:
        pytest.skip(f"NOT RUN: no S3 server to be had ({error})")


@pytest.fixture(scope="module", autouse=True)
def server(jar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    running = S3Server(tmp_path_factory.mktemp("s3"), jar)
    yield running
    running.kill()


@pytest.fixture
def mortal(jar: Path, tmp_path: Path) -> Iterator[S3Server]:
    """Yield a server that one test alone uses, to its death."""
    running = S3Server(tmp_path, jar)
    yield running
    running.kill()


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield an empty place, on the server the test asks for, by the settings a user would make."""
    from s3fs import S3FileSystem

    name = "mortal" if "mortal" in request.fixturenames else "server"
    settings = request.getfixturevalue(name).environment
    # A dead server is dead; s3fs tries five times besides.
    for setting, value in (settings | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(setting, value)
    monkeypatch.setattr(failures, "PATIENCE_S", 1.0)
    S3FileSystem.clear_instance_cache()
    yield f"s3://{BUCKET}/{request.node.name.translate(str.maketrans('[]', '--'))}"
    S3FileSystem.clear_instance_cache()


def test_s3_keeps_files_as_a_directory_does(place: str) -> None:
    assert_keeps_files(place)


def test_checkpoints_come_back_and_three_are_kept(place: str) -> None:
    checkpoints = Checkpoints(place, run=RUN, key=KEY)
    assert checkpoints.newest(SHAPES, accept=everything) is None
    with checkpoints.lock():
        for seq in (1, 2, 3, 4, 5, 5):
            checkpoints.save(manifest(seq), state(seq))
            assert seq_of(checkpoints) == seq
    assert checkpoints.problems == []
    assert open_store(place).names() == [
        f"{RUN}/{seq:012d}.{kind}" for seq in (3, 4, 5) for kind in ("json", "safetensors")
    ]
    at_most = checkpoints.newest(SHAPES, at_most=4, accept=everything)
    assert at_most is not None
    assert same(at_most[1], state(4))


def test_what_another_process_has_written_is_seen(place: str) -> None:
    mine, others = Checkpoints(place, run=RUN), Checkpoints(place, run=RUN)
    for seq in (1, 2):
        assert seq_of(mine) == (seq - 1 or None)
        others.save(manifest(seq), state(seq))


def test_files_of_rows_are_read_where_they_lie(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    store = open_store(place)
    store.write("a-1.csv", b"n,s\n" + b"1,x\n" * 3000)
    store.write("a-2.csv", b"n,s\n2,y\n")
    found = list(files.read(f"{place}/a-*.csv"))
    assert (len(found), found[0], found[-1]) == (3001, b'{"n":1,"s":"x"}', b'{"n":2,"s":"y"}')
    for missing in (f"{place}/b.csv", "s3://no-such-bucket/a.csv"):
        with pytest.raises(UsageError, match=r"\.csv: no such file; check the URL"):
            next(files.read(missing))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"a-1\.csv: .*; check the credentials"):
        next(files.read(f"{place}/a-1.csv"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"[Cc]redentials; give some: AWS_ACCESS_KEY_ID and"):
        next(files.read(f"{place}/a-1.csv"))


@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_broken_checkpoint_is_skipped(place: str, kind: str) -> None:
    checkpoints = Checkpoints(place, run=RUN, key=KEY)
    for seq in (10, 20):
        checkpoints.save(manifest(seq), state(seq))
    store, name = open_store(place), f"{RUN}/000000000020.{kind}"
    whole = store.read(name)
    for broken in (b"", whole[:-1], whole[:99] + b"\x00" + whole[100:], whole + b" "):
        store.write(name, broken)
        assert seq_of(checkpoints) == 10
        (problem,) = checkpoints.problems
        assert problem.startswith(f"{place}/{name}: ")
    store.delete(name)
    assert seq_of(checkpoints) == 10


def test_an_object_is_created_once(place: str) -> None:
    store = open_store(place)
    store.create("a", b"first")
    for _ in range(2):
        with pytest.raises(FileExistsError):
            store.create("a", b"second")
    assert store.read("a") == b"first"


def test_of_two_archivers_that_claim_the_same_one_ends(place: str) -> None:
    segment = Segment(0, 0, 100, "2026-03-05")
    ours, theirs = ArchiveDirectory(place, "events"), ArchiveDirectory(place, "events")
    open_store(f"{place}/events").create(segment.claim, f"{segment.name}\n1".encode())
    assert ours.claims() == [segment]
    with pytest.raises(HeadraceError, match="another archiver is at work on partition 0"):
        theirs.put(segment, b"the same")
    ours.put(segment, b"the same", claimed=True)
    assert ours.segments() == {0: [segment]}
    assert ours.claims() == []


LARGE_SHAPES = {"large": ("float32", (27 << 20,))}  # 108 MiB: s3fs sends it in parts


def large_state() -> dict[str, Any]:
    return {"large": np.arange(27 << 20, dtype=np.float32)}


def test_a_state_that_goes_in_parts(place: str) -> None:
    checkpoints = Checkpoints(place, run=RUN)
    checkpoints.save(manifest(1), large_state())
    found = checkpoints.newest(LARGE_SHAPES, accept=everything)
    assert found is not None
    assert same(found[1], large_state())


@pytest.mark.parametrize("file", ["safetensors", "json"])
def test_a_server_that_dies_between_files_leaves_the_old_one(
    place: str, mortal: S3Server, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    checkpoints = Checkpoints(place, run=RUN)
    checkpoints.save(manifest(10), state(10))
    write = UrlStore.write

    def killed(store: UrlStore, name: str, data: bytes, **more: Any) -> None:
        if name.endswith(file):
            mortal.kill()
        write(store, name, data, **more)

    with monkeypatch.context() as patch:
        patch.setattr(UrlStore, "write", killed)
        with pytest.raises(RecoveryError, match=rf"cannot write {place}/.*{file}: ") as caught:
            checkpoints.save(manifest(20), state(20))
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    with pytest.raises(RecoveryError, match=f"cannot list {place}: "):
        checkpoints.newest(SHAPES, accept=everything)
    mortal.start()
    assert seq_of(checkpoints) == 10
    assert checkpoints.problems == []
    checkpoints.save(manifest(20), state(20))
    assert seq_of(checkpoints) == 20


def test_a_server_that_dies_within_an_upload_leaves_the_old_one(
    place: str, mortal: S3Server
) -> None:
    checkpoints = Checkpoints(place, run=RUN)
    checkpoints.save(manifest(10), {"large": np.zeros(27 << 20, np.float32)})
    before = set(mortal.data.rglob("*"))

    def kill_at_first_bytes() -> None:
        while not set(mortal.data.rglob("*")) - before:
            time.sleep(0.001)
        mortal.kill()

    killer = threading.Thread(target=kill_at_first_bytes)
    killer.start()
    with pytest.raises(RecoveryError, match=f"cannot write {place}/.*safetensors: "):
        checkpoints.save(manifest(20), large_state())
    killer.join()
    mortal.start()
    found = checkpoints.newest(LARGE_SHAPES, accept=everything)
    assert found is not None
    assert found[0].seq == 10
    assert checkpoints.problems == []


def test_what_is_not_there_or_not_allowed_is_told(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3fs import S3FileSystem

    with pytest.raises(RecoveryError, match=r"cannot write s3://no-such-bucket/.*bucket"):
        Checkpoints("s3://no-such-bucket/x", run=RUN).save(manifest(1), state(1))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-canary")
    S3FileSystem.clear_instance_cache()
    calls: list[Callable[[], object]] = [
        lambda: Checkpoints(place, run=RUN).save(manifest(1), state(1)),
        lambda: Checkpoints(place, run=RUN).newest(SHAPES, accept=everything),
    ]
    for call in calls:
        with pytest.raises(RecoveryError, match=r"signature|[Ff]orbidden|denied") as caught:
            call()
        assert "wrong-canary" not in str(caught.value)


def test_delta_tables_there_hold_each_record_once(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an archive there, too, with three writers at once."""
    monkeypatch.setattr(tables, "COMMIT_BYTES", 1)  # a commit for each segment
    for start in range(0, 200, 50):
        records = [Record(0, at, at, None, b"%d" % at) for at in range(start, start + 50)]
        write_segment(f"{place}/archive", "events", records, start + 50, "2026-03-05")
    done, to, start_all = list[tables.Exported](), f"{place}/table", threading.Barrier(3)

    def work() -> None:
        start_all.wait()
        for _ in range(20):  # this server may show another writer's file before it is whole
            with suppress(StoreError):
                done.append(tables.export(f"{place}/archive", "events", DeltaArchive(to, "events")))
                return

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3
    found = DeltaTable(to, storage_options={"AWS_ALLOW_HTTP": "true"}).to_pyarrow_table()
    assert sorted(found["offset"].to_pylist()) == [*range(200)]
