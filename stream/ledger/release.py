"""Releases: states of a learner on `<task>.models`, whole and proven so, or not taken.

A release is a checkpoint that went to a topic instead of a store: its arrays as safetensors, cut
into chunks, and behind them its sealed manifest, all in one transaction of the learner's. Of a
chunk the key is its place, so that compaction leaves the newest of each. It holds what is needed
to predict; what waits for labels, and the ids that came, are left out. All chunks are sent each
time: of a state of 35 MB, 64 events had changed 56 chunks of 66.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError
from headrace.stream.ledger.manifest import MANIFEST_BYTES, Manifest, unseal
from headrace.stream.storage import tensors as arrays
from headrace.stream.storage.tensors import Shapes

CHUNK_BYTES = 1 << 19  # half of what Kafka lets a record have by default
MANIFEST_KEY = b"manifest"
_KEY_BYTES = 4
_TOLD = 300  # characters of what is wrong


class Release(NamedTuple):
    """Hold a state that was released: its arrays, and which state it is."""

    manifest: Manifest
    tensors: dict[str, NDArray[Any]]


def chunks_of(data: list[memoryview]) -> Iterator[tuple[bytes, bytes]]:
    """Cut packed arrays into chunks: key and value of each record, in order."""
    whole = np.concatenate([np.frombuffer(piece, np.uint8) for piece in data])
    for place, first in enumerate(range(0, len(whole), CHUNK_BYTES)):
        yield place.to_bytes(_KEY_BYTES, "big"), whole[first : first + CHUNK_BYTES].tobytes()


def records_of(most_bytes: int) -> int:
    """Return how many records a release of so many bytes has at most."""
    return -(-most_bytes // CHUNK_BYTES) + 1


class Collector:
    """Put releases together again, from the records of the topic in their order.

    Whatever stands there, what `add` gives is a state as it was released, of this task and by this
    code. With a key it is of another run or newer than the one before, whoever writes old records
    again. Without one, who may write can forge any; the topic's order decides then, so that the
    learner's next release takes the place of a forged one, whatever that calls itself.

    Args:
        wanted: type and shape of each array, by name.
        key: of the seals; a manifest without its HMAC is not taken.
        accept: says why a proven manifest is not taken; None if it is.

    Attributes:
        problems: what was wrong with each release that was not taken, since the caller cleared it.
    """

    def __init__(
        self,
        wanted: Shapes,
        key: bytes | None,
        accept: Callable[[Manifest], str | None],
    ) -> None:
        self._wanted, self._key, self._accept = wanted, key, accept
        self._most = arrays.most_bytes(wanted)
        self._chunks: dict[int, bytes] = {}
        self._newest: Manifest | None = None
        self.problems: list[str] = []

    def add(self, key: bytes | None, value: bytes | None) -> Release | None:
        """Take the next record; return the release that it completes."""
        if key is None or value is None:
            return None
        if key != MANIFEST_KEY:
            place = int.from_bytes(key, "big")
            if len(key) == _KEY_BYTES and place < records_of(self._most):
                self._chunks[place] = value[: CHUNK_BYTES + 1]
            return None
        try:
            return self._whole(value)
        except (ValueError, RecoveryError) as error:
            told = "".join(c if c.isprintable() else "?" for c in str(error)[:_TOLD])
            self.problems.append(f"a release is not taken: {told}")
            return None

    def _whole(self, value: bytes) -> Release | None:
        if len(value) > MANIFEST_BYTES:
            raise ValueError(f"its manifest has {len(value)} bytes")
        manifest, newest = unseal(value, self._key), self._newest
        if refusal := self._accept(manifest):
            raise ValueError(refusal)
        known = newest.seq if newest and newest.run == manifest.run else -1
        if manifest.seq == known or (self._key and manifest.seq < known):
            return None
        size = manifest.tensors_bytes
        if size > self._most:
            raise ValueError(f"it has {size} bytes, and this task's state takes {self._most}")
        count = -(-size // CHUNK_BYTES)
        if missing := [place for place in range(count) if place not in self._chunks]:
            raise ValueError(f"chunk {missing[0]} of {count} is missing")
        data = b"".join([self._chunks[place] for place in range(count)])
        if len(data) != size or hashlib.sha256(data).hexdigest() != manifest.tensors_sha256:
            raise ValueError("its sha256 is not the one in its manifest: it is torn, or broken")
        tensors = arrays.unpack(data, self._wanted)
        self._newest = manifest
        return Release(manifest, tensors)


def released(tensors: Mapping[str, NDArray[Any]], wanted: Shapes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state that are released."""
    return {name: tensors[name] for name in wanted}
