"""Checkpoints: they come back bit for bit, or not at all, whatever became of the files."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.stream.errors import RecoveryError, StoreError, UsageError
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.storage import open_store
from headrace.stream.storage.local import LocalStore
from tests.support.checkpoints import (
    KEY,
    RUN,
    SHAPES,
    Tensors,
    assert_keeps_files,
    everything,
    manifest,
    resealed,
    same,
    seq_of,
    state,
)

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: only root can give files away")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def two(place: Path) -> Path:
    """Leave two checkpoints, 10 and 20, in the directory; give where their files are."""
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(10), state(10))
    checkpoints.save(manifest(20), state(20))
    return place / RUN


def newest_files(directory: Path) -> tuple[Path, Path]:
    return directory / "000000000020.json", directory / "000000000020.safetensors"


def test_a_state_comes_back_as_it_was_saved(place: Path) -> None:
    checkpoints = Checkpoints(str(place), run=RUN, key=KEY)
    assert checkpoints.newest(SHAPES, accept=everything) is None
    checkpoints.save(manifest(7), state(7))
    found = Checkpoints(str(place), run=RUN, key=KEY).newest(SHAPES, accept=everything)
    assert found is not None
    loaded, tensors = found
    file = place / RUN / "000000000007.safetensors"
    assert loaded == manifest(
        7,
        tensors_bytes=file.stat().st_size,
        tensors_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    assert same(tensors, state(7))
    assert json.loads((place / RUN / "000000000007.json").read_text())["manifest"]["seq"] == 7


ARRAYS = hnp.arrays(
    dtype=st.sampled_from(
        ["bool", "float16", "float32", "float64", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), ARRAYS))
def test_any_arrays_come_back_bit_for_bit(place: Path, tensors: Tensors) -> None:
    tensors.pop("__metadata__", None)  # the format keeps this name for itself
    tensors.pop("recent", None)
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(1), tensors)
    shapes = {name: (array.dtype.name, array.shape) for name, array in tensors.items()}
    found = checkpoints.newest(shapes, accept=everything)
    assert checkpoints.problems == []
    assert found is not None
    assert same(found[1], tensors)


def test_nans_keep_their_payload_and_order_in_memory_does_not_matter(place: Path) -> None:
    bits = np.array([0x7FC12345, 0xFFC00001, 0x7F800001, 0x80000000], np.uint32)
    tensors = {
        "nan": bits.view(np.float32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "strided": np.arange(10, dtype=np.uint32)[::3],
    }
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(1), tensors)
    shapes = {"nan": ("float32", (4,)), "fortran": ("int32", (2, 3)), "strided": ("uint32", (4,))}
    found = checkpoints.newest(shapes, accept=everything)
    assert found is not None
    assert found[1]["nan"].view(np.uint32).tolist() == bits.tolist()
    assert found[1]["fortran"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found[1]["strided"].tolist() == [0, 3, 6, 9]


def test_the_newest_few_are_kept_and_nothing_else(place: Path) -> None:
    checkpoints = Checkpoints(str(place), run=RUN, keep=2)
    for seq in (3, 8, 12, 90):
        checkpoints.save(manifest(seq), state(seq))
    assert sorted(path.name for path in (place / RUN).iterdir()) == [
        "000000000012.json",
        "000000000012.safetensors",
        "000000000090.json",
        "000000000090.safetensors",
    ]
    assert seq_of(checkpoints) == 90


def test_what_is_newer_than_the_one_saved_is_left_to_its_owner(place: Path) -> None:
    checkpoints = Checkpoints(str(place), run=RUN, keep=1)
    checkpoints.save(manifest(30), state(30))
    checkpoints.save(manifest(20), state(20))  # after a recovery that could not use 30
    assert checkpoints.newest(SHAPES, at_most=29, accept=everything) is not None


def test_the_caller_chooses_by_seq_and_by_what_it_accepts(two: Path) -> None:
    checkpoints = Checkpoints(str(two.parent), run=RUN)
    assert seq_of(checkpoints) == 20
    at_most = checkpoints.newest(SHAPES, at_most=19, accept=everything)
    assert at_most is not None
    assert at_most[0].seq == 10
    asked: list[int] = []

    def other_chain(found: Manifest) -> bool:
        asked.append(found.seq)
        return found.chain == manifest(10).chain

    accepted = checkpoints.newest(SHAPES, accept=other_chain)
    assert accepted is not None
    assert (accepted[0].seq, asked) == (10, [20, 10])
    assert checkpoints.newest(SHAPES, at_most=9, accept=everything) is None
    assert Checkpoints(str(two.parent), run="77").newest(SHAPES, accept=everything) is None


def test_the_same_seq_is_replaced(place: Path) -> None:
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(4, code="old"), state(5))
    checkpoints.save(manifest(4, code="new"), state(4))
    found = checkpoints.newest(SHAPES, accept=everything)
    assert found is not None
    assert (found[0].code, found[0].seq) == ("new", 4)
    assert same(found[1], state(4))


def test_what_could_not_be_loaded_is_not_saved(place: Path) -> None:
    checkpoints = Checkpoints(str(place), run=RUN)
    for wrong, tensors in (
        (manifest(-1), state(1)),
        (manifest(1), {"recent": np.zeros((64 << 20) + 1, np.uint8)}),
        (manifest(1), {"complex": np.zeros(2, np.complex64)}),
        (manifest(1, code="x" * (1 << 20)), state(1)),
    ):
        with pytest.raises(RecoveryError, match="makes no checkpoint that could be loaded"):
            checkpoints.save(wrong, tensors)
    assert not (place / RUN).exists()


def assert_older_is_used(directory: Path, broken: Path, key: bytes | None = None) -> str:
    checkpoints = Checkpoints(str(directory.parent), run=RUN, key=key)
    assert seq_of(checkpoints) == 10, f"{broken} was used although it is broken"
    (problem,) = checkpoints.problems
    assert broken.name in problem
    assert problem.isprintable()
    assert len(problem) <= 500
    return problem


@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_a_cut_file_is_skipped(two: Path, which: int) -> None:
    path = newest_files(two)[which]
    whole = path.read_bytes()
    lengths = {round(i * (len(whole) - 1) / 63) for i in range(64)}
    assert len(lengths) == 64
    assert 0 in lengths
    for length in lengths:
        path.write_bytes(whole[:length])
        assert_older_is_used(two, path)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "sealed"])
@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_a_flipped_bit_is_noticed(place: Path, which: int, key: bytes | None) -> None:
    checkpoints = Checkpoints(str(place), run=RUN, key=key)
    for seq in (10, 20):
        checkpoints.save(manifest(seq), state(seq))
    path = newest_files(place / RUN)[which]
    whole = path.read_bytes()
    for bit in random.Random(which).sample(range(8 * len(whole)), 200):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert_older_is_used(place / RUN, path, key)


def test_a_missing_file_is_skipped(two: Path) -> None:
    text, tensors = newest_files(two)
    tensors.unlink()
    assert_older_is_used(two, tensors)
    text.unlink()
    checkpoints = Checkpoints(str(two.parent), run=RUN)
    assert seq_of(checkpoints) == 10
    assert checkpoints.problems == []


def test_a_checkpoint_is_not_another_ones(two: Path) -> None:
    text = newest_files(two)[0]
    text.write_bytes((two / "000000000010.json").read_bytes())
    assert_older_is_used(two, text)
    other = two.parent / "77"
    shutil.copytree(two, other)
    shutil.copy(two / "000000000010.json", other / "000000000020.json")
    checkpoints = Checkpoints(str(two.parent), run="77")
    assert checkpoints.newest(SHAPES, accept=everything) is None
    assert len(checkpoints.problems) == 2


def test_only_manifests_under_the_key_are_used(place: Path) -> None:
    sealed = Checkpoints(str(place), run=RUN, key=KEY)
    sealed.save(manifest(10), state(10))
    path = newest_files(place / RUN)[0]
    for forger in (None, KEY[:-1], b"a key of a forger"):
        Checkpoints(str(place), run=RUN, key=forger).save(manifest(20), state(20))
        assert_older_is_used(place / RUN, path, KEY)
    sealed.save(manifest(20), state(20))
    forged = path.read_bytes().replace(b'"learned":80', b'"learned":81')
    assert forged != path.read_bytes()
    path.write_bytes(forged)
    assert_older_is_used(place / RUN, path, KEY)
    rehashed = json.loads(forged)
    rehashed["sha256"] = ""
    plain = json.dumps(rehashed, separators=(",", ":")).encode()
    rehashed["sha256"] = hashlib.sha256(plain).hexdigest()
    path.write_text(json.dumps(rehashed, separators=(",", ":")))
    assert_older_is_used(place / RUN, path, KEY)
    for reader in (None, b"another key"):
        checkpoints = Checkpoints(str(place), run=RUN, key=reader)
        assert checkpoints.newest(SHAPES, accept=everything) is None
        assert len(checkpoints.problems) == 2


def safetensors_file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_a_manifest_that_lacks_a_later_field_is_sound(place: Path, two: Path) -> None:
    """What an older version wrote is no forgery: `topics` was added to manifests later."""
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(30, topics={"events": "an id"}), state(30))
    text = two / "000000000030.json"
    text.write_bytes(resealed(text.read_bytes(), lambda file: file["manifest"].pop("topics")))
    found = checkpoints.newest(SHAPES, accept=everything)
    assert found
    assert (found[0].seq, found[0].topics) == (30, {})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda file: file.update(format=0), "of format 0, and this version of headrace reads 1"),
        (lambda file: file["manifest"].update(z=1), "a newer headrace wrote it: 'z' is not known"),
        (lambda file: file["manifest"].pop("task"), "no manifest of format 1: .*`task`"),
    ],
)
def test_a_manifest_of_another_version_is_told_from_a_forgery(
    place: Path, two: Path, change: Callable[[dict[str, Any]], object], line: str
) -> None:
    text, _ = newest_files(two)
    text.write_bytes(resealed(text.read_bytes(), change))
    checkpoints = Checkpoints(str(place), run=RUN)
    assert seq_of(checkpoints) == 10
    (problem,) = checkpoints.problems
    assert re.search(line, problem)
    assert "changed" not in problem


def test_an_empty_key_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="is empty"):
        Checkpoints(str(place), run=RUN, key=b"")


def plant(directory: Path, data: bytes) -> Path:
    """Put `data` for the newest tensors, with a manifest that vouches for every byte of them."""
    text, tensors = newest_files(directory)
    vouched = replace(
        manifest(20), tensors_bytes=len(data), tensors_sha256=hashlib.sha256(data).hexdigest()
    )
    file = {"format": 1, "manifest": msgspec.to_builtins(vouched), "hmac": "", "sha256": ""}
    plain = json.dumps(file, separators=(",", ":")).encode()
    file["sha256"] = hashlib.sha256(plain).hexdigest()
    text.write_text(json.dumps(file, separators=(",", ":")))
    tensors.write_bytes(data)
    return tensors


def other_files() -> Iterator[tuple[str, bytes]]:
    good = state(20)
    weights, ids = good["weights"], good["ids"]
    save = safetensors.numpy.save
    yield "a dtype swapped", save(good | {"weights": weights.view(np.int32)})
    yield "a shape swapped", save(good | {"weights": weights.reshape(5, 7)})
    yield "another rank", save(good | {"weights": weights.reshape(-1)})
    yield "names swapped", save(good | {"weights": ids, "ids": weights})
    yield "one too many", save(good | {"more": ids})
    yield "one too few", save({name: good[name] for name in good if name != "ids"})
    yield "recent in two dimensions", save(good | {"recent": np.zeros((2, 2), np.uint8)})
    yield "none at all", save({})
    yield "metadata", save(good, metadata={"a": "b"})
    whole = save(good)
    length = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    yield "a byte more", whole + b"x"
    yield "a header of 1 TiB", struct.pack("<Q", 1 << 40) + whole[8:]
    yield "a header larger than the file", struct.pack("<Q", len(whole)) + whole[8:]
    yield "a header that is no JSON", safetensors_file(b"{" * 900_000, body)
    yield "a deep header", safetensors_file(b'{"weights":{"dtype":' + b"[" * 900_000, body)
    yield "a list", safetensors_file([header], body)
    tib = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
    yield "a tensor of 1 TiB", safetensors_file(header | {"weights": tib}, body)
    large = {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}
    yield "recent of 1 TiB", safetensors_file(header | {"recent": large}, body)
    for offsets in ([0, 0], [8, 148], [0, 1 << 63], [140, 0]):
        moved = header["weights"] | {"data_offsets": offsets}
        yield f"weights at {offsets}", safetensors_file(header | {"weights": moved}, body)
    overlap = header["ids"] | {"data_offsets": [0, 12]}
    yield "one within another", safetensors_file(header | {"ids": overlap}, body)


@pytest.mark.parametrize(("data",), [(data,) for _, data in other_files()], ids=dict(other_files()))
def test_vouched_tensors_that_are_not_those_expected_are_skipped(two: Path, data: bytes) -> None:
    assert seq_of(Checkpoints(str(two.parent), run=RUN)) == 20
    plant(two, safetensors.numpy.save(state(20)))
    assert seq_of(Checkpoints(str(two.parent), run=RUN)) == 20, "the planted manifest must count"
    problem = assert_older_is_used(two, plant(two, data))
    assert "deserializing" not in problem, "the library saw what we should have refused before"


def test_nothing_is_allocated_by_the_size_that_a_file_claims(two: Path) -> None:
    text, tensors = newest_files(two)
    data = dict(other_files())
    tracemalloc.start()
    try:
        for name in ("a tensor of 1 TiB", "recent of 1 TiB", "a header of 1 TiB"):
            plant(two, data[name])
            assert_older_is_used(two, tensors)
        for path in (text, tensors):  # 1 TiB as far as stat can tell, sparse on the disk
            plant(two, safetensors.numpy.save(state(20)))
            os.truncate(path, 1 << 40)
            assert_older_is_used(two, path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_a_vouched_size_beyond_what_the_state_takes_is_not_read(two: Path) -> None:
    tensors = plant(two, safetensors.numpy.save(state(20)))
    small = {name: shape for name, shape in SHAPES.items() if name != "recent"}
    tensors = plant(two, bytes(2 << 20))
    checkpoints = Checkpoints(str(two.parent), run=RUN)
    assert checkpoints.newest(small, at_most=20, accept=lambda found: found.seq == 20) is None
    assert "at most" in checkpoints.problems[0]
    assert tensors.name in checkpoints.problems[0]


JUNK = st.binary(max_size=400) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=JUNK, data=JUNK, vouched=st.booleans())
def test_arbitrary_bytes_never_make_a_state(
    two: Path, text: bytes, data: bytes, vouched: bool
) -> None:
    path, tensors = newest_files(two)
    if vouched:
        plant(two, safetensors_file(data))
        assert_older_is_used(two, tensors)
    else:
        path.write_bytes(text)
        tensors.write_bytes(data)
        assert_older_is_used(two, path)


class DiskFullError(OSError):
    """Stand for a disk that is full from one call on."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("again", [False, True], ids=["new seq", "same seq"])
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open", "mkdir"])
def test_a_full_disk_at_any_call_leaves_the_old_checkpoint(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str, again: bool
) -> None:
    checkpoints = Checkpoints(str(place), run=RUN)
    seq = 10 if again else 20
    real = getattr(os, call)
    failed = 0
    for index in range(100):
        shutil.rmtree(place, ignore_errors=True)
        checkpoints.save(manifest(10), state(10))
        before = sorted((place / RUN).iterdir())
        calls = iter(range(1000))

        def full(*args: Any, index: int = index, calls: Any = calls, **kwargs: Any) -> Any:
            if next(calls) >= index:
                raise DiskFullError
            if call == "write":  # as a nearly full disk does: a part of it fits
                return real(args[0], bytes(args[1])[:100], **kwargs)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            try:
                checkpoints.save(manifest(seq), state(seq))
            except RecoveryError as error:
                assert "No space left" in str(error)
                failed += 1
                finished = False
            else:
                finished = True
        if finished:
            break
        assert seq_of(checkpoints) in (10, seq)
        left = {path.name for path in (place / RUN).iterdir()}
        assert not [name for name in left if name.endswith(".tmp")]
        assert {path.name for path in before} <= left
        checkpoints.save(manifest(30), state(30))
        assert seq_of(checkpoints) == 30
    else:
        pytest.fail("it never came through")
    assert failed >= (0 if call == "mkdir" else 2)
    assert seq_of(checkpoints) == seq


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("NOT RUN: no right to mount a small tmpfs")
    try:
        checkpoints = Checkpoints(str(disk / "checkpoints"), run=RUN, keep=3)
        checkpoints.save(manifest(10), state(10))
        (disk / "filler").write_bytes(bytes(1_500_000))
        large = state(20) | {"recent": np.ones(1_000_000, np.uint8)}
        with pytest.raises(RecoveryError, match="No space left on device; free some space"):
            checkpoints.save(manifest(20), large)
        assert seq_of(checkpoints) == 10
        assert checkpoints.problems == []
        (disk / "filler").unlink()
        checkpoints.save(manifest(20), large)
        found = checkpoints.newest(SHAPES, accept=everything)
        assert found is not None
        assert same(found[1], large)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


