"""Releases: whatever stands on the topic, what is taken is a state as it was released."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.stream.ledger.manifest import Manifest, seal, unseal
from headrace.stream.ledger.release import (
    CHUNK_BYTES,
    MANIFEST_KEY,
    Collector,
    Release,
    chunks_of,
    records_of,
)
from headrace.stream.storage import tensors as arrays
from headrace.stream.training.snapshot import digest

KEY = b"0123456789abcdef"
Record = tuple[bytes | None, bytes | None]


def state(seq: int) -> dict[str, NDArray[Any]]:
    """Return a state of three chunks, each of which tells its seq."""
    return {
        "a": np.full(CHUNK_BYTES // 4 - 7, seq, np.float32),
        "b": np.full((CHUNK_BYTES // 4, 5), seq, np.uint8),
        "c": np.full(3, seq, np.float64),
    }


SHAPES = arrays.shapes_of(state(0))


def release(seq: int, run: str = "aa", key: bytes | None = KEY) -> list[Record]:
    """Return the records of a release."""
    tensors = state(seq)
    chunks: list[Record] = [*chunks_of(arrays.pack(tensors))]
    data = b"".join([chunk for _, chunk in chunks if chunk])
    manifest = Manifest(
        run=run,
        seq=seq,
        chain="cc",
        ledger_offset=seq,
        positions={0: seq},
        reading={},
        counts={"learned": 0},
        task="task",
        code="code",
        state=digest(tensors),
        time_ms=0,
        tensors_bytes=len(data),
        tensors_sha256=hashlib.sha256(data).hexdigest(),
    )
    return [*chunks, (MANIFEST_KEY, seal(manifest, key))]


RELEASES = {seq: release(seq) for seq in (1, 2, 3)}


def collector(key: bytes | None = KEY) -> Collector:
    return Collector(SHAPES, key, lambda manifest: None)


def taken(records: list[Record], by: Collector) -> list[Release]:
    found = [by.add(*record) for record in records]
    return [each for each in found if each]


def test_each_release_is_taken_as_it_was_released() -> None:
    records = [record for seq in RELEASES for record in RELEASES[seq]]
    by = collector()
    found = taken(records, by)
    assert [each.manifest.seq for each in found] == [1, 2, 3]
    for each in found:
        wanted = state(each.manifest.seq)
        assert {*each.tensors} == {*wanted}
        assert digest(each.tensors) == each.manifest.state == digest(wanted)
    assert not by.problems
    assert len(RELEASES[1]) == 4 <= records_of(arrays.most_bytes(SHAPES))


def test_compaction_leaves_what_is_needed() -> None:
    newest: dict[bytes | None, Record] = {}
    for record in RELEASES[1] + RELEASES[2]:
        newest.pop(record[0], None)
        newest[record[0]] = record
    (found,) = taken([*newest.values()], collector())
    assert found.manifest.seq == 2


def test_an_older_state_is_never_taken_again_but_that_of_another_run_is() -> None:
    by = collector()
    records = RELEASES[3] + RELEASES[2] + RELEASES[3] + release(1, run="bb")
    assert [each.manifest.seq for each in taken(records, by)] == [3, 1]
    assert not by.problems


def test_a_forged_number_keeps_no_later_release_out() -> None:
    """Without a key anyone can seal; the manifest of a release is sealed again as the last one."""
    first, second = release(1, key=None), release(2, key=None)
    key, value = first[-1]
    assert value
    forged = msgspec.structs.replace(unseal(value, None), seq=(1 << 63) - 1)
    records = [*first, *first, (key, seal(forged, None)), *second]
    found = taken(records, collector(None))
    assert [each.manifest.seq for each in found] == [1, forged.seq, 2]
    assert digest(found[-1].tensors) == digest(state(2))
    sealed = taken([*RELEASES[1], (key, seal(forged, None)), *RELEASES[2]], collector())
    assert [each.manifest.seq for each in sealed] == [1, 2]


@pytest.mark.parametrize(
    ("written", "read", "told"),
    [
        (None, KEY, "its HMAC is not of the key given"),
        (b"another key, of 16", KEY, "its HMAC is not of the key given"),
        (KEY, None, "a key sealed it that is not given"),
    ],
)
def test_seals_have_to_be_of_the_key(written: bytes | None, read: bytes | None, told: str) -> None:
    by = collector(read)
    assert not taken(release(1, key=written), by)
    assert told in by.problems[0]


def test_what_the_caller_does_not_accept_is_not_taken() -> None:
    by = Collector(SHAPES, KEY, lambda manifest: "it is of another task")
    assert not taken(RELEASES[1], by)
    assert by.problems == ["a release is not taken: it is of another task"]


def test_other_arrays_are_not_taken() -> None:
    by = Collector({**SHAPES, "c": ("float64", (4,))}, KEY, lambda manifest: None)
    assert not taken(RELEASES[1], by)
    assert "'c' is [3], expected [4]" in by.problems[0]


HAPPENS = ("lost", "flipped", "cut", "again", "moved", "strange", "null")


@st.composite
def spoiled(draw: st.DrawFn) -> list[Record]:
    """Draw the records of three releases, with whatever may happen to a topic."""
    records = [record for seq in RELEASES for record in RELEASES[seq]]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(records) - 1))
        key, value = records[at]
        what = draw(
            st.sampled_from(["lost", "flipped", "cut", "again", "moved", "strange", "null"])
        )
        if what == "lost":
            del records[at]
        elif what == "flipped" and value:
            place = draw(st.integers(0, len(value) - 1))
            flipped = value[place] ^ (1 << draw(st.integers(0, 7)))
            records[at] = key, value[:place] + bytes([flipped]) + value[place + 1 :]
        elif what == "cut" and value:
            records[at] = key, value[: draw(st.integers(0, len(value) - 1))]
        elif what == "again":
            records.insert(draw(st.integers(0, len(records))), records[at])
        elif what == "moved":
            records.insert(draw(st.integers(0, len(records) - 1)), records.pop(at))
        elif what == "strange":
            strange = draw(st.one_of(st.none(), st.binary(max_size=9), st.just(MANIFEST_KEY)))
            records.insert(at, (strange, draw(st.one_of(st.none(), st.binary(max_size=40)))))
        else:
            records[at] = key, None
        if not records:
            break
    return records


@settings(deadline=None, max_examples=150)
@given(spoiled())
def test_nothing_that_happens_to_a_topic_makes_another_state(records: list[Record]) -> None:
    by = collector()
    found = taken(records, by)
    seqs = [each.manifest.seq for each in found]
    assert seqs == sorted({*seqs})
    for each in found:
        assert digest(each.tensors) == digest(state(each.manifest.seq))
    assert all(problem.isprintable() for problem in by.problems)


def test_a_manifest_that_promises_too_much_is_not_waited_for() -> None:
    key, value = RELEASES[1][-1]
    assert value
    manifest = msgspec.structs.replace(unseal(value, KEY), tensors_bytes=1 << 60)
    by = collector()
    assert not taken([*RELEASES[1][:-1], (key, seal(manifest, KEY))], by)
    assert f"it has {1 << 60} bytes" in by.problems[0]
