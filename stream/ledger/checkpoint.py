"""Checkpoints: the state at one record of the ledger, whole and proven so, or not used.

    <place>/<run>/000000001234.safetensors   the state's arrays
    <place>/<run>/000000001234.json          the manifest; it is written last: it commits
    <place>/<run>/start.{safetensors,json}   the same of the saved learner that the run began with

The manifest names the size and the sha256 of the arrays, and carries a sha256 of its own and,
with a key, an HMAC-SHA256. It must be byte for byte what `save` would write for what it says, so
there is nothing in it that is read and not proven. Nothing is read, much less allocated, beyond
the size that the caller's `shapes` allow. Safetensors: github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Annotated, Any

import msgspec
import safetensors.numpy
from numpy.typing import NDArray

from headrace.stream.errors import RecoveryError, StoreError, UsageError
from headrace.stream.ledger.manifest import MANIFEST_BYTES, Manifest, seal, unseal
from headrace.stream.process.failpoint import failpoint
from headrace.stream.storage import open_store
from headrace.stream.storage import tensors as arrays
from headrace.stream.storage.tensors import Shapes

_NAME = re.compile(r"([0-9]{12,18})\.(json|safetensors)", re.ASCII)
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Checkpoints:
    """Keep the newest checkpoints of one run of the ledger in a directory or behind a URL.

    Args:
        place: a directory, made 0700 if it is not there, or an fsspec URL (s3://bucket/path).
        run: the ledger's run id, hex.
        keep: how many stay, at least 1.
        key: seals the manifests: none without its HMAC is used.

    Raises:
        UsageError: no driver for such a URL, or the key is empty.
        RecoveryError: the directory cannot be used, or is not this user's alone to write.
    """

    problems: list[str]
    """What was wrong with each checkpoint that the last `newest` skipped as broken."""

    def __init__(self, place: str, *, run: str, keep: int = 3, key: bytes | None = None) -> None:
        if keep < 1 or not re.fullmatch("[0-9a-f]{1,64}", run):
            raise ValueError(f"expected keep >= 1 and a run in hex, not {keep} and {run!r}")
        if key == b"":
            raise UsageError("the key of the checkpoints is empty: give one of 32 random bytes")
        self._store = open_store(place)
        self._run, self._keep, self._key = run, keep, key
        self.problems = []

    def lock(self) -> AbstractContextManager[None]:
        """Keep other learners out of a local directory for the length of a `with` block.

        Behind a URL there is no lock: there the ledger's fencing protects. Two learners of one
        run come to the same states, and what the slower one leaves is as good or is skipped.

        Raises:
            RecoveryError: another process holds it.
        """
        return self._store.lock("learner")

    def save(self, manifest: Manifest, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write a checkpoint, or replace the one of that seq; return when it is durable.

        Then the oldest are removed. An older checkpoint is never touched before.

        Raises:
            RecoveryError: it cannot be written, or is larger than what `newest` would read.
        """
        self._write(self._stem(manifest.seq), manifest, tensors)
        self._prune(manifest.seq)
        failpoint("checkpoint: pruned")

    def save_start(self, manifest: Manifest, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Write the state that the run begins with; return when it is durable. It is never removed.

        Raises:
            RecoveryError: as `save`.
        """
        self._write(f"{self._run}/start", manifest, tensors)

    def start(
        self, shapes: Shapes | Callable[[Manifest], Shapes], accept: Callable[[Manifest], bool]
    ) -> tuple[Manifest, dict[str, NDArray[Any]]] | None:
        """Load what `save_start` wrote, if it is whole and accepted; as `newest` otherwise."""
        self.problems = []
        return self._load(f"{self._run}/start", None, shapes, accept)

    def _write(self, stem: str, manifest: Manifest, tensors: Mapping[str, NDArray[Any]]) -> None:
        data, sha256 = arrays.pack(tensors), hashlib.sha256()
        for piece in data:
            sha256.update(piece)
        size = sum(piece.nbytes for piece in data)
        manifest = msgspec.structs.replace(
            manifest, tensors_bytes=size, tensors_sha256=sha256.hexdigest()
        )
        text = seal(manifest, self._key)
        try:  # what could not be read back must not count as a checkpoint
            unseal(text, self._key)
            arrays.check(data[0], size, arrays.shapes_of(tensors))
        except ValueError as error:
            raise RecoveryError(
                f"the state at seq {manifest.seq} makes no checkpoint that could be loaded: {error}"
            ) from error
        self._store.sweep(f"{self._run}/")
        self._store.write(f"{stem}.safetensors", data, what="checkpoint: tensors")
        self._store.write(f"{stem}.json", text, what="checkpoint: manifest")

    def newest(
        self,
        shapes: Shapes | Callable[[Manifest], Shapes],
        *,
        at_most: int | None = None,
        accept: Callable[[Manifest], bool],
    ) -> tuple[Manifest, dict[str, NDArray[Any]]] | None:
        """Load the newest checkpoint that is whole and accepted; None if there is none.

        Args:
            shapes: what the state's arrays must be, all of them and no other; or what says it of
                a manifest that was accepted.
            at_most: the largest seq of interest.
            accept: asked about each proven manifest, newest first, before its arrays are read.

        Returns:
            The manifest and the arrays, read-only; broken ones before it are in `problems`.

        Raises:
            RecoveryError: the place cannot be listed, or must not be trusted.
            StoreError: a URL's file cannot be read now; that it is broken is not known.
        """
        self.problems = []
        for seq in reversed(self._seqs("json")):
            if at_most is None or seq <= at_most:
                found = self._load(self._stem(seq), seq, shapes, accept)
                if found is not None:
                    return found
        return None

    def _load(
        self,
        stem: str,
        seq: int | None,
        shapes: Shapes | Callable[[Manifest], Shapes],
        accept: Callable[[Manifest], bool],
    ) -> tuple[Manifest, dict[str, NDArray[Any]]] | None:
        manifest = self._manifest(stem, seq)
        if manifest is None or not accept(manifest):
            return None
        tensors = self._tensors(stem, manifest, shapes(manifest) if callable(shapes) else shapes)
        return None if tensors is None else (manifest, tensors)

    def _manifest(self, stem: str, seq: int | None) -> Manifest | None:
        name = f"{stem}.json"
        try:
            manifest = unseal(self._store.read(name, MANIFEST_BYTES), self._key)
            if (manifest.run, manifest.seq) != (self._run, seq or 0):
                raise ValueError(f"it is of run {manifest.run!r}, seq {manifest.seq}")
            if (seq is None) != manifest.is_start:
                raise ValueError("it is no checkpoint but a start, or the other way round")
            return manifest
        except StoreError:  # not the file is broken
            raise
        except (FileNotFoundError, ValueError, RecoveryError) as error:
            self._note(name, error)
            return None

    def _tensors(
        self, stem: str, manifest: Manifest, shapes: Shapes
    ) -> dict[str, NDArray[Any]] | None:
        name = f"{stem}.safetensors"
        try:
            size, most = self._store.size(name), arrays.most_bytes(shapes)
            if size != manifest.tensors_bytes or size > most:
                raise ValueError(
                    f"it has {size} bytes; its manifest says {manifest.tensors_bytes}, and this "
                    f"task's state takes {most} at most"
                )
            data = self._store.read(name, size)
            if hashlib.sha256(data).hexdigest() != manifest.tensors_sha256:
                raise ValueError("its sha256 is not the one in its manifest")
            return arrays.unpack(data, shapes)
        except StoreError:
            raise
        except (FileNotFoundError, ValueError, RecoveryError, safetensors.SafetensorError) as error:
            self._note(name, error)
            return None

    def _note(self, name: str, error: Exception) -> None:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        if not isinstance(error, RecoveryError):  # which names the file itself
            reason = f"{self._store.place}/{name}: {reason}"
        # Quotes of a broken file may be long, and hold what a terminal would obey.
        self.problems.append("".join(c if c.isprintable() else "?" for c in reason[:500]))

    def _prune(self, saved: int) -> None:
        """Remove all but the newest `keep`; what is newer than `saved` is not ours to judge."""
        old = [seq for seq in self._seqs("json") if seq <= saved]
        for seq in old[: -self._keep]:
            self._store.delete(f"{self._stem(seq)}.json")
        for seq in self._seqs("safetensors"):
            if seq <= saved and seq not in old[-self._keep :]:
                self._store.delete(f"{self._stem(seq)}.safetensors")

    def _seqs(self, kind: str) -> list[int]:
        names = self._store.names(f"{self._run}/")
        found = (_NAME.fullmatch(name.removeprefix(f"{self._run}/")) for name in names)
        return sorted(int(match[1]) for match in found if match and match[2] == kind)

    def _stem(self, seq: int) -> str:
        return f"{self._run}/{seq:012d}"