CHILD = """
import sys
sys.path.insert(0, {root!r})
from headrace.stream.ledger.checkpoint import Checkpoints
from tests.support.checkpoints import RUN, manifest, state
Checkpoints({place!r}, run=RUN, keep=1).save(manifest({seq}), state({seq}))
"""
POINTS = {
    "tensors written": 10,
    "tensors synced": 10,
    "tensors renamed": 10,
    "manifest written": 10,
    "manifest synced": 10,
    "manifest renamed": 20,
    "pruned": 20,
}


def run_child(place: Path, seq: int, point: str) -> int:
    code = CHILD.format(root=str(Path(__file__).parents[2]), place=str(place), seq=seq)
    env = os.environ | {"HEADRACE_FAILPOINT": f"checkpoint: {point}:1"}
    return subprocess.run([sys.executable, "-c", code], env=env).returncode


@pytest.mark.parametrize(("point", "expected"), POINTS.items(), ids=POINTS)
def test_a_kill_leaves_the_old_or_the_new_checkpoint(
    place: Path, point: str, expected: int
) -> None:
    checkpoints = Checkpoints(str(place), run=RUN, keep=1)
    checkpoints.save(manifest(10), state(10))
    assert run_child(place, 20, point) == -signal.SIGKILL
    assert seq_of(checkpoints) == expected
    assert checkpoints.problems == []
    litter = [path.name for path in (place / RUN).iterdir() if path.name.endswith(".tmp")]
    assert bool(litter) == point.endswith(("written", "synced"))
    checkpoints.save(manifest(20), state(20))
    assert sorted(path.name for path in (place / RUN).iterdir()) == [
        "000000000020.json",
        "000000000020.safetensors",
    ]
    assert seq_of(checkpoints) == 20


