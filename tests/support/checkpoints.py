"""Checkpoints to write and to spoil."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError
from headrace.stream.ledger.checkpoint import Checkpoints
from headrace.stream.ledger.manifest import Manifest
from headrace.stream.storage import open_store

RUN = "5f3a"


KEY = b"a key of the tests"


SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "weights": ("float32", (7, 5)),
    "steps": ("uint32", ()),
    "ids": ("int32", (3,)),
    "nothing": ("float32", (0, 4)),
    "recent": ("uint8", (-1,)),
}


Tensors = dict[str, NDArray[Any]]


def state(seq: int) -> Tensors:
    """Make a state that is another one for each seq."""
    rng = np.random.default_rng(seq)
    return {
        "weights": rng.standard_normal((7, 5)).astype(np.float32),
        "steps": np.array(seq, np.uint32),
        "ids": np.array([1, -2, seq], np.int32),
        "nothing": np.zeros((0, 4), np.float32),
        "recent": np.frombuffer(b"event" * seq, np.uint8),
    }


def manifest(seq: int, **other: Any) -> Manifest:
    values: dict[str, Any] = {
        "run": RUN,
        "seq": seq,
        "chain": hashlib.sha256(b"%d" % seq).hexdigest(),
        "ledger_offset": 2 * seq,
        "positions": {0: 5 * seq, 11: 7, 2: 0},
        "reading": {},
        "counts": {"learned": 4 * seq},
        "task": "aa",
        "code": "bb",
        "state": "cc",
        "time_ms": 1_700_000_000_000 + seq,
    }
    return Manifest(**values | other)


def everything(_: Manifest) -> bool:
    return True


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )


def seq_of(checkpoints: Checkpoints) -> int | None:
    """Load the newest one; its state must then be the one that was saved."""
    found = checkpoints.newest(SHAPES, accept=everything)
    if found is None:
        return None
    assert same(found[1], state(found[0].seq))
    return found[0].seq


def resealed(text: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change a manifest, and seal it as its writer would have."""
    file = json.loads(text)
    change(file)
    file["sha256"] = ""
    plain = json.dumps(file, separators=(",", ":")).encode()
    file["sha256"] = hashlib.sha256(plain).hexdigest()
    return json.dumps(file, separators=(",", ":")).encode()


def assert_keeps_files(place: str) -> None:
    """Check what every store promises; the place must be empty."""
    store = open_store(place)
    assert store.names() == []
    store.write("b/c/two", b"2222")
    store.write("b/one", b"1")
    store.write("b/one", b"11")
    store.create("a", b"")
    with pytest.raises(FileExistsError):
        store.create("b/one", b"other")
    assert store.names() == ["a", "b/c/two", "b/one"]
    assert store.names("b/") == ["b/c/two", "b/one"]
    assert store.names("b/o") == ["b/one"]
    assert store.names("x/") == []
    assert (store.size("b/c/two"), store.read("b/c/two", 4)) == (4, b"2222")
    assert (store.read("a"), store.read("b/one")) == (b"", b"11")
    with pytest.raises(RecoveryError, match="4 bytes, more than the 3"):
        store.read("b/c/two", 3)
    for missing in (store.size, store.read):
        with pytest.raises(FileNotFoundError):
            missing("b/none")
    for _ in range(2):
        store.delete("b/one")
    assert open_store(place).names() == ["a", "b/c/two"]
    for wrong in ("", "../a", "a/../b", "/a", "a//b", "a/", "a\0"):
        with pytest.raises(ValueError, match="no name of a file"):
            store.write(wrong, b"")