def test_bytes_are_safe_before_their_name_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut only what was synced is there: each rename stands between two fsyncs."""
    checkpoints = Checkpoints(str(place), run=RUN)
    checkpoints.save(manifest(10), state(10))
    tape: list[str] = []
    fsync, rename = os.fsync, os.rename

    def tell_fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        tape.append("sync directory" if is_directory else "sync file")
        fsync(descriptor)

    def tell_rename(source: str, target: str, **where: int) -> None:
        tape.append(f"rename to {Path(target).suffix}")
        rename(source, target, **where)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "rename", tell_rename)
    checkpoints.save(manifest(20), state(20))
    assert tape == [
        *("sync file", "rename to .safetensors", "sync directory"),
        *("sync file", "rename to .json", "sync directory"),
    ]


def test_a_new_directory_is_for_its_owner_alone(place: Path) -> None:
    before = os.umask(0)
    try:
        Checkpoints(str(place), run=RUN).save(manifest(1), state(1))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.rglob("*")}
    assert modes == {RUN: 0o700, "000000000001.json": 0o600, "000000000001.safetensors": 0o600}
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("inner", ["", RUN], ids=["place", "run"])
def test_a_directory_that_others_could_have_written_to_is_refused(two: Path, inner: str) -> None:
    directory = two.parent / inner
    for mode in (0o777, 0o770, 0o702):
        directory.chmod(mode)
        with pytest.raises(RecoveryError, match=r"can be written by others .*chmod go-w"):
            Checkpoints(str(two.parent), run=RUN).newest(SHAPES, accept=everything)
        with pytest.raises(RecoveryError, match="can be written by others"):
            Checkpoints(str(two.parent), run=RUN).save(manifest(30), state(30))
    directory.chmod(0o755)
    assert seq_of(Checkpoints(str(two.parent), run=RUN)) == 20


@AS_ROOT
@pytest.mark.parametrize("inner", ["", RUN], ids=["place", "run"])
def test_a_directory_of_somebody_else_is_refused(two: Path, inner: str) -> None:
    os.chown(two.parent / inner, 12345, -1)
    with pytest.raises(RecoveryError, match=r"belongs to user 12345.*not to you"):
        Checkpoints(str(two.parent), run=RUN).newest(SHAPES, accept=everything)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "s3://bucket/x"])
def test_a_store_that_is_away_is_not_an_empty_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=f"cannot list {url}: .*127.0.0.1.*can be reached") as info:
        open_store(url).names()
    assert info.value.exit_code == 3  # to be tried again


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    store = LocalStore(str(tmp_path / "link/state"))
    with pytest.raises(UsageError, match="link is no directory, or a symbolic link that leads"):
        store.write("name", b"")


@pytest.mark.parametrize("inner", ["", RUN], ids=["place", "run"])
def test_a_symbolic_link_to_a_directory_is_refused(two: Path, inner: str) -> None:
    directory = two.parent / inner
    moved = directory.rename(two.parent.parent / "moved")
    directory.symlink_to(moved)
    with pytest.raises(RecoveryError, match="symbolic link"):
        Checkpoints(f"{two.parent}/", run=RUN).newest(SHAPES, accept=everything)


@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_a_file_that_is_not_a_plain_one_of_ours_is_skipped(two: Path, which: int) -> None:
    path = newest_files(two)[which]
    moved = path.rename(two.parent / "moved")
    path.symlink_to(moved)
    assert_older_is_used(two, path)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "not a plain file" in assert_older_is_used(two, path)
    path.unlink()
    moved.rename(path)
    path.chmod(0o622)
    assert_older_is_used(two, path)
    path.chmod(0o600)
    assert seq_of(Checkpoints(str(two.parent), run=RUN)) == 20


@AS_ROOT
@pytest.mark.parametrize("which", [0, 1], ids=["manifest", "tensors"])
def test_a_file_of_somebody_else_is_skipped(two: Path, which: int) -> None:
    path = newest_files(two)[which]
    os.chown(path, 12345, -1)
    assert_older_is_used(two, path)


def test_one_learner_at_a_time(place: Path) -> None:
    code = (
        "import sys; from headrace.stream.ledger.checkpoint import Checkpoints\n"
        f"with Checkpoints({str(place)!r}, run={RUN!r}).lock():\n"
        "    print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with (
            pytest.raises(RecoveryError, match=f"{place} is in use by another learner"),
            Checkpoints(str(place), run=RUN).lock(),
        ):
            pytest.fail("two at a time")
        other.kill()
    with Checkpoints(str(place), run=RUN).lock():
        assert (place / "lock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyError), Checkpoints(str(place), run=RUN).lock():
        raise KeyError("passes through")


def test_places_that_cannot_be_used_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    for place, error, told in (
        (str(tmp_path / "file"), RecoveryError, "no directory"),
        (str(tmp_path / "file" / "below"), RecoveryError, "below .* no directory"),
        ("/", UsageError, "give a directory below it"),
        ("file://host/path", UsageError, "file:///"),
        ("nonsense://a", UsageError, "nonsense:// cannot be used"),
        ("oci://bucket/path", UsageError, "oci:// needs its driver"),
    ):
        with pytest.raises(error, match=told) as caught:
            open_store(place)
        assert "\n" not in str(caught.value)


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(UsageError, match=r"^s3:// needs `pip install headrace\[s3\]`$"):
        open_store("s3://bucket/path")


@pytest.fixture(params=["directory", "file URL", "memory"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        from fsspec.implementations.memory import MemoryFileSystem

        MemoryFileSystem.store.clear()
        yield "memory://some/where"
        MemoryFileSystem.store.clear()
    else:
        yield ("file://" if request.param == "file URL" else "") + str(tmp_path / "some" / "where")


def test_every_store_does_the_same(anywhere: str) -> None:
    assert_keeps_files(anywhere)


def test_create_works_where_conditional_writes_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As S3's driver tells it of a server without them: the error of a missing function."""
    from fsspec.implementations.memory import MemoryFileSystem

    pipe_file = MemoryFileSystem.pipe_file

    def refuse(self: Any, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "not implemented")
        pipe_file(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    MemoryFileSystem.store.clear()
    assert_keeps_files("memory://some/where")


def test_checkpoints_behind_a_url(anywhere: str) -> None:
    checkpoints = Checkpoints(anywhere, run=RUN, keep=2, key=KEY)
    with checkpoints.lock():
        for seq in (1, 2, 3, 3):
            checkpoints.save(manifest(seq), state(seq))
    assert seq_of(checkpoints) == 3
    assert len(open_store(anywhere).names(f"{RUN}/")) == 4


def test_of_many_that_create_a_file_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys; from headrace.stream.storage import open_store\n"
        f"store = open_store({str(tmp_path / 'x')!r})\n"
        "for i in range(200):\n"
        "    try: store.create(f'a/{i}', sys.argv[1].encode())\n"
        "    except FileExistsError: continue\n"
        "    print(i)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=subprocess.PIPE)
        for n in range(3)
    ]
    won = {n: writer.communicate()[0].split() for n, writer in enumerate(writers)}
    assert sorted(int(i) for mine in won.values() for i in mine) == list(range(200))
    store = LocalStore(str(tmp_path / "x"))
    for n, mine in won.items():
        assert all(store.read(f"a/{int(i)}") == b"%d" % n for i in mine)
    assert len(os.listdir(tmp_path / "x" / "a")) == 200
